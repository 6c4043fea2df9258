"""Scores of enlarged images against closed forms, and figures known of the digits."""

import numpy as np
import pytest

from ddpm_jax.data import low_res, sources
from ddpm_jax.metrics import enlarging


def test_psnr_of_a_known_error():
    truth = np.zeros((2, 4, 4, 1))
    error = enlarging.squared_error(truth + 0.2, truth)
    np.testing.assert_allclose(error, [0.04, 0.04])
    assert enlarging.psnr(error) == pytest.approx(20)  # 4 / 0.04 is a hundred


def test_bicubic_digits_have_the_psnr_that_was_measured_outside():
    truth = sources.load("digits", "test").fetch(np.arange(359))["image"]
    large = enlarging.bicubic(low_res.area_mean(truth, 2), (8, 8))
    error = enlarging.squared_error(large, truth)
    assert enlarging.psnr(error) == pytest.approx(13.3, abs=0.05)


def test_bicubic_keeps_what_is_constant_and_the_channels_apart():
    small = np.broadcast_to(np.array([0.5, -0.25], np.float32), (1, 3, 4, 2))
    large = enlarging.bicubic(small, (6, 8))
    np.testing.assert_allclose(large[..., 0], 0.5, atol=1e-6)
    np.testing.assert_allclose(large[..., 1], -0.25, atol=1e-6)


def test_inconsistency_counts_grey_levels():
    small = np.zeros((1, 2, 2, 1))
    images = np.zeros((1, 4, 4, 1))
    images[0, 0, 0] = 4 * 2 / 16  # the mean of its block is one of 17 levels higher
    images[0, 3, 3], images[0, 2, 2] = 0.5, -0.5  # these keep the mean
    found = enlarging.inconsistency(images, small, 2, 17)[0, ..., 0]
    np.testing.assert_allclose(found, [[1, 0], [0, 0]])


def test_the_mean_of_draws_is_better_than_a_draw():
    """Independent errors ±e: the squared error of the mean of k is e²/k on average."""
    rng = np.random.default_rng(0)
    truth = np.zeros((50, 4, 4, 1))
    draws = 0.1 * rng.choice([-1.0, 1.0], size=(50, 8, 4, 4, 1))
    small = low_res.area_mean(truth, 2)
    found = enlarging.errors_of(draws, small, truth, 17)
    np.testing.assert_allclose(found.draw, 0.01)
    assert found.draw.shape == (50, 8)
    assert found.mean.mean() == pytest.approx(0.01 / 8, rel=0.15)
    np.testing.assert_array_equal(found.bicubic, 0)
    np.testing.assert_array_equal(found.within, 1)  # at most 0.8 of a level
    assert found.deviation.max() == pytest.approx(0.8)
