"""The variational bound: its terms, in nats or bits per dimension.

L = L_T + Σ_{t≥1} L_t + L_0                                        DDPM eq. 5
L_T  prior:    KL(q(x_T|x_0) ‖ N(0, I))
L_t  rate:     KL(q(x_{t−1}|x_t,x_0) ‖ p(x_{t−1}|x_t))
L_0  decoder:  −log p(x_0|x_1), a Gaussian integrated over the pixel's bin (eq. 13)
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.core import arrays, errors, flags
from ddpm_jax.core.types import NoiseFn
from ddpm_jax.diffusion import process, reverse

BITS = 1 / math.log(2)
SMALL_DIFFERENCE = 1e-2  # where three terms of a series are exact to float32
LOG_FLOOR = math.log(1e-12)  # smallest log-probability of a bin, as the original code


def normal_kl(mean_1, log_var_1, mean_2, log_var_2):
    """Return KL(N_1 ‖ N_2) elementwise, in nats, for diagonal Gaussians.

    Args:
        mean_1, log_var_1: parameters of the first Gaussian.
        mean_2, log_var_2: parameters of the second, broadcastable.
    """
    d = log_var_1 - log_var_2
    # e^d − 1 − d loses every digit where the log-variances nearly agree, as they do in
    # the prior term: there its series is used.
    series = d**2 * (1 / 2 + d / 6 + d**2 / 24)
    spread = jnp.where(jnp.abs(d) < SMALL_DIFFERENCE, series, jnp.expm1(d) - d)
    return 0.5 * (spread + (mean_1 - mean_2) ** 2 * jnp.exp(-log_var_2))


def gaussian_log_density(x, mean, log_var):
    """Return log N(x; mean, e^{log_var}) elementwise, in nats; all broadcastable."""
    squared = (x - mean) ** 2 * jnp.exp(-log_var)
    return -0.5 * (math.log(2 * math.pi) + log_var + squared)


def discretised_gaussian_log_prob(x, mean, log_scale, *, levels: int = 256):
    """Return the log-probability of x's bin under N(mean, e^{2·log_scale}), in nats.

    The bins are those of `levels` grey values evenly spaced on [−1, 1]; the outermost
    reach to ±∞. The normal distribution function is the tanh approximation of the
    original code, ½(1 + tanh(u)) with u = √(2/π)(z + 0.044715 z³). Its difference over
    a bin is ½ sinh(a−b)/(cosh a · cosh b) with a−b in factored form: nothing cancels,
    so float32 suffices at 65,536 levels.

    Args:
        x: values on the grid of the levels, any shape.
        mean, log_scale: broadcastable; log_scale is half the log-variance.
        levels: number of grey values, at least 2.

    Returns:
        Elementwise log-probability, at least log 1e-12.

    Reference: DDPM eq. 13; the approximation is Page's (1977).
    """
    check_levels(levels)
    half_bin = 1 / (levels - 1)
    inverse_scale = jnp.exp(-log_scale)
    upper = inverse_scale * (x - mean + half_bin)
    lower = inverse_scale * (x - mean - half_bin)
    a, b = _tanh_argument(upper), _tanh_argument(lower)

    width = 2 * half_bin * inverse_scale  # upper − lower, without cancellation
    factor = 1 + 0.044715 * (upper**2 + upper * lower + lower**2)
    delta = math.sqrt(2 / math.pi) * width * factor  # a − b
    size_a, size_b = jnp.abs(a), jnp.abs(b)
    # a−b−|a|−|b| is 0 if the bin holds the mean, else −2·min(|a|, |b|).
    decay = jnp.where(a * b > 0, -2 * jnp.minimum(size_a, size_b), 0.0)
    middle = (
        decay
        + jnp.log(-jnp.expm1(-2 * delta))
        - jnp.log1p(jnp.exp(-2 * size_a))
        - jnp.log1p(jnp.exp(-2 * size_b))
    )
    lowest = -jax.nn.softplus(-2 * a)  # log ½(1 + tanh a)
    highest = -jax.nn.softplus(2 * b)  # log ½(1 − tanh b)
    log_prob = jnp.where(
        x < -1 + half_bin, lowest, jnp.where(x > 1 - half_bin, highest, middle)
    )
    return jnp.maximum(log_prob, LOG_FLOOR)


def check_levels(levels):
    """Refuse a number of grey levels below 2."""
    whole = isinstance(levels, int | np.integer) and not isinstance(levels, bool)
    if not whole or levels < 2:
        raise errors.Refusal(
            f"{levels!r} levels: give the number of grey values of the data, at "
            "least 2 (256 for 8-bit images); continuous data has no bits per dimension"
        )


def _tanh_argument(z):
    return math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)


def prior_bpd(tables: process.Tables, x_0):
    """Return L_T = KL(q(x_T | x_0) ‖ N(0, I)) in bits per dimension, [B]."""
    t = jnp.full(x_0.shape[0], tables.num_steps - 1)
    mean = process.at(tables.sqrt_alpha_bar, t, x_0) * x_0
    log_var = process.at(tables.log_one_minus_alpha_bar, t, x_0)
    return BITS * arrays.mean_flat(normal_kl(mean, log_var, 0.0, 0.0))


def vlb_term(tables, x_0, x_t, t, prediction: reverse.Prediction, *, levels=256):
    """Return the term of the bound at t in bits per dimension, [B].

    It is the decoder's −log p(x_0|x_1) at t = 0, and the KL of the true posterior (with
    its clipped log-variance) from the model's elsewhere. For continuous data p is a
    density: the term at t = 0 changes with the unit of the data and may be negative.

    Args:
        x_0, x_t: [B, ..., C]; t: [B].
        prediction: the model at (x_t, t).
        levels: grey values of the data; None if it is continuous.
    """
    mean, log_var = process.q_posterior(tables, x_0, x_t, t)
    kl = normal_kl(mean, log_var, prediction.mean, prediction.log_var)
    if levels is None:
        decoder = -gaussian_log_density(x_0, prediction.mean, prediction.log_var)
    else:
        decoder = -discretised_gaussian_log_prob(
            x_0, prediction.mean, 0.5 * prediction.log_var, levels=levels
        )
    term = jnp.where(arrays.expand_to(t == 0, x_0), decoder, kl)
    return BITS * arrays.mean_flat(term)


class BitsPerDim(NamedTuple):
    """The bound of a batch; everything in bits per dimension unless said otherwise.

    `vb`, `x_0_mse` and `noise_mse` (mean squared errors in units of the data and of
    the noise) are [B, T′], indexed by t. `total` = `prior` + Σ_t `vb`.
    """

    total: jax.Array
    prior: jax.Array
    vb: jax.Array
    x_0_mse: jax.Array
    noise_mse: jax.Array

    @property
    def decoder(self) -> jax.Array:
        """L_0, the distortion of progressive coding (DDPM section 4.3), [B]."""
        return self.vb[:, 0]

    @property
    def rate(self) -> jax.Array:
        """L_T + Σ_{t≥1} L_t, the rate of progressive coding, [B]."""
        return self.prior + jnp.sum(self.vb[:, 1:], axis=1)


@flags.as_written()
def bits_per_dim(
    tables: process.Tables,
    denoise: reverse.Denoiser,
    x_0,
    *,
    noise_fn: NoiseFn,
    levels: int = 256,
) -> BitsPerDim:
    """Return every term of the bound of x_0, with fresh noise at each t.

    Args:
        x_0: [B, ..., C] on the grid of `levels`.
        noise_fn: position k → noise [B, ..., C]; position k is t = T′−1−k.

    Raises:
        Refusal: levels that data cannot have, or a denoiser of another process than
            the tables.
    """
    check_levels(levels)
    reverse.check_process(tables, denoise)

    def term(_, position):
        t = jnp.full(x_0.shape[0], tables.num_steps - 1 - position)
        noise = noise_fn(position)
        x_t = process.q_sample(tables, x_0, t, noise)
        prediction = denoise(x_t, t)
        return None, (
            vlb_term(tables, x_0, x_t, t, prediction, levels=levels),
            arrays.mean_flat((prediction.x_0 - x_0) ** 2),
            arrays.mean_flat((prediction.noise - noise) ** 2),
        )

    _, terms = jax.lax.scan(term, None, jnp.arange(tables.num_steps))
    vb, x_0_mse, noise_mse = (values[::-1].T for values in terms)
    prior = prior_bpd(tables, x_0)
    return BitsPerDim(prior + jnp.sum(vb, axis=1), prior, vb, x_0_mse, noise_mse)
