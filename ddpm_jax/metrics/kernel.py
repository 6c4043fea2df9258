"""Kernel distance (KID): a distance of distributions whose estimate has no bias."""

import math
from typing import NamedTuple

import numpy as np

from ddpm_jax.core import errors


class KernelDistance(NamedTuple):
    """The squared maximum mean discrepancy under the cubic kernel.

    Attributes:
        value: mean over subsets; may be slightly negative.
        deviation: standard deviation over subsets, as published tables give it.
        standard_error: estimate of the error of `value` for draws of as many images.
        subsets, subset_size: of the estimate.
    """

    value: float
    deviation: float
    standard_error: float
    subsets: int
    subset_size: int


def kernel_distance(
    reference: np.ndarray,
    samples: np.ndarray,
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 0,
) -> KernelDistance:
    """Return KID, the mean of unbiased estimates on random subsets.

    An estimate on m of n images varies about n/m times as much as one on all of them,
    and the mean of s random subsets approaches that: the standard error is
    deviation·√(m/n + 1/s).

    Args:
        reference, samples: [n, D] features of the two sets.
        subsets: s, how many to draw; pairs of subsets without replacement within each.
        subset_size: m; reduced to the smaller set where that has fewer.
        seed: of the subsets.

    Raises:
        Refusal: features that do not fit or are not finite, too few images or subsets.

    Reference: Bińkowski et al. 2018, section 4; degree 3, scale 1/D, offset 1.
    """
    reference, samples = (np.asarray(x, np.float64) for x in (reference, samples))
    smaller = min(len(reference), len(samples))
    size = min(subset_size, smaller)
    _check(reference, samples, subsets, size)
    random = np.random.default_rng(seed)
    estimates = []
    for _ in range(subsets):
        x = reference[random.choice(len(reference), size, replace=False)]
        y = samples[random.choice(len(samples), size, replace=False)]
        estimates.append(_unbiased(x, y))
    deviation = float(np.std(estimates))
    error = deviation * math.sqrt(size / smaller + 1 / subsets)
    return KernelDistance(float(np.mean(estimates)), deviation, error, subsets, size)


def _unbiased(x, y):
    """Return the unbiased estimate of MMD², Gretton et al. 2012, eq. 3."""

    def within(kernel):
        count = len(kernel)
        return (kernel.sum() - np.trace(kernel)) / (count * (count - 1))

    return within(_cubic(x, x)) + within(_cubic(y, y)) - 2 * _cubic(x, y).mean()


def _cubic(x, y):
    return (x @ y.T / x.shape[1] + 1.0) ** 3


def _check(reference, samples, subsets, size):
    shapes = f"{list(reference.shape)} and {list(samples.shape)}"
    if reference.ndim != 2 or reference.shape[1:] != samples.shape[1:]:
        raise errors.Refusal(
            f"features of shapes {shapes} have no kernel distance: take both from the "
            "same feature network"
        )
    if size < 2 or subsets < 1:
        raise errors.Refusal(
            f"{subsets} subsets of {size} images estimate nothing: use at least one "
            "of at least two"
        )
    if not (np.isfinite(reference).all() and np.isfinite(samples).all()):
        raise errors.Refusal("NaN or infinity among the features: check the weights")
