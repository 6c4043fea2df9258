"""From one picture to another, or from one sample of the run to another."""

import numpy as np

from ddpm_jax.data import images as images_lib
from ddpm_jax.editing import between, edit, plans
from ddpm_jax.report import edit_pictures
from ddpm_jax.runtime.console import say


def run(config, workdir, image) -> None:
    """Make editing.frames pictures on the way from one to the other.

    Args:
        config: of the run; editing.* says how.
        workdir: the run.
        image: files of two pictures; none with editing.samples.

    Raises:
        Refusal: pictures or settings that do not fit.
    """
    saved = edit.read_run(config, workdir, "interpolate")
    between.check_given(config, image)
    given = plans.from_files(image, config, saved)
    opened, plan = plans.planned_of_run(between.plan, config, saved, given)
    store = plans.keep(opened, plan, given.names)
    if store is None:
        return
    say_distances(plan.in_rows(store.first(plan.wanted)))
    edit.write_pictures(
        store,
        plan.wanted,
        lambda made: edit_pictures.between(given.stored, plan.in_rows(made)),
    )


def say_distances(results: np.ndarray) -> None:
    """Say how much each frame differs from the next, [rows, frames, H, W, C]."""
    shown = images_lib.shown(results).astype(np.float32)
    apart = np.abs(np.diff(shown, axis=1)).mean(axis=(2, 3, 4))
    say(
        f"neighbouring frames differ by {apart.mean():.1f} of 255 grey values on "
        f"average, by {apart.max():.1f} at most"
    )
