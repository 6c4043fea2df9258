"""What a receiver of progressive coding has, and what progressive sampling shows."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ddpm_jax.builders import sampling as build_sampling
from ddpm_jax.builders import scoring
from ddpm_jax.core import arrays
from ddpm_jax.metrics import bits
from ddpm_jax.runtime import sharding
from ddpm_jax.sampling import generation
from ddpm_jax.sampling import sampler as sampler_lib


class Decoded(NamedTuple):
    """Test images, and what they are taken for on the way; values of the networks.

    Attributes:
        images: float32 [n, H, W, C].
        estimates: float32 [S, n, H, W, C], x̂_0 of x_t at each asked t.
    """

    images: np.ndarray
    estimates: np.ndarray


def decoded(trained, weights, dataset, count: int, steps: Sequence[int]) -> Decoded:
    """Return x̂_0 of the first test images at some t, with the noise of their score.

    Args:
        trained: the run, on its devices.
        weights: that are scored.
        dataset: the test split.
        count: of images.
        steps: indices of the respaced process.
    """
    config, mesh = trained.config, trained.mesh
    estimator = scoring.estimator(config, trained.network)
    size = sampler_lib.rounded_batch(min(config.evaluation.batch_size, count), mesh)
    parts = []
    for start in range(0, count, size):
        index = arrays.padded_range(start, size, count)
        batch = bits.fetched(dataset, index, mesh, trained.network.condition_spec)
        given = (batch["index"], batch["image"], batch["condition"])
        found = [estimator(weights.params, *given, np.int32(t)) for t in steps]
        rows = [sharding.to_host(array) for array in (batch["image"], *found)]
        parts.append(np.stack(rows)[:, : count - start])
    images, *estimates = np.concatenate(parts, axis=1)
    return Decoded(images, np.stack(estimates))


def generated(
    trained, weights, recipe, count: int, positions: Sequence[int]
) -> Decoded:
    """Return samples, and x̂_0 on the way to them.

    Args:
        trained: the run, on its devices.
        weights: to sample with.
        recipe: of the samples.
        count: of them.
        positions: on the path of the recipe.
    """
    config, mesh = trained.config, trained.mesh
    made_by = build_sampling.make_sampler(
        recipe, config, trained.network, mesh, weights=weights, trajectory=positions
    )
    size = sampler_lib.rounded_batch(min(config.sampling.batch_size, count), mesh)
    batches = generation.batches(
        made_by, weights.params, start=0, stop=count, batch_size=size
    )
    parts = [made for _, made in batches]
    return Decoded(
        np.concatenate([made.images for made in parts]),
        np.concatenate([made.estimates for made in parts], axis=1),
    )
