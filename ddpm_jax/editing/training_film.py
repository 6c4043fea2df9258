"""The grids that a run made while it was trained, as frames. No network is needed."""

from typing import NamedTuple

import numpy as np

from ddpm_jax.builders import editing as build_editing
from ddpm_jax.builders import trained_run
from ddpm_jax.core import errors
from ddpm_jax.report import grids
from ddpm_jax.runs import directory
from ddpm_jax.runtime import distributed
from ddpm_jax.runtime.console import say
from ddpm_jax.sampling import archive

STRIP_COLUMNS = 5
WIDEST = 480  # pixels of a grid in a strip


class Frames(NamedTuple):
    """Grids, in the order of training.

    Attributes:
        values: uint8 [F, 1, H, W, C].
        steps: at which they were made.
        has_both: whether each is of raw weights and, right of it, of EMA weights.
    """

    values: np.ndarray
    steps: list[int]
    has_both: bool


def frames(run_dir: directory.RunDir, count: int) -> Frames:
    """Return the grids that a run made while it was trained.

    Args:
        run_dir: of the run.
        count: of frames, which lie evenly among the grids; 0 for all.

    Raises:
        Refusal: fewer than two grids, or than were asked for.
    """
    found = grids.training_frames(run_dir)
    remedy = "they are made while training, every train.sample_every steps"
    if len(found) < 2:
        raise errors.Refusal(
            f"--kind=train of {run_dir.samples} with {len(found)} grids "
            f"step_<n>.png: it takes at least 2; {remedy}"
        )
    if count > len(found):
        raise errors.Refusal(
            f"editing.frames={count} of {len(found)} grids step_<n>.png: give at most "
            f"{len(found)}; {remedy}"
        )
    pictures = [(step, _opened(path)) for step, path in found]
    size = pictures[-1][1].size
    fitting = [(step, p) for step, p in pictures if p.size == size]
    if len(fitting) < len(pictures):
        left = len(pictures) - len(fitting)
        say(f"{left} grids of another size than the newest are left out")
    if len(fitting) < 2:
        raise errors.Refusal(
            f"--kind=train: no other grid is of the size of the newest, {size[0]}x"
            f"{size[1]}; {remedy}"
        )
    chosen = grids.evenly(fitting, count or len(fitting))
    mode = "L" if all(p.mode == "L" for _, p in chosen) else "RGB"
    values = np.stack([np.asarray(p.convert(mode)) for _, p in chosen])
    values = values.reshape(len(chosen), 1, *values.shape[1:3], -1)
    has_both = len(grids.split(chosen[-1][1])) == 2
    return Frames(values, [step for step, _ in chosen], has_both)


def make(
    saved: trained_run.SavedRun, count: int
) -> tuple[archive.SampleStore, list[tuple[str, ...]], list[str]]:
    """Return the store of the frames, [F, 1, H, W, C], their captions and marks.

    Args:
        saved: the run.
        count: see `frames`.
    """
    found = frames(saved.run_dir, count)
    store = _store(saved.run_dir, found.values, found.steps)
    words = ": raw weights left, EMA right" if found.has_both else ""
    captions = [(f"step {step:,}{words}",) for step in found.steps]
    return store, captions, [f"step {step:,}" for step in found.steps]


def _store(run_dir, values, steps):
    """Return the frames on disk."""
    prints = build_editing.fingerprint(values)
    request = {
        "edit": "animate",
        "kind": "train",
        "steps": steps,
        "grids_fingerprint": prints,
    }
    name = f"animate-kindtrain-frames{len(steps)}-{prints[:8]}-step{steps[-1]}"
    store = archive.SampleStore(run_dir.edits / name, request)
    if distributed.from_first(store.is_finished(len(steps))):
        say(f"{len(steps)} frames exist already: {store.archive}")
        return store
    if distributed.is_first():
        if store.count() == 0:
            store.add(0, values)
        store.finish(len(steps), None)
    return store


def half(grid: np.ndarray) -> np.ndarray:
    """Return the grid of the EMA weights, or the whole one, small enough for a strip.

    Args:
        grid: uint8 [H, W, C].
    """
    from PIL import Image

    image = Image.fromarray(grid[..., 0] if grid.shape[-1] == 1 else grid)
    image = grids.split(image)[-1]
    if image.width > WIDEST:
        image = image.reduce(-(-image.width // WIDEST))
    found = np.asarray(image)
    return found.reshape(*found.shape[:2], -1)


def _opened(path):
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
    except OSError as error:
        raise errors.Refusal(
            f"{path} is no picture that can be read: move it away"
        ) from error
    return image
