"""What all modes that edit pictures share: open, read, make, show.

RUN/edits/<tag>/request.json    what decides the results
RUN/edits/<tag>/samples.npz     arr_0, the results as samples are stored
RUN/edits/<tag>/images/         each of them as PNG
RUN/edits/<tag>/preview.png     what was given and what was made
"""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ddpm_jax import config as config_lib
from ddpm_jax.builders import chains, kinds, trained_run
from ddpm_jax.builders import data as build_data
from ddpm_jax.builders import editing as build_editing
from ddpm_jax.builders import network as build_network
from ddpm_jax.core import errors
from ddpm_jax.data import images as images_lib
from ddpm_jax.data import inputs
from ddpm_jax.runtime import compilation, devices, distributed, image_grid
from ddpm_jax.runtime.console import say
from ddpm_jax.sampling import archive, chain_sampler, generation
from ddpm_jax.sampling import recipe as recipe_lib
from ddpm_jax.sampling import sampler as sampler_lib
from ddpm_jax.training import progress

MOST_FILES = 1000  # results that are written as PNG too


class Opened(NamedTuple):
    """A run that edits.

    Attributes:
        config: with the changes of the command line.
        facts: of its data.
        trained: the run on its devices.
        weights: that are used.
        on_step: told a `Step` after every entry of each chain that comes before the
            results, or makes frames; what it raises ends the edit. None for nobody.
    """

    config: object
    facts: build_data.DataInfo
    trained: trained_run.TrainedRun
    weights: recipe_lib.Weights
    on_step: Callable[[sampler_lib.Step], None] | None = None


def read_run(config, workdir, mode: str) -> trained_run.SavedRun:
    """Return what a run says of itself, before anything of it is loaded.

    Raises:
        Refusal: no run, or one that cannot edit pictures.
    """
    devices.check()
    saved = trained_run.read(workdir)
    saved.run_dir.check_writable()
    check_run(config, saved.facts, mode)
    return saved


def check_run(config, facts, mode: str) -> None:
    """Refuse runs that cannot edit pictures.

    Args:
        config: of the run.
        facts: of its data.
        mode: that edits.
    """
    if mode == "animate" and chains.is_of_plane(config, facts):
        return
    completes = mode == "inpaint"
    build_network.check_kind(config, f"--mode={mode} of", completes=completes)
    build_network.check_no_upsampler(config, f"--mode={mode} of")
    build_data.check_pictures(facts, f"--mode={mode}", "it needs a run on images")


def open_run(saved: trained_run.SavedRun, config, shape=None) -> Opened:
    """Return the run on its devices, with the weights that config.sampling asks for.

    Args:
        saved: from `read_run`.
        config: of the run.
        shape: of the pictures, where it is another than the run's.
    """
    compilation.enable_cache()
    if shape is not None and tuple(shape) != saved.facts.shape:
        if config.sampling.classifier or config.sampling.weaker:
            raise errors.Refusal(
                f"--keep-size with a picture of {shape[0]}x{shape[1]} and another run "
                "that guides: it takes the run's own size only; leave out --keep-size, "
                "or sampling.classifier and sampling.weaker"
            )
        config, saved = trained_run.at_size(config, saved, tuple(shape))
    trained = trained_run.open_run(saved, config)
    weights = trained.weights(config.sampling.weights, field="sampling.weights")
    say(f"step {weights.step}, {weights.why}")
    return Opened(config, saved.facts, trained, weights)


def check_used(config, needs: Mapping[str, tuple[bool, str]]) -> None:
    """Refuse settings that have no effect.

    Args:
        config: of the run.
        needs: field of config.editing → whether it is used, and what would use it.
    """
    usual = config_lib.base().editing
    for name, (is_used, what) in needs.items():
        if config.editing[name] != usual[name] and not is_used:
            raise errors.Refusal(
                f"editing.{name}={config.editing[name]!r} has no effect without "
                f"{what}: give that, or leave it {usual[name]!r}"
            )


def check_temperature(config, instead: str) -> None:
    """Refuse a temperature of x_T where no chain starts from noise.

    Args:
        config: of the run.
        instead: what chains start from.
    """
    usual = config_lib.base().sampling.temperature
    if config.sampling.temperature != usual:
        raise errors.Refusal(
            f"sampling.temperature={config.sampling.temperature:g} has no effect on "
            f"chains that start from {instead}: leave it {usual:g}"
        )


