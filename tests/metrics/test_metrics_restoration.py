"""Calibration of draws: coverage of intervals against what chance gives."""

import numpy as np
import pytest

from ddpm_jax.metrics import restoration

COUNT, PIXELS = 400, 25


def normal_cases(draws, spread=1.0, seed=0):
    """Truths and draws of one law, but for the spread of the draws."""
    random = np.random.default_rng(seed)
    middle = random.normal(size=(COUNT, 1, PIXELS))
    truth = middle[:, 0] + random.normal(size=(COUNT, PIXELS))
    return middle + spread * random.normal(size=(COUNT, draws, PIXELS)), truth


@pytest.mark.parametrize("draws", [2, 8, 16, 19])
@pytest.mark.parametrize("share", restoration.SHARES)
def test_draws_of_the_true_law_cover_what_they_should(draws, share):
    found = restoration.ranks(*normal_cases(draws))
    told = restoration.coverage(found, draws, share)
    assert abs(told.share - told.nominal) < 4 * told.error
    # The intervals between the j-th smallest and the j-th largest draw.
    possible = [(draws + 1 - 2 * j) / (draws + 1) for j in range(1, draws // 2 + 1)]
    nearest = min(possible, key=lambda nominal: abs(nominal - share))
    assert told.nominal == pytest.approx(nearest)
    error = np.sqrt(told.nominal * (1 - told.nominal) / COUNT / PIXELS)
    assert told.error == pytest.approx(error, rel=0.2)


def test_intervals_that_are_met_exactly():
    found = np.tile(np.arange(20.0), (2, 1))
    half, most = (restoration.coverage(found, 19, s) for s in (0.5, 0.9))
    assert (half.nominal, half.share) == (0.5, 0.5)
    assert (most.nominal, most.share) == (0.9, 0.9)


def test_draws_that_are_too_sure_cover_too_little():
    found = restoration.ranks(*normal_cases(19, spread=0.5))
    told = restoration.coverage(found, 19, 0.5)
    # P(|z| < 0.67/2) for the truth, far from ½.
    assert told.share == pytest.approx(0.26, abs=0.03)


def test_equal_values_are_ordered_by_chance():
    """A truth that every draw hits is covered as often as any."""
    draws, truth = np.zeros((COUNT, 19, PIXELS)), np.zeros((COUNT, PIXELS))
    found = restoration.ranks(draws, truth)
    counts = np.bincount(found.ravel(), minlength=20)
    expected = COUNT * PIXELS / 20
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)
    half = restoration.ranks(
        np.repeat([[0, 1]], 10, axis=1)[..., None], np.ones((1, 1))
    )
    assert 10 <= half.item() <= 20


def test_what_is_known_is_not_counted():
    found = np.array([[5.0, np.nan], [0.0, np.nan], [np.nan, np.nan]])
    told = restoration.coverage(found, 19, 0.5)
    assert told.share == 0.5


def test_mean_and_deviation_are_of_the_draws():
    draws = np.random.default_rng(1).normal(size=(2, 5, 3))
    mean, deviation = restoration.summary(draws)
    for image in range(2):
        for pixel in range(3):
            own = draws[image, :, pixel]
            assert mean[image, pixel] == pytest.approx(sum(own) / 5)
            squares = sum((v - sum(own) / 5) ** 2 for v in own)
            assert deviation[image, pixel] == pytest.approx(np.sqrt(squares / 4))
    assert np.all(np.isnan(restoration.summary(draws[:, :1]).deviation))


def test_values_on_grey_levels():
    values = np.array([-1, -0.97, -0.93, 0.0, 0.99, 1.0])
    levels = restoration.on_levels(values, 17)
    np.testing.assert_array_equal(levels, [0, 0, 1, 8, 16, 16])


def test_values_that_every_draw_hits_are_told_apart():
    draws = np.array([[[0, 0, 1], [0, 1, 1]]])
    np.testing.assert_array_equal(
        restoration.tied(draws, np.array([[0, 0, 0]])), [[True, False, False]]
    )
    nothing = restoration.coverage(np.full((2, 3), np.nan), 19, 0.5)
    assert (nothing.share, nothing.error) == (None, None)
