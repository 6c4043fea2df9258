"""Scenes of one or two shapes on a 3×3 grid, drawn by (seed, split, index).

A scene is written in two ways: as things with names, for people and captions, and as
cells [9], integers for pictures: 0 is an empty cell, 1 … 48 a kind, a colour and a
size. Cells are counted in reading order.

Some combinations never occur in training: colours of kinds (`UNSEEN_PAIRS`), and kinds
above other kinds (`UNSEEN_ABOVE`). Every colour, every kind, and every kind above and
below something does. Scenes of the split "test" are made of seen combinations, but no
one of them is in the split "train", whatever its seed.
"""

from typing import NamedTuple

import numpy as np

KINDS = ("circle", "square", "triangle", "cross")
COLOURS = ("red", "green", "blue", "yellow", "purple", "white")
SIZES = ("big", "small")
GRID = 3
CELLS = GRID * GRID
CODES = len(KINDS) * len(COLOURS) * len(SIZES) + 1  # what a cell can hold
SPLITS = ("train", "test", "unseen")

UNSEEN_PAIRS = (
    ("green", "triangle"),
    ("purple", "circle"),
    ("yellow", "square"),
    ("white", "cross"),
)
UNSEEN_ABOVE = (("triangle", "circle"), ("cross", "square"))  # (upper, lower)

ONE_THING = 1 / 3  # share of the scenes
TEST_SHARE = 10  # one of so many seen scenes belongs to the split "test"


class Thing(NamedTuple):
    """A shape in its place.

    Attributes:
        kind: one of `KINDS`.
        colour: one of `COLOURS`.
        size: one of `SIZES`.
        cell: 0 … 8.
    """

    kind: str
    colour: str
    size: str
    cell: int

    @property
    def row(self) -> int:
        return self.cell // GRID

    @property
    def column(self) -> int:
        return self.cell % GRID


Scene = tuple[Thing, ...]  # ordered by cell


def code(kind: str, colour: str, size: str) -> int:
    """Return what a cell with such a thing holds, 1 … 48."""
    place = KINDS.index(kind) * len(COLOURS) + COLOURS.index(colour)
    return place * len(SIZES) + SIZES.index(size) + 1


def named(held: int) -> tuple[str, str, str]:
    """Return (kind, colour, size) of a cell that holds 1 … 48."""
    place, size = divmod(int(held) - 1, len(SIZES))
    kind, colour = divmod(place, len(COLOURS))
    return KINDS[kind], COLOURS[colour], SIZES[size]


def scene(cells: np.ndarray) -> Scene:
    """Return the things of cells [9]."""
    return tuple(Thing(*named(cells[c]), int(c)) for c in np.flatnonzero(cells))


def cells(things: Scene) -> np.ndarray:
    """Return the cells int8 [9] of things in different cells."""
    held = np.zeros(CELLS, np.int8)
    for thing in things:
        held[thing.cell] = code(thing.kind, thing.colour, thing.size)
    return held


def drawn(seed: int, split: str, indices: np.ndarray) -> np.ndarray:
    """Return scenes, each a function of (seed, split, its index) alone.

    Args:
        seed: 0 … 2⁶⁴ - 1.
        split: one of `SPLITS`.
        indices: non-negative integers [n].

    Returns:
        int8 [n, 9]: one or two cells are not empty.
    """
    indices = np.asarray(indices, np.uint64)
    held = np.zeros((len(indices), CELLS), np.int8)
    missing = np.arange(len(indices))
    attempt = 0
    while len(missing):
        held[missing] = _attempt(seed, split, indices[missing], attempt)
        missing = missing[~belongs(held[missing], split)]
        attempt += 1
    return held


def belongs(held: np.ndarray, split: str) -> np.ndarray:
    """Return bool [n]: whether scenes, cells [n, 9], are of a split."""
    unseen = is_unseen(held)
    if split == "unseen":
        return unseen
    key = held.astype(np.uint64) @ np.uint64(CODES) ** np.arange(CELLS, dtype=np.uint64)
    is_test = hashed(key) % np.uint64(TEST_SHARE) == 0
    return ~unseen & (is_test == (split == "test"))


def is_unseen(held: np.ndarray) -> np.ndarray:
    """Return bool [n]: whether scenes, cells [n, 9], show what training never does."""
    unseen = _UNSEEN_CODE[held].any(axis=1)
    kind, row = _KIND[held], np.arange(CELLS) // GRID
    for upper, lower in UNSEEN_ABOVE:
        first = np.where(kind == KINDS.index(upper), row, GRID).min(axis=1)
        last = np.where(kind == KINDS.index(lower), row, -1).max(axis=1)
        unseen |= first < last
    return unseen


def is_unseen_above(things: Scene) -> bool:
    """Return whether a kind is above another that training never shows it above."""
    return any(
        (a.kind, b.kind) in UNSEEN_ABOVE and a.row < b.row
        for a in things
        for b in things
    )


def uniform(count: int, *parts) -> np.ndarray:
    """Return float64 [n, count] in [0, 1), functions of integers.

    Args:
        count: numbers in a row.
        *parts: non-negative integers below 2⁶⁴, or arrays [n] of them.
    """
    rows = hashed(*parts)[:, None]
    bits = hashed(rows, np.arange(count, dtype=np.uint64))
    return (bits >> np.uint64(11)) * 2.0**-53


def hashed(*parts) -> np.ndarray:
    """Return uint64, at least [1]: well mixed bits of integers (SplitMix64)."""
    state = np.zeros(1, np.uint64)
    for part in parts:
        state = (state ^ np.asarray(part, np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return state


def _attempt(seed, split, indices, attempt):
    draws = uniform(5, seed, SPLITS.index(split), indices, attempt)
    rows = np.arange(len(indices))
    first = (draws[:, 1] * CELLS).astype(np.int64)
    second = (first + 1 + (draws[:, 2] * (CELLS - 1)).astype(np.int64)) % CELLS
    things = 1 + (draws[:, 3:] * (CODES - 1)).astype(np.int8)
    held = np.zeros((len(indices), CELLS), np.int8)
    held[rows, second] = np.where(draws[:, 0] < ONE_THING, 0, things[:, 1])
    held[rows, first] = things[:, 0]
    return held


_NAMES = [named(held) for held in range(1, CODES)]
_KIND = np.array([-1, *(KINDS.index(kind) for kind, _, _ in _NAMES)])
_UNSEEN_CODE = np.array([False, *((c, k) in UNSEEN_PAIRS for k, c, _ in _NAMES)])
