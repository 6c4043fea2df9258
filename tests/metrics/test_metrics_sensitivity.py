"""Sensitivity to a condition, against a network whose answer is known."""

import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.core import conditions
from ddpm_jax.diffusion import process, schedules
from ddpm_jax.metrics import sensitivity
from ddpm_jax.runtime import sharding

SPECS = {"label": conditions.Spec((), "int32", 3, 4)}
STEPS = 40


def measured(apply, prediction="noise"):
    schedule = process.Schedule.from_betas(schedules.make_betas("linear", STEPS))
    images = np.random.default_rng(0).uniform(-1, 1, (6, 4, 4, 1)).astype(np.float32)
    measure = sensitivity.make_sensitivity(
        schedule,
        apply,
        SPECS,
        prediction=prediction,
        variance="fixed_small",
        images=images,
        condition={"label": np.arange(6, dtype=np.int32) % 3},
        seed=0,
        mesh=sharding.make_mesh(-1, 1),
        batch_size=8,
    )
    return measure({})


def test_it_is_the_relative_change_of_the_noise():
    def apply(params, x, t, condition):
        is_told = (condition["label"] < 3).astype(x.dtype)
        return x * (1 + 0.25 * is_told)[:, None, None, None]

    found = measured(apply)
    assert found.keys() == {"sensitivity", *(f"sensitivity_q{q}" for q in range(4))}
    np.testing.assert_allclose([*found.values()], 0.25, rtol=1e-5)


def test_by_quarter_of_t_and_in_units_of_the_noise():
    # x̂_0 is 0 without a label and moves by s with one, so that the noise moves from
    # x_t / √(1−ᾱ) to (x_t − √ᾱ s) / √(1−ᾱ).
    schedule = process.Schedule.from_betas(schedules.make_betas("linear", STEPS))

    def apply(params, x, t, condition):
        is_told = (condition["label"] < 3).astype(x.dtype)[:, None, None, None]
        alpha_bar = jnp.asarray(schedule.alpha_bar, x.dtype)[t.astype(int)]
        late = (t >= STEPS // 2)[:, None, None, None]
        move = 0.5 * x / jnp.sqrt(alpha_bar)[:, None, None, None]
        return jnp.where(late, move * is_told, 0.0)

    found = measured(apply, prediction="x_0")
    np.testing.assert_allclose(found["sensitivity_q0"], 0, atol=1e-6)
    np.testing.assert_allclose(found["sensitivity_q3"], 0.5, rtol=1e-4)


def test_a_network_that_ignores_its_condition_has_none():
    assert measured(lambda params, x, t, condition: x)["sensitivity"] == pytest.approx(
        0, abs=1e-7
    )
