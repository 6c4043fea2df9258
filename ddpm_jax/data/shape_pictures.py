"""Pictures of scenes, and the scene in a picture.

A kind of thing looks the same in every cell: cells lie whole pixels apart, and no thing
touches the cell of another. A picture is read cell by cell as what looks nearest; so
pictures are read exactly, and any other image as the scene that it resembles most.
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
RADIUS = {"big": 0.45, "small": 0.3}  # in cells
SAMPLES = 16  # in a pixel along each side; their mean is its colour


class Reading(NamedTuple):
    """What was found in images.

    Attributes:
        cells: int8 [n, 9], see `shape_scenes`.
        distance: float32 [n], root mean square between the image and the picture of
            that scene, in grey levels of 256; large where an image shows no scene.
    """

    cells: np.ndarray
    distance: np.ndarray


class Templates(NamedTuple):
    """What cells show.

    Attributes:
        places: of the nine cells, their pixels in rows and columns.
        colours: float32 [49, w, w, 3], grey levels that are added to the background.
    """

    places: tuple[tuple[slice, slice], ...]
    colours: np.ndarray


def render(cells: np.ndarray, side: int) -> np.ndarray:
    """Return pictures uint8 [n, side, side, 3] of scenes, cells [n, 9]."""
    places, colours = templates(side)
    colours = np.rint(colours + np.float32(BACKGROUND)).astype(np.uint8)
    image = np.empty((len(cells), side, side, 3), np.uint8)
    image[:] = BACKGROUND
    for cell, (rows, columns) in enumerate(places):
        held = np.flatnonzero(cells[:, cell])
        image[held, rows, columns] = colours[cells[held, cell]]
    return image


def read(images: np.ndarray) -> Reading:
    """Return the scenes in images.

    Args:
        images: float [n, side, side, 3] in [-1, 1], or grey levels uint8.

    Something between two cells, or of another colour, is read as what is nearest to
    it; the distance tells of it.
    """
    images = np.asarray(images)
    levels = images.astype(np.float32)
    if images.dtype != np.uint8:
        levels = (levels + 1) * 127.5
    levels = levels - np.float32(BACKGROUND)
    places, colours = templates(images.shape[1])
    flat = colours.reshape(len(colours), -1)
    found = np.empty((len(images), scenes.CELLS), np.int8)
    for cell, (rows, columns) in enumerate(places):
        patch = levels[:, rows, columns]
        # |patch - template|² without |patch|², which is the same for all templates
        squares = (flat**2).sum(1) - 2 * patch.reshape(-1, flat.shape[1]) @ flat.T
        found[:, cell] = squares.argmin(1)
        patch -= colours[found[:, cell]]
    return Reading(found, np.sqrt((levels**2).mean((1, 2, 3))))


@functools.lru_cache(maxsize=4)
def templates(side: int) -> Templates:
    """Return what cells show at `side` pixels."""
    # An odd number of pixels: one is the middle, and thin arms of a cross are sharp.
    apart = side // scenes.GRID
    width = (apart - 1) // 2 * 2 + 1
    margin = (side - (scenes.GRID - 1) * apart - width) // 2
    starts = [margin + n * apart for n in range(scenes.GRID)]
    slices = [slice(start, start + width) for start in starts]
    colours = np.zeros((scenes.CODES, width, width, 3), np.float32)
    for code in range(1, scenes.CODES):
        kind, colour, size = scenes.named(code)
        mask = _covered(kind, RADIUS[size] * width, width)
        colours[code] = mask[..., None] * np.subtract(RGB[colour], BACKGROUND)
    places = tuple((rows, columns) for rows in slices for columns in slices)
    return Templates(places, colours)


@functools.lru_cache(maxsize=64)
def _covered(kind, radius, width):
    """Return the share [width, width] of pixels that a shape in their middle covers."""
    samples = (np.arange(width * SAMPLES) + 0.5) / SAMPLES - width / 2
    inside = _covers(kind, samples / radius, samples[:, None] / radius)
    return inside.reshape(width, SAMPLES, width, SAMPLES).mean((1, 3))


def _covers(kind, x, y):
    """Return whether points are in a shape of radius 1; y points down."""
    if kind == "circle":
        return x**2 + y**2 <= 1
    if kind == "square":
        return np.maximum(abs(x), abs(y)) <= 1
    if kind == "triangle":
        return (y <= 0.85) & (abs(x) <= (y + 1) / 1.85)
    return (np.minimum(abs(x), abs(y)) <= 0.34) & (np.maximum(abs(x), abs(y)) <= 1)
