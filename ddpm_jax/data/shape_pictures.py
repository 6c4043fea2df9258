"""Pictures of scenes, and the scene in a picture.

Every kind of thing has one look in every cell, a template; a picture is the sum of
templates on the background. Reading goes the other way: each cell holds what the
nearest template shows. So a picture is read exactly, and any other image as what it
resembles most.
"""

import functools
from typing import NamedTuple

import numpy as np

from ddpm_jax.data import shape_scenes as scenes

MIN_SIDE, MAX_SIDE = 16, 64
BACKGROUND = (32, 34, 40)
RGB = {
    "red": (228, 56, 56),
    "green": (60, 186, 84),
    "blue": (64, 110, 240),
    "yellow": (246, 212, 60),
    "purple": (176, 74, 214),
    "white": (244, 244, 244),
}
RADIUS = {"big": 0.44, "small": 0.29}  # in cells
SAMPLES = 256  # along a side of the picture, at least; averaged in each pixel


class Reading(NamedTuple):
    """What was found in images.

    Attributes:
        cells: int8 [n, 9], see `shape_scenes`.
        distance: float32 [n], root mean square between the image and the picture of
            that scene, in grey levels of 256; large where an image shows no scene.
    """

    cells: np.ndarray
    distance: np.ndarray


class Template(NamedTuple):
    """The looks of one cell.

    Attributes:
        rows: pixels that the things of this cell touch.
        columns: as `rows`.
        colours: float32 [49, h, w, 3], grey levels to be added to the background.
        inside: bool [h, w], pixels whose centre is in the cell.
    """

    rows: slice
    columns: slice
    colours: np.ndarray
    inside: np.ndarray


def render(cells: np.ndarray, side: int) -> np.ndarray:
    """Return pictures uint8 [n, side, side, 3] of scenes, cells [n, 9]."""
    image = np.empty((len(cells), side, side, 3), np.float32)
    image[:] = BACKGROUND
    for cell, template in enumerate(templates(side)):
        held = np.flatnonzero(cells[:, cell])
        image[held, template.rows, template.columns] += template.colours[
            cells[held, cell]
        ]
    return np.rint(image).astype(np.uint8)


def read(images: np.ndarray) -> Reading:
    """Return the scenes in images.

    Args:
        images: float [n, side, side, 3] in [-1, 1], or grey levels uint8.

    A thing that lies between two cells, or one that overlaps another, is no template:
    it is read as the nearest, and the distance tells.
    """
    images = np.asarray(images)
    stored = images.dtype == np.uint8
    images = images.astype(np.float32)
    levels = (images if stored else (images + 1) * 127.5) - np.float32(BACKGROUND)
    found = np.empty((len(images), scenes.CELLS), np.int8)
    squares = np.zeros(len(images), np.float32)
    for cell, template in enumerate(templates(images.shape[1])):
        patch = levels[:, template.rows, template.columns][:, template.inside]
        patch = patch.reshape(len(images), -1)
        looks = template.colours[:, template.inside].reshape(scenes.CODES, -1)
        further = (looks**2).sum(1) - 2 * patch @ looks.T  # [n, 49]; + |patch|²
        found[:, cell] = further.argmin(1)
        squares += ((patch - looks[found[:, cell]]) ** 2).sum(1)
    return Reading(found, np.sqrt(squares / levels[0].size if len(images) else squares))


@functools.lru_cache(maxsize=4)
def templates(side: int) -> tuple[Template, ...]:
    """Return the templates of the nine cells at `side` pixels."""
    tints = np.array([np.subtract(RGB[c], BACKGROUND) for c in scenes.COLOURS])
    made = []
    for cell in range(scenes.CELLS):
        rows, columns = (_touched(n, side) for n in divmod(cell, scenes.GRID))
        masks = _masks(rows, columns, cell, side)
        colours = masks[:, None, :, ..., None] * tints[None, :, None, None, None, :]
        colours = colours.reshape(-1, *colours.shape[3:])
        empty = np.zeros_like(colours[:1])
        inside = np.logical_and.outer(
            *(
                (np.arange(side)[pixels] + 0.5) * scenes.GRID // side == n
                for pixels, n in ((rows, cell // scenes.GRID), (columns, cell % 3))
            )
        )
        made.append(
            Template(
                rows, columns, np.float32(np.concatenate([empty, colours])), inside
            )
        )
    return tuple(made)


def _touched(n, side):
    return slice(n * side // scenes.GRID, -(-(n + 1) * side // scenes.GRID))


def _masks(rows, columns, cell, side):
    """Return the share of each pixel that is covered, [kinds, sizes, h, w]."""
    finer = -(-SAMPLES // side)
    # Of the samples, in cells from the cell's centre.
    y, x = (
        (np.arange(pixels.start * finer, pixels.stop * finer) + 0.5)
        * (scenes.GRID / (side * finer))
        - (n + 0.5)
        for pixels, n in zip((rows, columns), divmod(cell, scenes.GRID), strict=True)
    )
    masks = np.array(
        [
            [
                _covers(kind, x / r, y[:, None] / r)
                for r in map(RADIUS.get, scenes.SIZES)
            ]
            for kind in scenes.KINDS
        ]
    )
    h, w = len(y) // finer, len(x) // finer
    return masks.reshape(*masks.shape[:2], h, finer, w, finer).mean((3, 5))


def _covers(kind, x, y):
    """Return whether points are in a shape of radius 1; y points down."""
    if kind == "circle":
        return x**2 + y**2 <= 1
    if kind == "square":
        return np.maximum(abs(x), abs(y)) <= 1
    if kind == "triangle":
        return (y <= 0.85) & (abs(x) <= (y + 1) / 1.85)
    return (np.minimum(abs(x), abs(y)) <= 0.34) & (np.maximum(abs(x), abs(y)) <= 1)
