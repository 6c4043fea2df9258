"""Progressive coding of test images: what a receiver sees, and what it cost."""

from typing import NamedTuple

import numpy as np

from ddpm_jax.data import images as images_lib
from ddpm_jax.diffusion import process
from ddpm_jax.evaluation import decoding, likelihood, rate_distortion

COLUMNS = 8  # timesteps that are shown, besides the image itself


class Coded(NamedTuple):
    """Test images as they are after some of the bits.

    Attributes:
        image: as samples are stored, [n, H, W, C].
        estimate: x̂_0 at these timesteps, stored likewise, [S, n, H, W, C].
        timestep: int [S], from the first to the last of the chain.
    """

    image: np.ndarray
    estimate: np.ndarray
    timestep: np.ndarray


def coded(trained, weights, dataset, count: int, schedule: process.Schedule) -> Coded:
    """Return the first test images as a receiver has them at some timesteps.

    Args:
        trained: the run, on its devices.
        weights: that are scored.
        dataset: the test split.
        count: of images.
        schedule: the process that is scored.
    """
    shown = closer_to_the_end(schedule.num_steps)
    found = decoding.decoded(trained, weights, dataset, count, shown)
    levels = trained.facts.levels
    return Coded(
        images_lib.to_stored(found.images, levels),
        images_lib.to_stored(found.estimates, levels),
        np.array([schedule.timesteps[t] for t in shown]),
    )


def closer_to_the_end(num_steps: int) -> list[int]:
    """Return steps from the first to the last of a chain, closer where bits are spent.

    Most bits are those of the last steps, of small t.
    """
    shares = np.linspace(1, 0, COLUMNS) ** 2
    return sorted({round(share * (num_steps - 1)) for share in shares}, reverse=True)


def scored(trained, weights, prepared) -> list[rate_distortion.Step]:
    """Return the table of `rate_distortion.steps`; nothing is written.

    Args:
        trained: the run, on its devices.
        weights: that are scored.
        prepared: from `likelihood.prepare`.
    """
    result = likelihood.summed(trained, weights, prepared).result()
    by_t = rate_distortion.by_t(result, prepared[2].timesteps)
    return rate_distortion.steps(result.prior, by_t)
