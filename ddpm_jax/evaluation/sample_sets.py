"""What is scored: images that a run makes, or images of files."""

import dataclasses
import pathlib
from collections.abc import Callable

import numpy as np

from ddpm_jax.builders import data as build_data
from ddpm_jax.builders import low_res
from ddpm_jax.builders import sampling as build_sampling
from ddpm_jax.core import errors
from ddpm_jax.evaluation import cards, image_sets
from ddpm_jax.metrics import table
from ddpm_jax.runtime import home
from ddpm_jax.runtime.cluster import shared_disk
from ddpm_jax.runtime.console import say
from ddpm_jax.sampling import generation

FIELD = "evaluation.samples"


@dataclasses.dataclass(frozen=True, eq=False)
class SampleSet:
    """Images to score, which may have to be made first.

    Attributes:
        tag: tells them from others, for file names.
        shape: (H, W, C).
        count: how many are scored.
        folder: where the cards go.
        crop: data.crop of the data that they imitate; "" where that is not known.
        protocol: what decides them.
        images: () → the images, or None where making them was interrupted.
    """

    tag: str
    shape: tuple[int, int, int]
    count: int
    folder: pathlib.Path
    crop: str
    protocol: dict
    images: Callable[[], image_sets.ImageSet | None]


def of_files(path: str, folder: pathlib.Path | None, crop: str) -> SampleSet:
    """Return the images of a file or folder.

    Args:
        path: an .npz file or a folder.
        folder: for the cards; None for evaluation/ beside the images.
        crop: see `SampleSet`.

    Raises:
        Refusal: nothing there that metrics can read.
    """
    found = image_sets.of_path(path, FIELD)
    place = home.expanded(path).absolute()
    return SampleSet(
        tag=f"{place.stem}-{cards.short_hash(found.hash)}-n{found.count}",
        shape=found.shape,
        count=found.count,
        folder=place.parent / "evaluation" if folder is None else folder,
        crop=crop,
        protocol={"samples": found.name, "samples_hash": found.hash},
        images=lambda: found,
    )


def with_captions(config, facts):
    """Return the config of a run that reads text with captions of the test split.

    Few texts would be a distribution of their own, far from that of the data. The
    config itself is returned where there are prompts, or no text is read.
    """
    if facts.text is None or config.sampling.prompts:
        return config
    dataset = build_data.dataset(config, "test")
    count = min(config.evaluation.num_samples, len(dataset))
    config = config.copy_and_resolve_references()
    config.sampling.prompts = tuple(dataset.captions(np.arange(count)))
    say(f"prompts: the captions of {count:,} test images")
    return config


def of_run(trained, given: low_res.Given | None = None) -> SampleSet:
    """Return the images that a run makes by its config, evaluation.num_samples of them.

    They are kept under samples/, where the sampling mode finds and continues them.

    Args:
        trained: the run, on its devices.
        given: what an upsampler enlarges.
    """
    config, facts = trained.config, trained.facts
    if given is None:
        config = with_captions(config, facts)
    recipe = build_sampling.recipe(config, facts, given=given)
    weights = trained.weights(config.sampling.weights, field="sampling.weights")
    tag, count = recipe.tag(weights), config.evaluation.num_samples

    def images():
        if given is not None and not given.source.make(count):
            return None
        say(f"step {weights.step}, {weights.why}")
        store = made(trained, config, recipe, weights, count, given=given)
        return None if store is None else image_sets.of_path(str(store.archive), FIELD)

    settings = recipe.as_dict(weights)
    return SampleSet(
        tag=f"{tag}-n{count}",
        shape=facts.shape,
        count=count,
        folder=trained.run_dir.evaluation,
        crop=config.data.crop,
        protocol={
            **{"sampler" if k == "method" else k: v for k, v in settings.items()},
            "dtype": config.model.dtype,
            "crop": image_sets.crop_of(config.data.crop),
        },
        images=images,
    )


def made(trained, config, recipe, weights, count: int, *, given=None):
    """Return the archive of the first images of a recipe, made as far as need be.

    They are kept under samples/, where --mode=sample finds them.

    Args:
        trained: the run, on its devices.
        config: of the run, with what the recipe was made of.
        recipe: of the images.
        weights: to make them with.
        count: of the images.
        given: what an upsampler enlarges.

    Returns:
        The `sampling.archive` store; None where making them was interrupted.
    """
    store = generation.open_store(trained.run_dir.samples, recipe, weights)
    is_made = generation.generate_until(
        store,
        build_sampling.make_sampler(
            recipe, config, trained.network, trained.mesh, weights=weights, given=given
        ),
        weights,
        count,
        batch_size=config.sampling.batch_size,
        levels=trained.facts.levels,
    )
    if not is_made:
        return None
    shared_disk.wait_until(lambda: store.is_finished(count), store.archive)
    return store


def check_request(names, path: str, workdir: str) -> None:
    """Refuse to score what is not there.

    Args:
        names: metrics.
        path: evaluation.samples.
        workdir: the run; "" without one.

    Raises:
        Refusal: bits/dim or accuracy of files, which have none; samples of no run.
    """
    for name in ("psnr", "consistency"):
        if name in names and path:
            raise errors.Refusal(
                f"{FIELD}={path}: {name} is of an upsampler and the test images, not "
                "of samples; leave one out"
            )
    if "bits_per_dim" in names and path:
        raise errors.Refusal(
            f"{FIELD}={path}: bits/dim are of a run and its data, not of samples; "
            "leave one out"
        )
    if "accuracy" in names and path:
        raise errors.Refusal(
            f"{FIELD}={path}: accuracy is of a classifier's run and its data, not of "
            "samples; leave one out"
        )
    of_texts = sorted(set(names) & set(table.OF_TEXTS))
    if of_texts and path:
        raise errors.Refusal(
            f"{FIELD}={path}: {of_texts[0]} is of a run and its prompts, not of "
            "samples; leave one out"
        )
    if not (path or workdir):
        raise errors.Refusal(
            f"there is nothing to score: give --workdir or --config.{FIELD}"
        )
    if "proxy_fd" in names and not workdir:
        raise errors.Refusal(
            "proxy_fd is trained on the labels of a run's data: give its --workdir, or "
            "use proxy_fd_random"
        )
