"""Cascades: an upsampler enlarges what another run makes, which may enlarge in turn.

Each stage makes its images by its own run's config.sampling and keeps them in its own
samples folder, as its own --mode=sample would: what is there is not made again.
"""

import functools
import hashlib
import json

import numpy as np

from ddpm_jax import config as config_lib
from ddpm_jax.builders import low_res, prompts, sample_pictures, trained_run
from ddpm_jax.builders import sampling as build_sampling
from ddpm_jax.builders.data import DataInfo
from ddpm_jax.core import errors
from ddpm_jax.data import given_images
from ddpm_jax.data import images as images_lib
from ddpm_jax.runtime import distributed
from ddpm_jax.runtime.cluster import shared_disk
from ddpm_jax.runtime.console import say
from ddpm_jax.sampling import generation

# What is to be seen is asked of the first stage that can be told; later ones enlarge
# that. By field of config.sampling, the field of config.model of runs that can.
HANDED_DOWN = {
    "labels": "class_conditional",
    "per_class": "class_conditional",
    "prompts": "text_layers",
}


def source(config, facts: DataInfo, *, images=None) -> low_res.Source | None:
    """Return what config.sampling.low_res names, None where it names nothing.

    Of a run the weights are read; no image is made yet.

    Args:
        config, facts: of the run that is sampled.
        images: uint8 or uint16 [N, h, w, C] from Python, instead of what is named.

    Raises:
        Refusal: nothing there, or something that the run cannot enlarge.
    """
    named = tuple(map(low_res.expanded, config.sampling.low_res))
    if config.model.kind != "upsampler":
        return None
    if images is not None:
        pictures = given_images.GivenImages(_checked(images))
        return low_res.of_pictures(config, facts, pictures, "low_res")
    if not named:
        return None
    *before, path = named
    if not given_images.is_archive(path):
        return _of_run(config, facts, trained_run.read(path), tuple(before))
    with errors.about(f"sampling.low_res={path}"):
        if before:
            raise errors.Refusal(
                f"{before[-1]} is named before it, and this is no run that would "
                "enlarge its images: give runs, the first one first"
            )
        pictures = given_images.read(path, say)
    return low_res.of_pictures(config, facts, pictures, path)


def given(config, facts: DataInfo, *, images=None) -> low_res.Given | None:
    """Return what an upsampler enlarges with its noise, see `source` and `low_res`."""
    found = low_res.given(config, facts, source(config, facts, images=images))
    if found is not None:
        distributed.check_alike(
            {"sampling.low_res": found.word}, "give every host the same files"
        )
    return found


def _checked(images) -> np.ndarray:
    images = np.asarray(images)
    if images.dtype not in (np.uint8, np.uint16) or images.ndim != 4:
        raise errors.Refusal(
            f"low_res is {images.dtype}{list(images.shape)}: give uint8 images "
            "[n, h, w, C], as sample() returns them"
        )
    return images


# ---- runs ----------------------------------------------------------------------------


def stage_config(config, saved: trained_run.SavedRun, before: tuple[str, ...]):
    """Return the config that a run makes its images by, as a stage of a cascade.

    It is its own. Devices are those of the command, as is what is to be seen, where
    the command says it.

    Args:
        config: of the stage after it.
        saved: the run.
        before: the runs that it enlarges; () for those of its own config.
    """
    own = saved.config.copy_and_resolve_references()
    own.mesh = config.mesh
    if before:
        own.sampling.low_res = before
    usual = config_lib.base().sampling
    for field, reads in HANDED_DOWN.items():
        is_given = config.sampling[field] != usual[field]
        if is_given and own.model[reads]:
            own.sampling[field] = config.sampling[field]
    return own


def _of_run(config, facts, saved, before) -> low_res.Source:
    """Return the images that a run makes, see `Stage`."""
    where = f"sampling.low_res={saved.run_dir.path.name}"
    if saved.config.model.kind == "classifier":
        raise errors.Refusal(
            f"{where} is a classifier, which makes no images: give {low_res.WAYS}"
        )
    low_res.check_size(config, facts, saved.facts.shape, where)
    if config.model.class_conditional and saved.config.model.class_conditional:
        low_res.check_classes(facts, saved.facts.class_names, where)
    both_read = facts.text and saved.facts.text
    if both_read and facts.text.tokenizer != saved.facts.text.tokenizer:
        raise errors.Refusal(
            f"{where} reads prompts by another tokenizer than the upsampler: its "
            "prompts cannot go along; train both with the same one"
        )
    stage = Stage(stage_config(config, saved, before), saved)
    carried = stage.carried
    return low_res.Source(
        name=f"{saved.run_dir.path.name}@{stage.weights.step}",
        fingerprint=stage.fingerprint,
        shape=saved.facts.shape,
        count=stage.given and stage.given.source.count,
        of=lambda index: stage.conditions(index, carried),
        carried=carried,
        make=stage.make,
        classes=stage.classes,
    )


