"""Improved precision and recall: how much of each set lies close to the other.

All distances are computed block by block on the devices, so that memory holds the
features and one block of distances, whatever the number of images.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.core import errors
from ddpm_jax.runtime import sharding

ROWS, COLUMNS = 2048, 8192
"""Images of a block: 64 MiB of distances."""

ROUNDING = 2e-6
"""Squared distances below this part of |u|² + |v|² are rounding: the points are one."""


class PrecisionRecall(NamedTuple):
    """Fractions of images inside the other set's manifold.

    Attributes:
        precision: of the samples, near a reference image.
        recall: of the reference images, near a sample.
        k: the neighbour whose distance is the radius around an image.
        num_reference, num_samples: both values depend on them.
    """

    precision: float
    recall: float
    k: int
    num_reference: int
    num_samples: int


def precision_recall(
    reference: np.ndarray,
    samples: np.ndarray,
    *,
    mesh,
    k: int = 3,
    rows: int = ROWS,
    columns: int = COLUMNS,
) -> PrecisionRecall:
    """Return improved precision and recall.

    A set's manifold is the union of balls around its points, each reaching to the k-th
    nearest other point of the set; a point on a sphere is inside. Distances are
    float32 (the published evaluator of ADM rounds them to float16, which moves the
    third decimal). 10,000 against 50,000 images of 2048 features take four minutes and
    2 GiB on two CPU cores.

    Args:
        reference, samples: [n, D] features; in the protocol of ADM 10,000 reference
            images and 50,000 samples.
        mesh: devices to share each block.
        k: neighbour that makes the radius.
        rows, columns: images of a block; they change memory and speed only.

    Raises:
        Refusal: features that do not fit or are not finite, no more than k images.

    Reference: Kynkäänniemi et al. 2019, eq. 1–2.
    """
    _check(reference, samples, k)
    rows = -(-rows // mesh.size) * mesh.size
    # Distances do not depend on the origin, their rounding does.
    centre = np.mean(reference, axis=0, dtype=np.float64).astype(np.float32)
    reference, samples = (
        np.asarray(points, np.float32) - centre for points in (reference, samples)
    )
    blocks = functools.partial(_Blocks, mesh, rows, columns)
    near_reference, near_samples = _inside(
        blocks(samples, reference),
        sample_radii=_radii(blocks(samples, samples), k),
        reference_radii=_radii(blocks(reference, reference), k),
    )
    return PrecisionRecall(
        precision=float(near_reference.mean()),
        recall=float(near_samples.mean()),
        k=k,
        num_reference=len(reference),
        num_samples=len(samples),
    )


class _Blocks(NamedTuple):
    """The table of distances between two sets, cut into blocks of one size."""

    mesh: jax.sharding.Mesh
    rows: int
    columns: int
    left: np.ndarray
    right: np.ndarray

    def across(self):
        """Yield (start, count, points on the devices) of the left set's blocks."""
        for start in range(0, len(self.left), self.rows):
            block = self.left[start : start + self.rows]
            placed = sharding.put_whole(self.mesh, _padded(block, self.rows))
            yield start, len(block), placed

    def down(self):
        """Yield (start, count, points on every device) of the right set's blocks."""
        whole = sharding.replicated(self.mesh)
        for start in range(0, len(self.right), self.columns):
            block = self.right[start : start + self.columns]
            yield start, len(block), jax.device_put(_padded(block, self.columns), whole)


def _padded(block, size):
    return np.pad(block, ((0, size - len(block)), (0, 0)))


def _squared_distances(left, right):
    """Return [n, m] squared distances, exactly 0 where they are rounding.

    Reference: |u − v|² = |u|² + |v|² − 2 u·v, for the speed of a matrix product.
    """
    product = jnp.matmul(left, right.T, precision=jax.lax.Precision.HIGHEST)
    scale = jnp.sum(left**2, axis=1)[:, None] + jnp.sum(right**2, axis=1)
    squared = scale - 2 * product
    return jnp.where(squared > ROUNDING * scale, squared, 0.0)


@functools.cache
def _nearest(mesh, k):
    """Return the compiled update of the k + 1 smallest distances of each row."""

    def update(smallest, left, right, count):
        squared = _squared_distances(left, right)
        is_point = jnp.arange(right.shape[0]) < count
        squared = jnp.where(is_point, squared, jnp.inf)
        both = jnp.concatenate([smallest, squared], axis=1)
        return -jax.lax.top_k(-both, k + 1)[0]

    return jax.jit(update, out_shardings=sharding.replicated(mesh))


def _radii(blocks: _Blocks, k: int) -> np.ndarray:
    """Return the squared distance of each left point to its k-th right neighbour.

    Both are one set: the nearest, which is the point itself, is skipped.
    """
    update = _nearest(blocks.mesh, k)
    found = np.empty(len(blocks.left), np.float32)
    for start, count, left in blocks.across():
        smallest = jnp.full((blocks.rows, k + 1), jnp.inf)
        for _, points, right in blocks.down():
            smallest = update(smallest, left, right, points)
        found[start : start + count] = np.asarray(smallest)[:count, k]
    return found


@functools.cache
def _membership(mesh):
    """Return the compiled test of who lies in a ball around whom within a block.

    Squared radii are never negative: padding has −1, and no point lies within that.
    """

    def test(left, right, left_radii, right_radii):
        squared = _squared_distances(left, right)
        left_is_real, right_is_real = left_radii >= 0, right_radii >= 0
        in_right = (squared <= right_radii) & left_is_real[:, None]
        in_left = (squared <= left_radii[:, None]) & right_is_real
        return in_right.any(axis=1), in_left.any(axis=0)

    return jax.jit(test, out_shardings=sharding.replicated(mesh))


def _inside(blocks, *, sample_radii, reference_radii):
    """Return which samples lie near a reference point, and the other way round."""
    test = _membership(blocks.mesh)
    near_reference = np.zeros(len(blocks.left), bool)
    near_samples = np.zeros(len(blocks.right), bool)

    def padded(values, start, size):
        block = values[start : start + size]
        return np.pad(block, (0, size - len(block)), constant_values=-1)

    for start, count, left in blocks.across():
        mine = sharding.put_whole(blocks.mesh, padded(sample_radii, start, blocks.rows))
        for place, points, right in blocks.down():
            theirs = padded(reference_radii, place, blocks.columns)
            in_right, in_left = map(np.asarray, test(left, right, mine, theirs))
            near_reference[start : start + count] |= in_right[:count]
            near_samples[place : place + points] |= in_left[:points]
    return near_reference, near_samples


def _check(reference, samples, k):
    shapes = f"{list(reference.shape)} and {list(samples.shape)}"
    if reference.ndim != 2 or reference.shape[1:] != samples.shape[1:]:
        raise errors.Refusal(
            f"features of shapes {shapes} have no distances: take both from the same "
            "feature network"
        )
    if k < 1 or min(len(reference), len(samples)) <= k:
        raise errors.Refusal(
            f"features of shapes {shapes} have no {k}-th neighbours: give more images "
            "or a smaller k, from 1"
        )
    if not (np.isfinite(reference).all() and np.isfinite(samples).all()):
        raise errors.Refusal("NaN or infinity among the features: check the weights")
