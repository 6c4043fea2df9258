"""Animations: of a chain, of latents, of classes, of guidance, of training."""

from typing import NamedTuple

import numpy as np

from ddpm_jax.data import images as images_lib
from ddpm_jax.editing import animation as animation_lib
from ddpm_jax.editing import edit, films, training_film
from ddpm_jax.editing.animation import Animation
from ddpm_jax.metrics import motion
from ddpm_jax.report import animations, grids, sheets
from ddpm_jax.runtime import distributed, files, image_grid
from ddpm_jax.runtime.console import say

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


def run(config, workdir) -> None:
    """Write RUN/edits/<tag>/animation.<format> and strip.png.

    Args:
        config: of the run; editing.kind says of what.
        workdir: the run.

    Raises:
        Refusal: a kind that the run cannot give, or settings that do not fit.
    """
    editing = config.editing
    animations.check(editing.format, editing.fps)
    films.check(config)
    saved = edit.read_run(config, workdir, "animate")
    if editing.kind == "train":
        store, captions, marks = training_film.make(saved, editing.frames)
        if distributed.is_first():
            frames = store.first(len(marks))
            numbers = list(range(len(frames)))
            shown = grids.evenly(numbers, training_film.STRIP_COLUMNS)
            film = Film(frames, captions, marks, 1, False, shown)
            write(film, config, store.folder)
        return
    animation = films.plan(config, saved.facts)
    opened = edit.open_run(saved, config)
    store, is_finished = animation_lib.make(opened, animation)
    if is_finished and distributed.is_first():
        frames = store.first(len(animation.frames))
        write(film_of(animation, frames), config, store.folder)


# ---- what is written -----------------------------------------------------------------


def film_of(animation: Animation, frames: np.ndarray) -> Film:
    """Return the frames of an animation with their words."""
    captions = [(frame.caption,) if frame.caption else () for frame in animation.frames]
    if animation.is_one_chain:
        states = [(f"x_t, {c}" if c != "image" else c) for (c,) in captions]
        captions = [(state, "estimate of x_0") for state in states]
    marks = [frame.mark for frame in animation.frames]
    blocks = 2 if animation.is_one_chain else 1
    return Film(frames, captions, marks, blocks, animation.is_loop, animation.shown)


def write(film: Film, config, folder) -> None:
    """Write animation and strip, and say where they are and how much they move."""
    editing = config.editing
    shown = images_lib.shown(film.frames)
    fps = editing.fps or usual_fps(film)
    pictures = [
        sheets.frame(images, captions=captions, blocks=film.blocks)
        for images, captions in zip(shown, film.captions, strict=True)
    ]
    said = motion.motion(shown, is_loop=film.is_loop)
    say(f"neighbouring frames are {said}")
    data = animations.encode(pictures, editing.format, fps=fps, is_loop=film.is_loop)
    if editing.format == "gif" and pictures[0].shape[-1] > 1:
        say(
            "note: a GIF has 256 colours; --format=webp keeps all, from the same frames"
        )
    path = folder / animations.NAMES[editing.format]
    files.write_bytes(path, data)
    image_grid.write_png(folder / "strip.png", strip(film._replace(frames=shown)))
    height, width = pictures[0].shape[:2]
    seconds = len(pictures) / fps
    say(f"frames:    {folder / 'samples.npz'}")
    say(f"strip:     {folder / 'strip.png'}")
    say(
        f"animation: {path} ({len(pictures)} frames of {width}x{height}, "
        f"{seconds:.1f} s{', a loop' if film.is_loop else ''})"
    )


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
