"""Pictures beside samples: a grid of them, and what an upsampler made of what."""

import numpy as np

from ddpm_jax.builders import low_res
from ddpm_jax.data import images as images_lib
from ddpm_jax.metrics import enlarging
from ddpm_jax.report import prompt_sheets, sample_plots, sheets
from ddpm_jax.runtime import distributed, files, image_grid
from ddpm_jax.runtime.console import say

GRID = "grid.png"
MAX_GRID_IMAGES = 100
PREVIEW = "upsampler_preview.png"
SHOWN = 8  # images of a preview
SHOWN_DRAWS = 2


def write_grid(store, wanted: int, labels, prompts=()) -> None:
    """Write grid.png of the first samples, and say where it is; process 0 does.

    Samples that are no images make a plot of that name.

    Args:
        store: of the samples.
        wanted: their number.
        labels: those that follow each other in a row, or None.
        prompts: that the images were made of in turn; () for none.
    """
    if not distributed.is_first():
        return
    path = store.folder / GRID
    shown = store.first(min(wanted, MAX_GRID_IMAGES))
    if not images_lib.is_image(shown.shape[1:]):
        shown = store.first(min(wanted, sample_plots.MAX_POINTS))
        values = images_lib.from_stored(shown)
        picture = sample_plots.picture(f"{len(shown)} samples", values)
        files.write_bytes(path, picture)
    elif prompts:
        image_grid.write_png(
            path, prompt_sheets.sheet(images_lib.shown(shown), prompts)
        )
    else:
        columns = image_grid.columns_for(labels)
        grid = image_grid.grid(images_lib.shown(shown), columns=columns)
        image_grid.write_png(path, grid)
    say(f"grid:    {path}")


def preview(
    small: np.ndarray, draws: np.ndarray, truth: np.ndarray | None = None
) -> np.ndarray:
    """Return a picture: what was enlarged, bicubic, ours, and the truth if known.

    Args:
        small: [n, h, w, C] in [−1, 1].
        draws: [n, draws, H, W, C].
        truth: [n, H, W, C], None where it is not known.

    Returns:
        uint8 [height, width, 1 or 3].
    """
    count, times = draws.shape[:2]
    height, width = draws.shape[2:4]
    small = small[:count]
    scales = (height // small.shape[1], width // small.shape[2])
    rows = {
        f"given\n{small.shape[1]}x{small.shape[2]}": small.repeat(
            scales[0], axis=1
        ).repeat(scales[1], axis=2),
        "bicubic": enlarging.bicubic(small, (height, width)),
    }
    for draw in range(min(times, SHOWN_DRAWS)):
        rows["ours" if times == 1 else f"ours\ndraw {draw + 1}"] = draws[:, draw]
    if times > 1:
        rows[f"ours\nmean of {times}"] = draws.mean(axis=1)
    if truth is not None:
        rows["truth"] = truth[:count]
    tiles = [list(images_lib.to_uint8(row)) for row in rows.values()]
    return sheets.sheet(tiles, [""] * count, names=list(rows))


def write_preview(store, given: low_res.Given, wanted: int) -> None:
    """Write the preview of the first samples, and say where it is; process 0 does.

    Args:
        store: that holds them.
        given: what was enlarged, before any noise.
        wanted: how many there are.
    """
    if not distributed.is_first():
        return
    count = min(wanted, SHOWN)
    made = images_lib.from_stored(store.first(count))
    small = given.source.of(np.arange(count))[low_res.KEY]
    path = store.folder / PREVIEW
    image_grid.write_png(path, preview(small, made[:, None]))
    say(f"preview: {path}")
