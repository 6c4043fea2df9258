"""Samples of a run that trains: a grid or plot of them, and their channels."""

import functools

import numpy as np

from ddpm_jax.builders import kinds, low_res
from ddpm_jax.builders import sampling as build_sampling
from ddpm_jax.core import arrays
from ddpm_jax.data import images as images_lib
from ddpm_jax.report import sample_plots
from ddpm_jax.runtime import distributed, files, image_grid
from ddpm_jax.runtime.console import say
from ddpm_jax.sampling import generation, sampler

GRID_IMAGES = 40
COMPARED_IMAGES = 512  # training images whose channels the samples are compared with


def grid_path(run_dir, done: int):
    """Return where the grid after `done` steps goes."""
    return run_dir.samples / f"step_{done}.png"


def enlarged(config, facts, dataset) -> low_res.Given | None:
    """Return what an upsampler enlarges while it trains; None for other runs.

    Args:
        config, facts: of the run.
        dataset: whose images it shows.
    """
    if config.model.kind != "upsampler":
        return None
    return low_res.given(config, facts, low_res.of_dataset(dataset))


def sampling(run):
    """Return `(params, count, should_stop=…) → parts` of always the same noise.

    The parts hold fewer than `count` images where it was stopped.

    Args:
        run: a `monitor.Run`, as below.
    """
    config, facts, mesh = run.config, run.facts, run.mesh

    @functools.cache
    def make_images():
        say("compiling the sampler …")
        kind, given = kinds.of(config), None
        if config.model.kind == "upsampler":
            given = enlarged(config, facts, run.test_split())
        recipe = kind.recipe(config, facts, given=given)
        return kind.make_sampler(recipe, config, facts, run.network, mesh, given=given)

    def sample(params, count, should_stop=lambda: False):
        parts = generation.batches(
            make_images(),
            params,
            start=0,
            stop=count,
            batch_size=sampler.rounded_batch(GRID_IMAGES, mesh),
            should_stop=should_stop,
        )
        return [made.images for _, made in parts]

    return sample


def drawing(run, sample):
    """Return `(state, done)`: writes raw and EMA samples of the same noise as a PNG."""
    config, facts, dataset = run.config, run.facts, run.dataset
    given = enlarged(config, facts, dataset)
    classes = build_sampling.classes(config, facts, given=given)
    columns = image_grid.columns_for(classes and classes.in_columns)
    has_average = bool(config.train.ema_decay)

    @functools.cache
    def channels_of_data():
        chosen = arrays.spread(len(dataset), COMPARED_IMAGES)
        return channels_of(dataset.fetch(chosen)["image"], "data")

    def draw_grid(state, done):
        (made,) = sample(run.weights(state), GRID_IMAGES)
        path = grid_path(run.run_dir, done)
        if images_lib.is_image(facts.shape):
            sides = (
                [*sample(state.params, GRID_IMAGES), made] if has_average else [made]
            )
            image_grid.write_png(path, _side_by_side(sides, columns))
            what = (
                "raw (left) and EMA weights (right)" if has_average else "raw weights"
            )
            say(f"samples of {what}: {path}")
            run.writer.image(done, "samples", path)
        elif distributed.is_first():
            files.write_bytes(path, sample_plots.picture(f"step {done}", made))
            say(f"plot of samples: {path}")
        channels = channels_of(made, "sample") | channels_of_data()
        run.writer.write({"step": done, **channels})

    return draw_grid


def _side_by_side(sides, columns):
    """Return grids of images [n, H, W, C] as one picture, white between them."""
    grids = [
        image_grid.grid(images_lib.to_uint8(part), columns=columns) for part in sides
    ]
    height, _, channels = grids[0].shape
    gap = np.full((height, image_grid.PAIR_GAP, channels), 255, np.uint8)
    parts = [part for grid in grids for part in (gap, grid)][1:]
    return np.concatenate(parts, axis=1)


def channels_of(images, name: str) -> dict[str, list[float]]:
    """Return mean and standard deviation of each channel of images [n, ..., C]."""
    pixels = images.reshape(-1, images.shape[-1]).astype(np.float64)
    return {
        f"{name}_channel_mean": pixels.mean(axis=0).tolist(),
        f"{name}_channel_std": pixels.std(axis=0).tolist(),
    }