class Stage:
    """A run that makes what the next one enlarges."""

    def __init__(self, config, saved: trained_run.SavedRun):
        """Read the weights of a run; no image is made yet.

        Args:
            config: from `stage_config`.
            saved: the run.

        Raises:
            Refusal: no checkpoint, or settings that the run cannot meet.
        """
        saved.run_dir.check_writable()
        self._config, self._saved = config, saved
        self.given = given(config, saved.facts)
        self._recipe = build_sampling.recipe(config, saved.facts, given=self.given)
        self._trained = trained_run.open_run(saved, config)
        self.weights = self._trained.weights(
            config.sampling.weights, field="sampling.weights"
        )
        self.network = self._trained.network
        self.classes = build_sampling.classes(config, saved.facts, given=self.given)
        self._count = 0

    @property
    def fingerprint(self) -> str:
        """What changes with the images: the hash of their request."""
        request = json.dumps(self._recipe.request(self.weights), sort_keys=True)
        return hashlib.sha256(request.encode()).hexdigest()

    @property
    def carried(self) -> frozenset[str]:
        """Keys of the condition that its images are made of, and so are true of them.

        Guidance of scale 0 leaves the condition out.
        """
        if not self._recipe.is_conditional:
            return frozenset()
        return frozenset(self.network.condition_spec) - {low_res.KEY, low_res.LEVEL}

    @functools.cached_property
    def _sampler(self):
        return build_sampling.make_sampler(
            self._recipe,
            self._config,
            self.network,
            self._trained.mesh,
            weights=self.weights,
            given=self.given,
        )

    @functools.cached_property
    def _store(self):
        folder = self._saved.run_dir.samples
        return generation.open_store(folder, self._recipe, self.weights)

    @functools.cached_property
    def _images(self):
        return self._store.first(self._count)

    def make(self, count: int) -> bool:
        """Make images until there are `count`; return whether all are there now."""
        if self.given is not None and not self.given.source.make(count):
            return False
        say(f"images to enlarge: {self._saved.run_dir.path}")
        say(f"step {self.weights.step}, {self.weights.why}")
        if self.classes is not None:
            say(f"classes: {self.classes}")
        texts = prompts.of(self._config, self._saved.facts, self.given)
        lines = build_sampling.guidance_lines(
            self._config, self._saved.facts, self._saved.imported
        )
        for line in [*(texts.summary() if texts else ()), *lines]:
            say(line)
        was_finished = distributed.from_first(self._store.is_finished(count))
        done = generation.generate_until(
            self._store,
            self._sampler,
            self.weights,
            count,
            batch_size=self._config.sampling.batch_size,
            levels=self._saved.facts.levels,
        )
        if not done:
            return False
        store = self._store
        shared_disk.wait_until(lambda: store.is_finished(count), store.archive)
        if not was_finished:
            self._write_pictures(count, texts)
        self._count = count
        vars(self).pop("_images", None)
        return True

    def _write_pictures(self, count, texts) -> None:
        """Write grid and preview of images that were made just now."""
        columns = self.classes and self.classes.in_columns
        shown = texts.texts if texts and self._recipe.is_conditional else ()
        sample_pictures.write_grid(self._store, count, columns, shown)
        if self.given is not None:
            sample_pictures.write_preview(self._store, self.given, count)

    def conditions(self, index, carried) -> dict[str, np.ndarray]:
        """Return images of these numbers, and what was asked of them, by key.

        Args:
            index: [n], below the number given to `make`.
            carried: keys of the condition that go along.
        """
        found = {low_res.KEY: images_lib.from_stored(self._images[index])}
        if carried:
            asked = self._sampler.condition_of(index)
            found |= {key: asked[key] for key in carried}
        return found
