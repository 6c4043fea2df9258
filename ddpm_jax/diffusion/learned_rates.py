"""Gaussian diffusion of the 2015 paper: rates and variances are learned.

    q(x_t | x_{t−1}) = N(√(1−β_t) x_{t−1}, β_t I),   π = N(0, I)
    p(x_{t−1} | x_t) = N(f_μ(x_t, t), f_Σ(x_t, t)),  f_Σ diagonal

β_1 is a constant, small, so that the first step, which nothing decodes, cannot be used
to raise the bound at will; β_2 … β_T are learned by the gradient of the bound through
x_t = √ᾱ_t x_0 + √(1−ᾱ_t) ε with ε held fixed ("frozen noise"). They are numbers of the
weights: their tables are computed in the graph, and become a float64
`process.Schedule` for cards.

The functions are those of `binomial`; t is zero-based, entry 0 is the paper's t = 1.

Reference: Sohl-Dickstein et al. 2015, sections 2.4 and App. C, table App.1.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.core import arrays, errors, keys
from ddpm_jax.diffusion import process

MEAN_FORMS = ("convex", "residual")
LEAST, ROOM = 1e-6, 1e-5  # β_t of t ≥ 2 stay in (LEAST, 1 − ROOM), as in the code
LOG_2PI = math.log(2 * math.pi)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["beta", "log_alpha_bar"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True, eq=False)
class Tables:
    """The chain on the device: β and log ᾱ [T]."""

    beta: jax.Array
    log_alpha_bar: jax.Array

    @property
    def num_steps(self) -> int:
        """T."""
        return self.beta.shape[0]


class Normal(NamedTuple):
    """A law of independent Gaussians: means and variances, [B, ...]."""

    mean: jax.Array
    variance: jax.Array


def usual_betas(num_steps: int, beta_1: float) -> np.ndarray:
    """Return the β that learning starts from, float64 [T]: 1/(T−t+2), β_1 in front.

    Reference: the paper's code, 1/linspace(T, 2, T).
    """
    betas = 1.0 / np.linspace(num_steps, 2, num_steps)
    betas[0] = beta_1
    return betas


def betas(start: np.ndarray, offset, xp=jnp):
    """Return β [T]: that of `start` where the offset is 0, in (0, 1) for any offset.

    Args:
        start: float64 [T]; its entry 0, β_1, is not learned.
        offset: [T], learned; added to the logit of β, entry 0 is not read.
        xp: jax.numpy in a graph, numpy for float64 on the host.
    """
    share = (start - LEAST) / (1 - LEAST - ROOM)
    share = np.clip(share, 1e-12, 1 - 1e-12)
    logit = np.log(share) - np.log1p(-share)
    sigmoid = jax.nn.sigmoid if xp is jnp else _sigmoid
    learned = LEAST + (1 - LEAST - ROOM) * sigmoid(logit + offset)
    return xp.where(np.arange(len(start)) == 0, start[0], learned)


def _sigmoid(values):
    small = np.exp(-np.abs(values))
    return np.where(values >= 0, 1.0, small) / (1 + small)


def check_beta_1(beta_1: float) -> None:
    """Refuse a β_1 outside (0, 1).

    Raises:
        Refusal: names the paper's code's value.
    """
    if not 0 < beta_1 < 1:
        raise errors.Refusal(
            f"diffusion.beta_start={beta_1} is β_1 of the process: give a number "
            "between 0 and 1, such as 0.001"
        )


@dataclasses.dataclass(frozen=True)
class LearnedRates:
    """The Gaussian chain.

    Attributes:
        start: β that learning starts from, or that is kept, [T].
        mean_form: how f_μ is made of the network's first half z. "convex", of the
            paper's appendix: (x − z)(1 − Σ) + z. "residual", of its code:
            x√(1−β_t) + z√β_t, which is the better scaled one where β is small.
    """

    start: tuple[float, ...]
    mean_form: str = "convex"
    channels = 2  # numbers of the network for one of the state

    def __post_init__(self):
        errors.choose("mean form", dict.fromkeys(MEAN_FORMS), self.mean_form)

    def tables(self, offset, dtype=None) -> Tables:
        """Return the tables for learned offsets [T], in the graph."""
        beta = betas(np.asarray(self.start), offset)
        beta = beta.astype(dtype or jnp.result_type(offset))
        return Tables(beta, jnp.cumsum(jnp.log1p(-beta)))

    def schedule(self, offset) -> process.Schedule:
        """Return the exact process of learned offsets, for cards and sampling."""
        offset = np.asarray(offset, np.float64)
        return process.Schedule.from_betas(betas(np.asarray(self.start), offset, np))

    # ---- draws ----

    def noise(self, key, shape) -> jax.Array:
        """Return standard normal numbers of `shape`."""
        return keys.normal(key, shape)

    def noise_each(self, each, shape) -> jax.Array:
        """Return standard normal numbers [B, *shape], example i from each[i]."""
        return keys.normal_each(each, shape)

    def draw(self, law: Normal, noise) -> jax.Array:
        """Return a draw of a law from standard normal noise."""
        return law.mean + jnp.sqrt(law.variance) * noise

    # ---- the forward chain ----

    def prior(self, tables: Tables, like) -> Normal:
        """Return π = N(0, I) for states `like`."""
        del tables
        return Normal(jnp.zeros_like(like), jnp.ones_like(like))

    def kernel(self, tables: Tables, x_prev, t) -> Normal:
        """Return q(x_t | x_{t−1}) (table App.1)."""
        beta = _at(tables.beta, t, x_prev)
        return _normal(jnp.sqrt(1 - beta) * x_prev, beta)

    def marginal(self, tables: Tables, x_0, t) -> Normal:
        """Return q(x_t | x_0)."""
        log_alpha_bar = _at(tables.log_alpha_bar, t, x_0)
        return _normal(jnp.exp(log_alpha_bar / 2) * x_0, -jnp.expm1(log_alpha_bar))

    def q_sample(self, tables: Tables, x_0, t, noise) -> jax.Array:
        """Return x_t = √ᾱ_t x_0 + √(1−ᾱ_t) ε."""
        return self.draw(self.marginal(tables, x_0, t), noise)

    def posterior(self, tables: Tables, x_0, x_t, t) -> Normal:
        """Return q(x_{t−1} | x_t, x_0) of t ≥ 1, weighted by the precisions of both.

        From x_0 comes N(√ᾱ_{t−1} x_0, 1−ᾱ_{t−1}); from x_t comes the likelihood of
        x_{t−1}, N(x_t/√(1−β_t), β_t/(1−β_t)).
        """
        beta = _at(tables.beta, t, x_t)
        before = self.marginal(tables, x_0, t - 1)
        likelihood = (1 - beta) / beta
        variance = 1 / (1 / before.variance + likelihood)
        mean = before.mean / before.variance + x_t * jnp.sqrt(1 - beta) / beta
        return _normal(variance * mean, variance)

    # ---- the reverse chain ----

    def reverse(self, tables: Tables, output, x_t, t) -> Normal:
        """Return p(x_{t−1} | x_t) from the network's output [B, ..., 2C].

        Its second half z^Σ is what f_Σ has beside β_t: Σ = σ(z^Σ + logit β_t).
        """
        of_mean, of_variance = jnp.split(output, 2, axis=-1)
        beta = _at(tables.beta, t, x_t)
        variance = jax.nn.sigmoid(of_variance + jnp.log(beta) - jnp.log1p(-beta))
        if self.mean_form == "convex":
            return Normal((x_t - of_mean) * (1 - variance) + of_mean, variance)
        return Normal(jnp.sqrt(1 - beta) * x_t + jnp.sqrt(beta) * of_mean, variance)

    def first_step(self, tables: Tables, x_1) -> Normal:
        """Return p(x_0 | x_1), by definition the kernel: nothing is learned."""
        return self.kernel(tables, x_1, jnp.zeros(x_1.shape[0], jnp.int32))

    # ---- numbers in nats, [B], summed over an example ----

    def log_prob(self, law: Normal, x) -> jax.Array:
        """Return the log-density of a law at states x."""
        square = jnp.square(x - law.mean) / law.variance
        return -0.5 * _sum(square + jnp.log(law.variance) + LOG_2PI)

    def kl(self, law: Normal, other: Normal) -> jax.Array:
        """Return KL(law ‖ other)."""
        ratio = law.variance / other.variance
        square = jnp.square(law.mean - other.mean) / other.variance
        return 0.5 * _sum(ratio - 1 - jnp.log(ratio) + square)

    def entropy(self, law: Normal) -> jax.Array:
        """Return the differential entropy of a law."""
        return 0.5 * _sum(jnp.log(law.variance) + LOG_2PI + 1)

    def kernel_entropy(self, tables: Tables, x_0, t) -> jax.Array:
        """Return H(X_t | X_{t−1}), which depends on no state."""
        return self.entropy(self.kernel(tables, x_0, t))


def _normal(mean, variance):
    return Normal(mean, jnp.broadcast_to(variance, mean.shape))


def _at(table, t, like):
    return arrays.expand_to(table[t], like)


def _sum(values):
    return jnp.sum(values, axis=tuple(range(1, values.ndim)))
