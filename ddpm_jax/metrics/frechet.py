"""Fréchet distance between Gaussians, and the sums it is made from (FID, sFID).

Everything here is float64 NumPy: the distance is a small difference of large traces.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ddpm_jax.core import errors


class Moments(NamedTuple):
    """Count, mean and scatter of features, enough for any Gaussian fit.

    Attributes:
        count: n, images seen.
        mean: float64 [D].
        scatter: float64 [D, D], Σ (x − mean)(x − mean)ᵀ.
    """

    count: int
    mean: np.ndarray
    scatter: np.ndarray

    @property
    def covariance(self) -> np.ndarray:
        """Return the unbiased covariance, float64 [D, D].

        Raises:
            Refusal: of fewer than two images there is none.
        """
        if self.count < 2:
            raise errors.Refusal(
                f"{self.count} images have no covariance: give at least two"
            )
        return self.scatter / (self.count - 1)


def empty(dimension: int) -> Moments:
    """Return the moments of no image."""
    return Moments(0, np.zeros(dimension), np.zeros((dimension, dimension)))


def moments(features: np.ndarray) -> Moments:
    """Return the moments of features [n, D], computed in float64."""
    features = np.asarray(features, np.float64)
    mean = features.mean(axis=0)
    centred = features - mean
    return Moments(len(features), mean, centred.T @ centred)


def merge(parts: Sequence[Moments]) -> Moments:
    """Return the moments of all images of some disjoint sets.

    Every set is centred on its own mean, so that nothing cancels.

    Reference: Chan, Golub & LeVeque 1983, the pairwise update.
    """
    total = empty(len(parts[0].mean))
    for part in parts:
        count = total.count + part.count
        if not part.count:
            continue
        shift = part.mean - total.mean
        scatter = total.scatter + part.scatter
        scatter += np.outer(shift, shift) * (total.count * part.count / count)
        total = Moments(count, total.mean + shift * (part.count / count), scatter)
    return total


class Frechet(NamedTuple):
    """A squared Fréchet distance and its parts.

    Attributes:
        value: means + covariances.
        means: |μ_1 − μ_2|².
        covariances: tr(Σ_1 + Σ_2 − 2 (Σ_1 Σ_2)^½).
        rank: of Σ_1 Σ_2; below `dimension`, the value depends on the number of images.
        dimension: D.
    """

    value: float
    means: float
    covariances: float
    rank: int
    dimension: int

    @property
    def notes(self) -> list[str]:
        """Return what a reader of the value should know."""
        if self.rank == self.dimension:
            return []
        return [
            f"the covariances have rank {self.rank} of {self.dimension}: the images "
            "are too few or too much alike for the distance itself, compare it at the "
            "same numbers of images only"
        ]


def frechet_distance(
    mean_1: np.ndarray, cov_1: np.ndarray, mean_2: np.ndarray, cov_2: np.ndarray
) -> Frechet:
    """Return the squared Fréchet distance of two Gaussians.

    tr (Σ_1 Σ_2)^½ is the sum of the square roots of the eigenvalues of Σ_1^½ Σ_2 Σ_1^½,
    which is symmetric: no complex parts, and singular covariances need no care. (The
    evaluators that take a general matrix root drop its imaginary part and, where it
    fails, add 1e-6 to both diagonals; the limit without that is returned here.)

    Args:
        mean_1, mean_2: [D].
        cov_1, cov_2: [D, D].

    Raises:
        Refusal: shapes that do not fit, NaN or infinity.

    Reference: Dowson & Landau 1982; FID is Heusel et al. 2017, eq. 6.
    """
    return _distance(mean_1, cov_1, _checked(mean_2, cov_2), _root(cov_2))


def _distance(mean_1, cov_1, second, root_2):
    mean_1, cov_1 = _checked(mean_1, cov_1)
    mean_2, cov_2 = second
    if mean_1.shape != mean_2.shape:
        raise errors.Refusal(
            f"features of {len(mean_1)} and of {len(mean_2)} dimensions have no "
            "distance: take both from the same feature network"
        )
    eigenvalues = np.linalg.eigvalsh(root_2 @ cov_1 @ root_2)
    # Zeros come out as rounding, whose roots would count.
    floor = len(mean_1) * np.finfo(np.float64).eps * max(eigenvalues.max(), 0.0)
    kept = eigenvalues[eigenvalues > floor]
    means = float(np.sum((mean_1 - mean_2) ** 2))
    covariances = float(np.trace(cov_1) + np.trace(cov_2) - 2 * np.sqrt(kept).sum())
    return Frechet(means + covariances, means, covariances, len(kept), len(mean_1))


def _checked(mean, cov):
    mean, cov = np.asarray(mean, np.float64), np.asarray(cov, np.float64)
    if mean.ndim != 1 or cov.shape != (len(mean), len(mean)):
        raise errors.Refusal(
            f"a mean of shape {list(mean.shape)} and a covariance of shape "
            f"{list(cov.shape)} are no Gaussian: they should be [D] and [D, D]"
        )
    if not (np.isfinite(mean).all() and np.isfinite(cov).all()):
        raise errors.Refusal(
            "NaN or infinity among the statistics: make them again from images that "
            "are whole"
        )
    return mean, cov


def _root(cov):
    """Return the symmetric square root of a covariance."""
    eigenvalues, vectors = np.linalg.eigh(cov)
    return (vectors * np.sqrt(np.maximum(eigenvalues, 0.0))) @ vectors.T


class Uncertainty(NamedTuple):
    """How far a Fréchet distance may be off.

    Attributes:
        standard_error: of the value over draws of as many images.
        bias: by how much the value lies above that of infinitely many images.
    """

    standard_error: float
    bias: float


def jackknife(
    groups: Sequence[Moments], mean: np.ndarray, cov: np.ndarray
) -> Uncertainty | None:
    """Estimate the uncertainty of a distance by leaving out one group at a time.

    A bootstrap would need all features, and is biased itself: an image drawn twice
    takes the place of another and narrows the covariance. Here sums suffice.

    Args:
        groups: moments of equally large, arbitrary parts of the images.
        mean, cov: the reference, taken as exact.

    Returns:
        None for fewer than three groups. One eigenvalue problem per group otherwise.

    Reference: Quenouille 1956; Tukey 1958. The 1/n bias of FID: Chong & Forsyth 2020.
    """
    groups = [group for group in groups if group.count]
    number = len(groups)
    if number < 3:
        return None
    second, root = _checked(mean, cov), _root(cov)

    def distance(parts):
        merged = merge(parts)
        return _distance(merged.mean, merged.covariance, second, root).value

    without = [distance(groups[:g] + groups[g + 1 :]) for g in range(number)]
    spread = np.var(without) * (number - 1)
    bias = (number - 1) * (np.mean(without) - distance(groups))
    return Uncertainty(math.sqrt(spread), float(bias))
