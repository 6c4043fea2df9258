"""Pictures of what was made of prompts, with the prompts."""

from collections.abc import Sequence

import numpy as np

from ddpm_jax.report import sheets

MOST_ROWS = 8  # prompts that have a row each
MOST_TILES = 24  # where every picture has a prompt of its own
COLUMNS = 8
TILE = 96  # pixels to which small pictures are enlarged
WIDE_TILE, WIDE_COLUMNS = 192, 4  # where a prompt stands below every picture
EDGE = 8  # white pixels around


def sheet(images: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
    """Return images with what they were made of.

    A few prompts have a line and a row of images each; of many, each image has its own
    below it.

    Args:
        images: uint8 [n, H, W, C]; image i is of prompt i mod the number of prompts.
        prompts: one or several.

    Returns:
        uint8 [height, width, 1 or 3].
    """
    images = sheets.coloured(images)
    if len(prompts) <= MOST_ROWS:
        columns = min(COLUMNS, -(-len(images) // len(prompts)))
        shown = sheets.enlarged(images, TILE)
        rows = [
            (prompt, shown[number :: len(prompts)][:columns])
            for number, prompt in enumerate(prompts[: len(images)])
        ]
        parts = [part for row in rows for part in _row(*row, columns)]
    else:
        shown = sheets.enlarged(images[:MOST_TILES], WIDE_TILE)
        prompts = [prompts[number % len(prompts)] for number in range(len(shown))]
        columns = min(WIDE_COLUMNS, len(shown))
        parts = [
            np.concatenate(part, axis=1)
            for start in range(0, len(shown), columns)
            for part in _captioned(
                shown[start : start + columns],
                prompts[start : start + columns],
                columns,
            )
        ]
    return np.pad(
        np.concatenate(parts),
        ((EDGE, EDGE), (EDGE, EDGE), (0, 0)),
        constant_values=sheets.WHITE,
    )


def _row(prompt, tiles, columns):
    """Return a line of words, and the tiles below it."""
    *_, width, channels = tiles.shape
    whole = (0, columns * (width + sheets.GAP) - sheets.GAP, channels)
    picture = sheets.tiled(tiles, columns)
    yield sheets.words(_named(prompt), whole, margin=4)
    yield picture


def _captioned(tiles, prompts, columns):
    """Return a row of tiles and the words below them, a list of cells each."""
    tiles, prompts = tiles[:columns], prompts[: len(tiles[:columns])]
    height, width, channels = tiles.shape[1:]
    gap = np.full((height, sheets.GAP, channels), sheets.WHITE, np.uint8)
    empty = np.full_like(tiles[0], sheets.WHITE)
    cells = [*tiles, *[empty] * (columns - len(tiles))]
    words = [*map(_named, prompts), *[""] * (columns - len(tiles))]
    labels = [sheets.words(text, (0, width, channels), margin=4) for text in words]
    between = gap[: labels[0].shape[0]]
    yield [part for cell in cells for part in (cell, gap)]
    yield [part for cell in labels for part in (cell, between)]


def _named(prompt):
    return prompt or "(no text)"
