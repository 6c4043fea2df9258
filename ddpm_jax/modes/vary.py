"""Variations of a picture: noise is added, up to a strength, and taken away again."""

from ddpm_jax.editing import edit, plans, variation
from ddpm_jax.report import edit_pictures


def run(config, workdir, image) -> None:
    """Make editing.variants variations of each picture, or of a sample.

    Args:
        config: of the run; editing.* says how.
        workdir: the run.
        image: files of the pictures; none with editing.from_sample.

    Raises:
        Refusal: pictures or settings that do not fit.
    """
    saved = edit.read_run(config, workdir, "vary")
    given = plans.from_files(image, config, saved)
    opened, plan = plans.planned_of_run(variation.plan, config, saved, given)
    store = plans.keep(opened, plan, given.names)
    if store is None:
        return
    shown = plan.shown(opened) if plan.shown else given.stored
    edit.write_pictures(
        store, plan.wanted, lambda results: edit_pictures.varied(shown, results)
    )
