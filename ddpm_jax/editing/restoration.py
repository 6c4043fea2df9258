"""Restoration as a recipe: pictures x drawn from p(x | y), y = A x + σ_y n."""

from ddpm_jax.builders import editing as build_editing
from ddpm_jax.builders import process as build_process
from ddpm_jax.diffusion import reconstruction
from ddpm_jax.editing import labels, measurements, plans
from ddpm_jax.sampling import recipe as recipe_lib
from ddpm_jax.sampling.transforms import MEASURED, OPERATOR


def plan(config, facts, given: measurements.Measurement) -> plans.Plan:
    """Return what draws editing.draws pictures of each measurement.

    With an exact measurement the last step puts every draw on it.

    Args:
        config: of the run; editing.* says how.
        facts: of its data.
        given: the measurements, checked.

    Raises:
        Refusal: settings that do not fit together.
    """
    editing = config.editing
    reconstruction.check_reconstruction(
        build_process.respaced(config, "sampling"),
        likelihood=editing.likelihood,
        iterations=editing.iterations,
        measurement_std=editing.noise,
    )
    labels.of_results(config, facts, given.count)
    guide = recipe_lib.part(
        f"restoration_{editing.likelihood}",
        scale=1.0,
        iterations=editing.iterations,
        measurement_std=editing.noise,
    )
    also = [guide]
    if not editing.noise:
        also.append(recipe_lib.part("projected", iterations=editing.iterations))
    recipe = build_editing.recipe(
        config,
        facts,
        "restore",
        given={"image": build_editing.word(given.word, given.values)},
        arrays={
            MEASURED: given.values,
            OPERATOR: measurements.fingerprinted(given, facts.shape),
        },
        resolved={"operator": editing.operator or "python"},
        repeats=editing.draws,
        also=also,
    )
    arrays = {MEASURED: given.values, OPERATOR: given.operator}
    wanted = editing.draws * given.count
    return plans.Plan(config, recipe, wanted, lambda _: (arrays, None), given.count)
