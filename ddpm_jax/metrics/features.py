"""Features of many images: only their sums where sums are enough.

A pass over the images runs the feature network on all devices, forms each batch's mean
and scatter there in float32, and merges them on the host in float64.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.core import errors
from ddpm_jax.metrics import frechet, resize, table
from ddpm_jax.models import inception
from ddpm_jax.runtime import sharding

GROUPS = 10
"""Parts of the images whose sums are kept apart, for the jackknife."""


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureNetwork:
    """What turns images into features, and what it takes to compare its numbers.

    Attributes:
        name: "inception-2015" or a proxy's name, for cards.
        fingerprint: of the weights.
        resize: the rule of `resize.RULES`, or "" where images stay as they are.
        params: tree of arrays.
        apply: `(params, images) → features`: uint8 [B, H, W, C] to float32 [B, D] by
            name; one function object per network, so that it is compiled once.
    """

    name: str
    fingerprint: str
    resize: str
    params: dict
    apply: Callable[[dict, jax.Array], dict[str, jax.Array]]


INCEPTION = table.INCEPTION


def inception_network(params: dict, *, fingerprint: str, mode: str) -> FeatureNetwork:
    """Return the network of FID, sFID, KID, precision, recall and Inception Score.

    Its features are "pool", "spatial" and "logits".

    Args:
        params: for `models.inception.apply`.
        fingerprint: of the weights.
        mode: a key of `resize.RULES`.

    Raises:
        Refusal: an unknown mode.
    """
    errors.choose("resize rule", resize.RULES, mode)
    return FeatureNetwork(INCEPTION, fingerprint, mode, params, _inception_apply(mode))


@functools.cache
def _inception_apply(mode):
    def apply(params, images):
        return inception.apply(params, resize.prepare(images, mode))

    return apply


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """What one pass over the images leaves.

    Attributes:
        num_images: how many there were.
        groups: by feature, the moments of parts of the images: batch b is in part
            b mod the number of parts.
        kept: by feature, float32 [num_images, D] in the order of the images.
    """

    num_images: int
    groups: dict[str, tuple[frechet.Moments, ...]]
    kept: dict[str, np.ndarray]

    def moments(self, name: str) -> frechet.Moments:
        """Return the moments of a feature over all images."""
        return frechet.merge(self.groups[name])


def measure(
    network: FeatureNetwork,
    images: np.ndarray | Iterable[np.ndarray],
    *,
    mesh,
    batch_size: int,
    summed: Sequence[str] = ("pool",),
    kept: Sequence[str] = (),
    groups: int = GROUPS,
    on_batch: Callable[[int], None] = lambda count: None,
) -> Measured:
    """Pass over images once, keeping sums of some features and others whole.

    Memory holds one batch, `groups` float64 matrices [D, D] for each summed feature
    (32 MiB each for D = 2048) and [n, D] float32 for each that is kept (400 MiB for
    50,000 pool features).

    Args:
        network: what to run.
        images: uint8 [n, H, W, C], or any sequence of such arrays, of any lengths, that
            are parts of it.
        mesh: devices to share each batch.
        batch_size: a multiple of the devices; changes the numbers by rounding only.
        summed: features that need moments only.
        kept: features to keep for each image.
        groups: parts whose moments are kept apart.
        on_batch: called with the number of images done after each batch.

    Raises:
        Refusal: no images, images of another kind, features that are not finite.
    """
    sharding.check_batch(mesh, batch_size, "the evaluation batch")
    step = _step(network.apply, mesh, tuple(summed), tuple(kept))
    params = jax.device_put(network.params, sharding.replicated(mesh))
    parts = {name: [None] * groups for name in summed}
    rows = {name: [] for name in kept}
    done = 0
    for number, (batch, count) in enumerate(_batches(images, batch_size)):
        is_image = np.arange(batch_size) < count
        sums, features = step(params, *sharding.put_whole(mesh, (batch, is_image)))
        for name, values in sums.items():
            mean, scatter = (np.asarray(value, np.float64) for value in values)
            _check_finite(network, scatter)
            added = frechet.Moments(count, mean, scatter)
            place, own = number % groups, parts[name]
            so_far = own[place]
            own[place] = frechet.merge([so_far, added]) if so_far else added
        for name, values in features.items():
            rows[name].append(np.asarray(values)[:count])
            _check_finite(network, rows[name][-1])
        done += count
        on_batch(done)
    if not done:
        raise errors.Refusal("there are no images to measure: give at least one")
    return Measured(
        num_images=done,
        groups={name: tuple(filter(None, own)) for name, own in parts.items()},
        kept={name: np.concatenate(own) for name, own in rows.items()},
    )


@functools.lru_cache(maxsize=32)
def _step(apply, mesh, summed, kept):
    """Return the compiled `(params, images, is_image) → sums, features`."""

    def step(params, images, is_image):
        features = apply(params, images)
        sums = {name: _mean_and_scatter(features[name], is_image) for name in summed}
        return sums, {name: features[name] for name in kept}

    return jax.jit(step, out_shardings=sharding.replicated(mesh))


def _mean_and_scatter(features, is_image):
    """Return mean [D] and Σ (x − mean)(x − mean)ᵀ [D, D] of the real rows."""
    weight = is_image[:, None].astype(jnp.float32)
    mean = jnp.sum(features * weight, axis=0) / jnp.sum(weight)
    centred = (features - mean) * weight
    scatter = jnp.matmul(centred.T, centred, precision=jax.lax.Precision.HIGHEST)
    return mean, scatter


def _batches(images, size) -> Iterator[tuple[np.ndarray, int]]:
    """Yield batches of one size, the last one padded, and how many rows count."""
    waiting, shape = [], None
    parts = [images] if isinstance(images, np.ndarray) else images
    for part in map(np.asarray, parts):
        resize.check(part)
        shape = shape or part.shape[1:]
        if part.shape[1:] != shape:
            raise errors.Refusal(
                f"images of {list(shape)} and of {list(part.shape[1:])} in one set: "
                "bring them to one size and number of channels first"
            )
        for start in range(0, len(part), size):
            waiting.append(part[start : start + size])
            if sum(map(len, waiting)) >= size:
                rows = np.concatenate(waiting)
                yield rows[:size], size
                waiting = [rows[size:]] if len(rows) > size else []
    if waiting:
        rows = np.concatenate(waiting)
        padding = np.repeat(rows[-1:], size - len(rows), axis=0)
        yield np.concatenate([rows, padding]), len(rows)


def _check_finite(network, values):
    if not np.isfinite(values).all():
        raise errors.Refusal(
            f"the features of {network.name} are NaN or infinite, which 8-bit images "
            "cannot cause: its weights are damaged"
        )
