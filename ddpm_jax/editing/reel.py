"""What is shown of an animation: frames with their words, a file of them, a strip."""

from typing import NamedTuple

import numpy as np

from ddpm_jax.data import images as images_lib
from ddpm_jax.editing import training_film
from ddpm_jax.editing.animation import Animation
from ddpm_jax.report import animations, sheets

MOST_FPS, LEAST_SECONDS = 12, 4
STRIP_ROWS = 4


class Film(NamedTuple):
    """Frames that are there, and what is written of them.

    Attributes:
        frames: as stored, [F, n, H, W, C].
        captions: of each frame, one for each block; () for none.
        marks: a short word for each frame.
        blocks: parts of a frame that stand side by side.
        is_loop: the first frame follows the last one.
        shown: numbers of the frames in the strip.
    """

    frames: np.ndarray
    captions: list[tuple[str, ...]]
    marks: list[str]
    blocks: int
    is_loop: bool
    shown: list[int]


def film_of(animation: Animation, frames: np.ndarray) -> Film:
    """Return the frames of an animation with their words."""
    captions = [(frame.caption,) if frame.caption else () for frame in animation.frames]
    if animation.is_one_chain:
        states = [(f"x_t, {c}" if c != "image" else c) for (c,) in captions]
        captions = [(state, "estimate of x_0") for state in states]
    marks = [frame.mark for frame in animation.frames]
    blocks = 2 if animation.is_one_chain else 1
    return Film(frames, captions, marks, blocks, animation.is_loop, animation.shown)


def encoded(film: Film, editing) -> tuple[list[np.ndarray], float, bytes]:
    """Return the frames as pictures, how many a second, and the file of them.

    Args:
        film: the frames.
        editing: config.editing; its format and fps are read.
    """
    fps = editing.fps or usual_fps(film)
    shown = images_lib.shown(film.frames)
    pictures = [
        sheets.frame(images, captions=captions, blocks=film.blocks)
        for images, captions in zip(shown, film.captions, strict=True)
    ]
    data = animations.encode(pictures, editing.format, fps=fps, is_loop=film.is_loop)
    return pictures, fps, data


def usual_fps(film: Film) -> int:
    """Return the frames a second of an animation that lasts some seconds."""
    return max(2, min(MOST_FPS, round(len(film.frames) / LEAST_SECONDS)))


def strip(film: Film) -> np.ndarray:
    """Return a still of some frames, a column each."""
    each = film.frames.shape[1] // film.blocks
    rows, names = [], []
    for image in range(min(each, STRIP_ROWS // film.blocks)):
        for block in range(film.blocks):
            rows.append([film.frames[f, block * each + image] for f in film.shown])
            names.append(("x_t", "estimate\nof x_0")[block] if film.blocks > 1 else "")
    if film.frames.shape[1] == 1:
        rows = [[training_film.half(tile) for tile in row] for row in rows]
    return sheets.sheet(rows, [film.marks[f] for f in film.shown], names=names)
