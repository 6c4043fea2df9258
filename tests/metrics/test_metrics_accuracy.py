"""Accuracy by noise level against the best that is possible on Gaussian mixtures."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.core import classification
from ddpm_jax.diffusion import process, schedules
from ddpm_jax.metrics import accuracy
from ddpm_jax.runtime import sharding

NUM_STEPS, NUM_IMAGES, SPREAD = 40, 4000, 0.25
BETAS = schedules.make_betas("cosine", NUM_STEPS)
ALPHA_BAR = np.cumprod(1 - np.float64(BETAS))
TWO = np.array([-0.6, 0.6])
SEVEN = np.linspace(-1.5, 1.5, 7)


class Mixture:
    """Images of one pixel from N(mean of the class, SPREAD²), classes in turn."""

    def __init__(self, means):
        random = np.random.default_rng(0)
        self.label = (np.arange(NUM_IMAGES) % len(means)).astype(np.int32)
        pixel = means[self.label] + SPREAD * random.normal(size=NUM_IMAGES)
        self.image = pixel.astype(np.float32).reshape(-1, 1, 1, 1)

    def fetch(self, indices):
        return {"image": self.image[indices], "label": self.label[indices]}


def exact_posterior(params, x, t_seen, condition):
    """The logits log p(x_t | y) of the mixture, whose classes are equally likely."""
    del condition
    alpha_bar = jnp.asarray(ALPHA_BAR, jnp.float32)[t_seen][:, None]
    variance = alpha_bar * SPREAD**2 + 1 - alpha_bar
    distance = x.reshape(-1, 1) - jnp.sqrt(alpha_bar) * params
    return -(distance**2) / (2 * variance)


def best(means, t):
    """Return ∫ max_y p(y) p(x_t | y) dx_t in float64, and that of the best five y."""
    x = np.linspace(-8, 8, 200_001)
    variance = ALPHA_BAR[t] * SPREAD**2 + 1 - ALPHA_BAR[t]
    distance = x[:, None] - np.sqrt(ALPHA_BAR[t]) * means
    density = np.exp(-(distance**2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
    ranked = np.sort(density / len(means), axis=1)[:, ::-1]
    step = x[1] - x[0]
    return ranked[:, 0].sum() * step, ranked[:, :5].sum() * step


@functools.cache
def measured(which, batch_size=1000, devices=1, num_images=NUM_IMAGES):
    means = {"two": TWO, "seven": SEVEN}[which]
    mesh = sharding.make_mesh(devices, 1, devices=jax.devices()[:devices])
    timesteps = accuracy.levels(NUM_STEPS)
    scorer = accuracy.make_scorer(
        process.Schedule.from_betas(BETAS),
        exact_posterior,
        timesteps,
        seed=3,
        mesh=mesh,
    )
    params = jax.device_put(np.float32(means), sharding.replicated(mesh))
    return accuracy.evaluate(
        scorer,
        mesh,
        params,
        Mixture(means),
        timesteps=timesteps,
        num_images=num_images,
        batch_size=batch_size,
    )


@pytest.mark.parametrize("which", ["two", "seven"])
def test_the_exact_posterior_is_as_accurate_as_can_be(which):
    means, result = {"two": TWO, "seven": SEVEN}[which], measured(which)
    assert result.num_images == NUM_IMAGES
    truth = np.array([best(means, t) for t in result.timesteps])
    for t, found, error, (top, _) in zip(
        result.timesteps, result.by_t["accuracy"], result.error_by_t, truth, strict=True
    ):
        assert error == pytest.approx(math.sqrt(found * (1 - found) / NUM_IMAGES))
        assert abs(found - top) < 4 * max(error, 1e-3), t
    assert abs(result.mean - truth[:, 0].mean()) < 4 * result.standard_error
    if which == "seven":
        deviation = np.sqrt(truth[:, 1] * (1 - truth[:, 1]) / NUM_IMAGES)
        top5 = result.by_t["top5_accuracy"]
        assert np.all(abs(top5 - truth[:, 1]) < 4 * np.maximum(deviation, 1e-3))
    else:
        assert "top5_accuracy" not in result.by_t


def test_two_classes_follow_the_normal_distribution_and_clean_images_too():
    result = measured("two")
    for t, found in zip(result.timesteps, result.by_t["accuracy"], strict=True):
        deviation = math.sqrt(ALPHA_BAR[t] * SPREAD**2 + 1 - ALPHA_BAR[t])
        z = math.sqrt(ALPHA_BAR[t]) * TWO[1] / deviation
        truth = 0.5 * (1 + math.erf(z / math.sqrt(2)))
        assert abs(found - truth) < 4 * math.sqrt(0.25 / NUM_IMAGES)
    clean = 0.5 * (1 + math.erf(TWO[1] / SPREAD / math.sqrt(2)))
    assert abs(result.clean["accuracy"] - clean) < 4 * max(result.clean_error, 1e-3)


def test_no_batch_size_and_no_number_of_devices_changes_anything():
    one = measured("two", 500, 1, 500)
    other = measured("two", 64, 8, 500)
    np.testing.assert_array_equal(other.by_t["accuracy"], one.by_t["accuracy"])
    assert (other.mean, other.clean) == (one.mean, pytest.approx(one.clean))


def test_a_request_to_stop_gives_nothing():
    mesh = sharding.make_mesh(1, 1, devices=jax.devices()[:1])
    options = {"timesteps": [0], "num_images": 3, "batch_size": 1}
    assert (
        accuracy.evaluate(None, mesh, {}, None, should_stop=lambda: True, **options)
        is None
    )


def test_levels_are_the_middles_of_equal_parts_each_once():
    assert accuracy.levels(32).tolist() == list(range(1, 32, 2))
    assert accuracy.levels(1000)[[0, -1]].tolist() == [31, 968]
    assert accuracy.levels(5).tolist() == [0, 1, 2, 3, 4]


def test_logits_that_are_not_numbers_name_no_class_but_the_first():
    """Comparing with NaN must not count as a hit."""
    logits = jnp.full((2, 7), jnp.nan)
    terms = classification.terms(logits, jnp.array([3, 6], jnp.int32))
    assert terms["accuracy"].tolist() == [0, 0]
    assert np.isnan(terms["loss"]).all()
