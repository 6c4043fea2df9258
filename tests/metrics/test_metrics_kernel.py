"""Kernel distance against sums over pairs, its expectation, and its spread."""

import itertools

import numpy as np
import pytest

from ddpm_jax.core import errors
from ddpm_jax.metrics import kernel


def by_pairs(x, y):
    """The unbiased estimate, pair by pair: means over i ≠ j, and over all (i, j)."""

    def k(a, b):
        return (sum(p * q for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3

    within = [
        np.mean([k(a, b) for a, b in itertools.permutations(points, 2)])
        for points in (x, y)
    ]
    return sum(within) - 2 * np.mean([k(a, b) for a in x for b in y])


def test_sums_over_pairs():
    random = np.random.default_rng(0)
    x, y = random.normal(size=(12, 4)), random.normal(size=(12, 4)) + 0.5
    found = kernel.kernel_distance(x, y, subsets=3, subset_size=1000)
    assert found.subset_size == 12
    np.testing.assert_allclose(found.value, by_pairs(x, y), rtol=1e-10)
    assert found.deviation < 1e-12  # every subset is the whole set


def test_subsets_are_drawn_from_all_images():
    random = np.random.default_rng(1)
    x, y = random.normal(size=(40, 3)), random.normal(size=(60, 3)) + 1
    found = kernel.kernel_distance(x, y, subsets=400, subset_size=20)
    whole = kernel.kernel_distance(x, y[:40], subset_size=40, subsets=1)
    error = found.deviation / np.sqrt(400)
    assert error > 0
    # Half of y is another sample: allow its spread too.
    assert abs(found.value - whole.value) < 5 * (error + found.standard_error)
    again = kernel.kernel_distance(x, y, subsets=400, subset_size=20)
    other = kernel.kernel_distance(x, y, subsets=400, subset_size=20, seed=1)
    assert found == again
    assert found.value != other.value


def test_no_bias_at_any_number_of_images():
    random = np.random.default_rng(2)
    for count in (5, 50):
        values = [
            kernel.kernel_distance(*random.normal(size=(2, count, 4)), subsets=1).value
            for _ in range(400)
        ]
        assert abs(np.mean(values)) < 4 * np.std(values) / 20


def test_the_standard_error_is_the_spread_over_draws():
    random = np.random.default_rng(3)
    found = [
        kernel.kernel_distance(
            random.normal(size=(200, 4)),
            random.normal(size=(200, 4)) + 0.7,
            subsets=50,
            subset_size=40,
        )
        for _ in range(60)
    ]
    spread = np.std([one.value for one in found])
    np.testing.assert_allclose(
        np.mean([one.standard_error for one in found]), spread, rtol=0.35
    )


@pytest.mark.parametrize(
    ("x", "y", "options", "part"),
    [
        (np.zeros((9, 3)), np.zeros((9, 4)), {}, "same feature network"),
        (np.zeros((9, 3)), np.zeros((1, 3)), {}, "at least two"),
        (np.zeros((9, 3)), np.zeros((9, 3)), {"subsets": 0}, "0 subsets"),
        (np.full((9, 3), np.inf), np.zeros((9, 3)), {}, "infinity"),
    ],
)
def test_what_has_no_distance(x, y, options, part):
    with pytest.raises(errors.Refusal, match=part):
        kernel.kernel_distance(x, y, **options)
