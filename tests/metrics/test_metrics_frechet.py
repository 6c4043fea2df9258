"""Fréchet distances against closed forms, SciPy, published numbers and simulation."""

import pathlib

import numpy as np
import pytest
import scipy.linalg

from ddpm_jax.core import errors
from ddpm_jax.metrics import frechet

GOLDEN = np.load(pathlib.Path(__file__).parent.parent / "golden" / "evaluation.npz")


def features(seed, count, dimension, rank=None):
    """Correlated features around a mean that is large beside their spread."""
    random = np.random.default_rng(seed)
    mix = random.normal(size=(rank or dimension, dimension)) / np.sqrt(dimension)
    return random.normal(size=(count, len(mix))) @ mix + random.normal(size=dimension)


def gaussian(rows):
    return rows.mean(axis=0), np.cov(rows, rowvar=False)


def by_matrix_root(mean_1, cov_1, mean_2, cov_2):
    """The formula as the usual evaluators compute it."""
    root = scipy.linalg.sqrtm(cov_1 @ cov_2)
    trace = np.trace(cov_1) + np.trace(cov_2) - 2 * np.trace(root.real)
    return np.sum((mean_1 - mean_2) ** 2) + trace


# ---- the distance --------------------------------------------------------------------


def test_published_evaluator():
    first, second = (frechet.moments(GOLDEN[name]) for name in ("ref", "smp"))
    found = frechet.frechet_distance(
        first.mean, first.covariance, second.mean, second.covariance
    )
    np.testing.assert_allclose(found.value, GOLDEN["fid"], rtol=1e-5)
    assert found.rank == found.dimension == 64
    assert found.notes == []


def test_one_dimension():
    # (μ1 − μ2)² + (σ1 − σ2)²
    found = frechet.frechet_distance([1.0], [[4.0]], [3.0], [[25.0]])
    np.testing.assert_allclose(found.value, 4 + 9, rtol=1e-12)
    np.testing.assert_allclose(found[1:3], (4, 9), rtol=1e-12)


def test_scipy():
    first, second = gaussian(features(0, 300, 20)), gaussian(features(1, 200, 20))
    found = frechet.frechet_distance(*first, *second)
    np.testing.assert_allclose(found.value, by_matrix_root(*first, *second), rtol=1e-8)


@pytest.mark.filterwarnings("ignore:.*singular")
def test_rank_deficient_covariances():
    first = gaussian(features(0, 12, 30))
    second = gaussian(features(1, 200, 30, rank=7))
    found = frechet.frechet_distance(*first, *second)
    np.testing.assert_allclose(found.value, by_matrix_root(*first, *second), rtol=1e-5)
    assert (found.rank, found.dimension) == (7, 30)
    assert "rank 7 of 30" in found.notes[0]


def test_rank_deficient_closed_form():
    # Along one axis each, crossing at an angle: tr (ΣΣ')^½ = σσ' |cos|.
    u, v = np.array([1.0, 0.0, 0.0]), np.array([0.6, 0.8, 0.0])
    cov_1, cov_2 = 4 * np.outer(u, u), 9 * np.outer(v, v)
    found = frechet.frechet_distance(np.zeros(3), cov_1, np.zeros(3), cov_2)
    np.testing.assert_allclose(found.value, 4 + 9 - 2 * 2 * 3 * 0.6, rtol=1e-7)


def test_identity_and_symmetry():
    first, second = gaussian(features(0, 90, 8)), gaussian(features(1, 90, 8))
    forwards = frechet.frechet_distance(*first, *second).value
    backwards = frechet.frechet_distance(*second, *first).value
    np.testing.assert_allclose(forwards, backwards, rtol=1e-10)
    assert abs(frechet.frechet_distance(*first, *first).value) < 1e-10 * forwards


@pytest.mark.parametrize(
    ("mean", "cov", "part"),
    [
        (np.zeros(3), np.eye(3), "2 and of 3|3 and of 2"),
        (np.zeros(2), np.eye(3), r"\[3, 3\]"),
        (np.array([0, np.nan]), np.eye(2), "NaN"),
        (np.zeros(2), np.full((2, 2), np.inf), "infinity"),
    ],
)
def test_what_has_no_distance(mean, cov, part):
    with pytest.raises(errors.Refusal, match=part):
        frechet.frechet_distance(np.zeros(2), np.eye(2), mean, cov)
    with pytest.raises(errors.Refusal, match=part):
        frechet.frechet_distance(mean, cov, np.zeros(2), np.eye(2))


# ---- moments -------------------------------------------------------------------------


def test_merged_moments_are_those_of_all():
    rows = features(0, 103, 6) + 1e6  # sums of squares would lose the covariance
    parts = [frechet.moments(part) for part in np.split(rows, [1, 2, 40])]
    merged = frechet.merge([frechet.empty(6), *parts])
    mean, cov = gaussian(rows)
    assert merged.count == 103
    np.testing.assert_allclose(merged.mean, mean, rtol=1e-14)
    np.testing.assert_allclose(merged.covariance, cov, atol=1e-9)


def test_one_image_has_no_covariance():
    with pytest.raises(errors.Refusal, match="at least two"):
        _ = frechet.moments(np.ones((1, 3))).covariance


# ---- uncertainty ---------------------------------------------------------------------


def test_the_jackknife_knows_the_spread_and_the_bias():
    dimension, count, trials = 6, 300, 60
    mean, cov = np.full(dimension, 0.3), np.diag(np.linspace(0.5, 2, dimension))
    truth = frechet.frechet_distance(
        np.zeros(dimension), np.eye(dimension), mean, cov
    ).value
    random = np.random.default_rng(0)
    values, spreads, biases = [], [], []
    for _ in range(trials):
        rows = random.normal(size=(count, dimension))
        groups = [frechet.moments(part) for part in np.split(rows, 10)]
        all_of_them = frechet.merge(groups)
        values.append(
            frechet.frechet_distance(
                all_of_them.mean, all_of_them.covariance, mean, cov
            ).value
        )
        found = frechet.jackknife(groups, mean, cov)
        spreads.append(found.standard_error)
        biases.append(found.bias)
    # The spread of 60 values is known to 9 %, a jackknife of 10 groups to 24 % each.
    np.testing.assert_allclose(np.mean(spreads), np.std(values), rtol=0.3)
    error = np.std(values) / np.sqrt(trials)
    bias = np.mean(values) - truth
    assert bias > 2 * error
    assert abs(np.mean(biases) - bias) < 3 * error


def test_the_jackknife_needs_three_groups():
    groups = [frechet.moments(features(seed, 5, 2)) for seed in range(2)]
    assert (
        frechet.jackknife([*groups, frechet.empty(2)], np.zeros(2), np.eye(2)) is None
    )