def read_pictures(
    paths: Sequence[str], config, saved: trained_run.SavedRun
) -> list[inputs.Picture]:
    """Return pictures that are given to be edited, fitted to the run, and say how.

    Raises:
        Refusal: no picture, one that cannot be fitted, or several of several sizes.
    """
    facts = saved.facts
    multiple = 2 ** (len(config.model.channel_mult) - 1)
    found = [
        inputs.read_picture(
            path,
            shape=facts.shape,
            levels=facts.levels,
            crop=config.data.crop,
            keep_size=multiple if config.editing.keep_size else 0,
        )
        for path in paths
    ]
    sizes = {picture.fitted.shape[:2] for picture in found}
    if len(sizes) > 1:
        listed = ", ".join(f"{h}x{w}" for h, w in sorted(sizes))
        raise errors.Refusal(
            f"pictures of several sizes ({listed}): give them one by one, or leave out "
            "--keep-size, which fits them to the run"
        )
    for path, picture in zip(paths, found, strict=True):
        content = build_editing.fingerprint(picture.fitted)
        distributed.check_alike(
            {f"--image={path}": content}, "give every host the same files"
        )
        for line in picture.remarks:
            say(line)
    return found


def make(
    opened: Opened,
    recipe: recipe_lib.Recipe,
    arrays: Mapping[str, np.ndarray] | Callable[[], Mapping[str, np.ndarray]],
    wanted: int,
) -> archive.SampleStore | None:
    """Make the results of an edit, or go on making them.

    Args:
        opened: the run.
        recipe: of the results.
        arrays: that it names; or a function that computes them, which is called where
            results are missing, before anything is written.
        wanted: number of results.

    Returns:
        Their store; None where the making was stopped, and the same command goes on.
    """
    trained, config = opened.trained, opened.config
    if callable(arrays):
        arrays = {} if is_made(opened, recipe, wanted) else arrays()
    store = generation.open_store(trained.run_dir.edits, recipe, opened.weights)
    made_by = kinds.sampled(config).make_sampler(
        recipe,
        config,
        opened.facts,
        trained.network,
        trained.mesh,
        weights=opened.weights,
        arrays=arrays,
    )
    is_chain = isinstance(recipe, chain_sampler.ChainRecipe)  # one program: no entries
    if not is_chain and not distributed.from_first(store.is_finished(wanted)):
        say_cost(made_by, opened.weights.params, wanted, config.sampling.batch_size)
    finished = generation.generate_until(
        store,
        made_by,
        opened.weights,
        wanted,
        batch_size=config.sampling.batch_size,
        levels=opened.facts.levels,
    )
    return store if finished else None


def is_made(opened: Opened, recipe: recipe_lib.Recipe, wanted: int) -> bool:
    """Return whether all results are there already."""
    folder = opened.trained.run_dir.edits
    there = False
    if (folder / recipe.tag(opened.weights) / "samples.npz").exists():
        store = generation.open_store(folder, recipe, opened.weights)
        there = store.is_finished(wanted)
    return distributed.from_first(there)


def keep(opened: Opened, recipe: recipe_lib.Recipe, results) -> archive.SampleStore:
    """Keep results that no chain has to make.

    Args:
        opened: the run.
        recipe: that they are named by.
        results: as samples are stored, [n, H, W, C].
    """
    store = generation.open_store(opened.trained.run_dir.edits, recipe, opened.weights)
    if distributed.is_first() and not store.is_finished(len(results)):
        store.add(store.count(), results[store.count() :])
        store.finish(len(results), None)
    distributed.barrier("the archive of samples")
    say(f"samples: {store.archive}")
    return store


def say_cost(made_by: sampler_lib.Sampler, params, wanted: int, batch_size: int):
    """Say how often the network will be evaluated, and for how long."""
    batch_size = sampler_lib.rounded_batch(min(batch_size, wanted), made_by.mesh)
    seconds = made_by.seconds_per_entry(params, batch_size)
    evaluations = made_by.recipe.evaluations
    batches = -(-wanted // batch_size)
    took = progress.duration(seconds * evaluations * batches)
    say(f"{evaluations} evaluations of the network for each of {wanted}: about {took}")


def write_pictures(store: archive.SampleStore, wanted: int, preview) -> None:
    """Write the results as PNG files, and the preview; process 0 does.

    Args:
        store: with the results.
        wanted: how many there are.
        preview: results as stored, [wanted, H, W, C] → RGB picture.
    """
    if not distributed.is_first():
        return
    results = store.first(wanted)
    for number, image in enumerate(images_lib.shown(results[:MOST_FILES])):
        image_grid.write_png(store.folder / "images" / f"{number:04d}.png", image)
    image_grid.write_png(store.folder / "preview.png", preview(results))
    say(f"images:  {store.folder / 'images'}")
    say(f"preview: {store.folder / 'preview.png'}")


def name_of(paths: Sequence[str], pictures: Sequence[inputs.Picture]) -> str:
    """Return a word for the pictures of an edit: "seven", or "seven_and_3"."""
    first = pathlib.Path(paths[0]).stem
    return first if len(pictures) == 1 else f"{first}_and_{len(pictures) - 1}"
