"""The drift of a chain of points as an animation: figure 1 of the 2015 paper, moving.

Each frame is of one t: arrows f_μ(x, t) − x over the plane, and where the samples of
the reverse chain are before that step. The last one has the samples alone.
"""

from typing import NamedTuple

import numpy as np

from ddpm_jax import config as config_lib
from ddpm_jax.builders import editing as build_editing
from ddpm_jax.builders import paper_2015
from ddpm_jax.core import errors
from ddpm_jax.editing import edit
from ddpm_jax.report import chain_plots, grids
from ddpm_jax.runtime import distributed
from ddpm_jax.runtime.console import say
from ddpm_jax.sampling import archive, generation, sampler

POINTS = 1000
OF_OTHERS = ("variants", "seeds", "scales")  # fields of other animations


class Frames(NamedTuple):
    """Pictures of the plane, from x_T to the samples.

    Attributes:
        values: uint8 [F, 1, H, W, 3].
        captions: a line for each.
        marks: a short word for each.
    """

    values: np.ndarray
    captions: list[tuple[str, ...]]
    marks: list[str]


def plan(config, facts) -> tuple[object, list[int]]:
    """Return the recipe of request and folder, and the zero-based t of the frames.

    The last t is −1, of the samples.

    Raises:
        Refusal: another kind of animation, more frames than states, or fields that
            this one does not read.
    """
    editing, usual = config.editing, config_lib.base().editing
    if editing.kind != usual.kind:
        raise errors.Refusal(
            f"--kind={editing.kind} of a run on points: its drift is shown, from x_T "
            f"to x_0; leave --kind={usual.kind}"
        )
    not_read = dict.fromkeys(OF_OTHERS, (False, "a run on images"))
    edit.check_used(config, not_read)
    states = [*range(config.diffusion.num_steps - 1, 0, -1), -1]
    count = editing.frames or len(states)
    if not 2 <= count <= len(states):
        raise errors.Refusal(
            f"editing.frames={count} of {len(states)} states from x_T to x_0: give 2 … "
            f"{len(states)}, or 0 for all"
        )
    recipe = build_editing.named(
        paper_2015.recipe(config, facts),
        config,
        "animate",
        resolved={"frames": count},
    )
    return recipe, grids.evenly(states, count)


def make(opened: edit.Opened) -> tuple[archive.SampleStore, Frames]:
    """Return the store of the frames, made if they are not there, and the frames."""
    recipe, shown = plan(opened.config, opened.facts)
    store = generation.open_store(opened.trained.run_dir.edits, recipe, opened.weights)
    if distributed.from_first(store.is_finished(len(shown))):
        say(f"{len(shown)} frames exist already: {store.archive}")
        found = _worded(store.first(len(shown)), shown)
        return store, found
    found = frames(opened)
    if distributed.is_first():
        store.add(store.count(), found.values[store.count() :])
        store.finish(len(shown), None)
    distributed.barrier("the archive of frames")
    return store, found


def frames(opened: edit.Opened) -> Frames:
    """Return the frames of a run that was opened."""
    config, facts, trained = opened.config, opened.facts, opened.trained
    _, shown = plan(config, facts)
    made_by = paper_2015.make_sampler(
        paper_2015.recipe(config, facts),
        config,
        facts,
        trained.network,
        trained.mesh,
        kept=tuple(shown[:-1]),
    )
    size = sampler.rounded_batch(POINTS, trained.mesh)
    say(f"{len(shown)} frames of {size} points; compiling the sampler first …")
    params = opened.weights.params
    made = made_by.make(params, start=0, stop=size, batch_size=size)
    points, places = [*made.states[1:], made.images], chain_plots.lattice()
    values = []
    for t, state in zip(shown, points, strict=True):
        arrows = None
        if t >= 0:
            found = paper_2015.drift(config, trained.network, params, t, places)
            arrows = places, found
        values.append(chain_plots.drift_frame(_caption(t), state, arrows))
    return _worded(np.stack(values)[:, None], shown)


def _worded(values, shown) -> Frames:
    marks = [f"t = {t + 1}" if t >= 0 else "x_0" for t in shown]
    # The caption is drawn with the axes.
    return Frames(values, [() for _ in shown], marks)


def _caption(t):
    return f"x_t and f_μ(x, t) − x, t = {t + 1}" if t >= 0 else "samples"
