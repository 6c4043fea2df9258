"""Pictures that show what was edited: the given one, the hole, the results."""

from collections.abc import Sequence

import numpy as np

from ddpm_jax.data import images as images_lib
from ddpm_jax.runtime import image_grid

SHORTEST_SIDE = 64  # pixels to which small pictures are enlarged
STRIPE = 8  # pixels from one line of the hatching to the next
RED = (230, 40, 40)
BLUE = (40, 90, 230)
FRAME = 3  # pixels of the frame of a given picture
MOST_SHOWN = 8  # results of one picture


def as_rgb(stored: np.ndarray) -> np.ndarray:
    """Return stored pictures [n, H, W, C] as uint8 RGB, enlarged by a whole factor."""
    shown = images_lib.shown(stored)
    channels = shown.shape[-1]
    colours = shown[..., :3] if channels >= 3 else np.repeat(shown[..., :1], 3, axis=-1)
    scale = -(-SHORTEST_SIDE // min(shown.shape[1:3]))
    return colours.repeat(scale, axis=1).repeat(scale, axis=2)


def hatched(stored: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Return one picture [H, W, C] as RGB, its hole [H, W] covered with red lines."""
    picture = as_rgb(stored[None])[0].copy()
    scale = picture.shape[0] // hole.shape[0]
    inside = hole.repeat(scale, axis=0).repeat(scale, axis=1)
    rows, columns = np.indices(inside.shape)
    line = (rows + columns) % STRIPE < STRIPE // 3
    picture[inside] = 255 - (255 - picture[inside]) // 2  # paler
    picture[inside & line] = RED
    return picture


def inpainted(
    given: Sequence[np.ndarray], holes: Sequence[np.ndarray], results: np.ndarray
) -> np.ndarray:
    """Return a grid: a row for each picture, with the hole, and its results.

    Args:
        given: stored pictures [H, W, C].
        holes: bool [H, W], one for each.
        results: stored [n·variants, H, W, C], those of one picture in a row.
    """
    variants = len(results) // len(given)
    shown = min(variants, MOST_SHOWN)
    tiles = []
    for number, (picture, hole) in enumerate(zip(given, holes, strict=True)):
        own = results[number * variants :][:shown]
        tiles += [as_rgb(picture[None])[0], hatched(picture, hole), *as_rgb(own)]
    return image_grid.grid(np.stack(tiles), columns=shown + 2)


def framed(stored: np.ndarray) -> np.ndarray:
    """Return given pictures [n, H, W, C] as RGB, with a frame inside their edges."""
    shown = as_rgb(stored).copy()
    inside = np.zeros(shown.shape[1:3], bool)
    inside[FRAME:-FRAME, FRAME:-FRAME] = True
    shown[:, ~inside] = BLUE
    return shown


def varied(given: np.ndarray, results: np.ndarray) -> np.ndarray:
    """Return a grid: a row for each picture, framed, and its results.

    Args:
        given: stored pictures [n, H, W, C].
        results: stored [n·variants, H, W, C], those of one picture in a row.
    """
    variants = len(results) // len(given)
    shown = min(variants, MOST_SHOWN)
    own = results.reshape(len(given), variants, *results.shape[1:])[:, :shown]
    tiles = [
        tile
        for picture, made in zip(framed(given), own, strict=True)
        for tile in (picture, *as_rgb(made))
    ]
    return image_grid.grid(np.stack(tiles), columns=shown + 1)


def between(given: np.ndarray | None, results: np.ndarray) -> np.ndarray:
    """Return a grid: each row of results between the two given pictures, framed.

    Args:
        given: stored pictures [2, H, W, C]; None for none.
        results: stored [rows, frames, H, W, C].
    """
    ends = [] if given is None else list(framed(given))
    tiles = [tile for row in results for tile in (*ends[:1], *as_rgb(row), *ends[1:])]
    return image_grid.grid(np.stack(tiles), columns=len(ends) + results.shape[1])
