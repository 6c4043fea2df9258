"""Solvers of second order in the compiled sampler: image i, inputs, temperature."""

import itertools

import numpy as np
import pytest
from test_sampling_sampler import (
    LABELLED,
    LABELS,
    MIXING,
    SHOW_START,
    Net,
    guided,
    make_images,
    make_recipe,
    mix,
)

from ddpm_jax.core import errors
from ddpm_jax.diffusion import reverse
from ddpm_jax.sampling import naming
from ddpm_jax.sampling import recipe as recipe_lib

# Optimization is what could make an image depend on its batch.
pytestmark = pytest.mark.usefixtures("optimized")

SOLVERS = ("heun", "dpmpp_2m", "dpmpp_2s")
PREDICTIONS, VARIANCES = tuple(reverse.PREDICTIONS), tuple(reverse.VARIANCES)
CLIP = recipe_lib.part("clip", low=-1.0, high=1.0)
THRESHOLD = recipe_lib.part("dynamic_threshold", maximum=2.0)
HOOKS = ((), (CLIP,), (THRESHOLD, CLIP))
GUIDANCE = ((), guided(2.5))
ALL = list(itertools.product(SOLVERS, PREDICTIONS, VARIANCES, HOOKS, GUIDANCE))
# All pairs of solver and prediction; each with every variance, and so on, in turn.
SOME = [
    (solver, prediction, VARIANCES[(i + j) % 4], HOOKS[(i + j) % 3], GUIDANCE[j % 2])
    for i, solver in enumerate(SOLVERS)
    for j, prediction in enumerate(PREDICTIONS)
]
BATCH_OF_ONE = {row[0]: row for row in SOME}.values()  # another program for each
REST = [pytest.param(*row, marks=pytest.mark.slow) for row in ALL if row not in SOME]


def one_output(params, x, t_seen, condition):
    return mix(params, x, t_seen, condition)[..., :1]


ONE_OUTPUT = Net(one_output, LABELLED)


def asked(temperature=1.0, steps=4, **options):
    setting = naming.Setting("temperature", temperature, 1.0)
    return make_recipe(steps, settings=(setting,), **options)


@pytest.mark.parametrize(
    ("solver", "prediction", "variance", "hooks", "guidance"), [*SOME, *REST]
)
def test_image_i_alone_is_image_i_of_seven(
    solver, prediction, variance, hooks, guidance
):
    row = (solver, prediction, variance, hooks, guidance)
    recipe = make_recipe(
        4,
        labels=LABELS,
        solver=recipe_lib.part(solver),
        prediction=prediction,
        variance=variance,
        hooks=hooks,
        guidance=guidance,
    )
    network = MIXING if variance in reverse.LEARNED_VARIANCES else ONE_OUTPUT
    together = make_images(recipe, network, batch_size=7, count=7)
    size = 7 if row in SOME and row not in BATCH_OF_ONE else 1
    alone = make_images(recipe, network, batch_size=size, first=4, count=1)
    assert np.std(together) > 0.1
    # Without clipping x_{t−1} prediction gives large numbers.
    scale = max(1.0, np.abs(together).max())
    np.testing.assert_allclose(alone[0], together[4], atol=1e-4 * scale)


@pytest.mark.parametrize("solver", SOLVERS)
def test_another_number_of_steps_compiles_nothing(solver):
    traces = []

    def counting(params, x, t_seen, condition):
        traces.append(1)
        return one_output(params, x, t_seen, condition)

    network, made, compiled = Net(counting), [], []
    for steps, temperature in ((4, 1.0), (20, 1.0), (5, 0.9)):
        recipe = asked(
            temperature,
            steps,
            solver=recipe_lib.part(solver),
            variance="fixed_small",
        )
        made.append(make_images(recipe, network))
        compiled.append(len(traces))
    assert len(set(compiled)) == 1
    assert all(np.std(images) > 0.1 for images in made)


def test_steps_below_the_least_are_refused():
    recipe = make_recipe(2, solver=recipe_lib.part("dpmpp_2s"))
    with pytest.raises(errors.Refusal, match="at least 3"):
        recipe.check()


@pytest.mark.parametrize(
    ("solver", "steps", "evaluations"),
    [("heun", 5, 9), ("dpmpp_2m", 5, 5), ("dpmpp_2s", 5, 5), ("ancestral", 5, 5)],
)
def test_evaluations_are_counted(solver, steps, evaluations):
    recipe = make_recipe(steps, solver=recipe_lib.part(solver))
    assert recipe.evaluations == evaluations


# ---- temperature ---------------------------------------------------------------------


def test_the_temperature_is_a_factor_of_the_start():
    options = {"prediction": "x_0", "variance": "fixed_small", "hooks": ()}
    plain = make_images(make_recipe(1, **options), SHOW_START)  # x_T itself
    one, half = (
        make_images(asked(value, 1, **options), SHOW_START) for value in (1.0, 0.5)
    )
    assert one.tobytes() == plain.tobytes()
    assert half.tobytes() == (0.5 * plain).tobytes()
