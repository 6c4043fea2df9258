"""A run whose best network is known: Gaussian images and the exact denoiser."""

import jax.numpy as jnp
import numpy as np
from reference import oracle as ref_oracle
from reference import process as ref_process
from reference import schedules as ref_schedules

from ddpm_jax.core import arrays
from ddpm_jax.diagnosis import measure
from ddpm_jax.diffusion import process
from ddpm_jax.metrics import oracle
from ddpm_jax.runtime import sharding

T = 200
SHAPE = (4, 4, 3)
LEVELS = 256
STD = 0.25
IMAGES = 64

_RANDOM = np.random.default_rng(0)
MEAN = _RANDOM.uniform(-0.2, 0.2, SHAPE)


def images(count, seed):
    """Draw images, rounded to the grey values of bytes, in [−1, 1]."""
    drawn = np.random.default_rng(seed).normal(MEAN, STD, (count, *SHAPE))
    grey = np.clip(np.round((drawn + 1) / 2 * (LEVELS - 1)), 0, LEVELS - 1)
    return (grey / (LEVELS - 1) * 2 - 1).astype(np.float32)


def fetch_from(array):
    """Return the `fetch` of a data set in memory."""
    return lambda index: {"image": array[index]}


def betas(name="linear"):
    """Return β of the independent reference."""
    return ref_schedules.BY_NAME[name](T)


def schedule(name="linear"):
    """Return the package's process."""
    return process.Schedule.from_betas(betas(name))


def network(name="linear", scale=1.0):
    """Return `apply` of the exact noise prediction under a schedule.

    Args:
        scale: the whole output is multiplied by params · scale.
    """
    exact = ref_oracle.Oracle(
        ref_process.Process(betas(name)), MEAN.reshape(-1), STD
    ).optimal("noise")
    return lines(exact, scale)


def lines(exact, scale=1.0):
    """Return `apply` of a regression line, (intercept, slope) by t and pixel."""
    shape = (-1, *SHAPE)
    intercept, slope = (
        jnp.asarray(np.broadcast_to(v, (T, MEAN.size)), jnp.float32).reshape(shape)
        for v in (exact.intercept, exact.slope)
    )

    def apply(params, x_t, t_seen, condition):
        del condition
        return params * scale * (intercept[t_seen] + slope[t_seen] * x_t)

    return apply


def probe(apply, name="linear"):
    """Return a compiled probe of a network, on all devices."""
    mesh = sharding.make_mesh()
    return measure.make_probe(
        schedule(name),
        apply,
        prediction="noise",
        variance="fixed_small",
        data=oracle.Gaussian(MEAN.reshape(-1), np.full(MEAN.size, STD**2)),
        mesh=mesh,
        batch_size=64,
    )


def timesteps():
    """Return the t that are probed and SNR·variance there."""
    t = arrays.spread(T, 16)
    alpha_bar = np.cumprod(1 - betas())[t]
    return t, alpha_bar / (1 - alpha_bar) * STD**2
