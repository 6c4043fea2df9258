"""Binomial diffusion: a Markov chain of independent bits, and what is known of it.

A state is an array of zeros and ones. With the mean m of the prior (0.5 in the paper's
table, 0.2 in its appendix on the heartbeat) and ᾱ_t = Π_{s≤t}(1−β_s), for each bit

    q(x_t = 1 | x_{t−1}) = x_{t−1}(1−β_t) + m β_t            kernel
    q(x_t = 1 | x_0)     = m + (x_0 − m) ᾱ_t                 marginal

The marginal follows from the kernel: m + (x_{t−1} − m)(1−β_t) is the same number, so
the distance from m shrinks by 1−β_t a step. The posterior is Bayes' rule on two states:

    q(x_{t−1} = 1 | x_t, x_0) = a / (a + b)
    a = q(x_t | x_{t−1} = 1) q(x_{t−1} = 1 | x_0)
    b = q(x_t | x_{t−1} = 0) q(x_{t−1} = 0 | x_0)

Both a/(a+b) and b/(a+b) are sums and products of positive numbers: neither is taken as
one minus the other, so that both are exact to rounding however small they are.

t is zero-based as everywhere; the entry 0 is the paper's t = 1, whose reverse step is
the kernel itself and has nothing to learn. `learned_rates` has the same functions for
Gaussian states, and `nonequilibrium` what is made of either.

Reference: Sohl-Dickstein et al. 2015, section 2 and table App.1; the posterior is not
printed there.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.core import arrays, errors, keys
from ddpm_jax.diffusion import process

OUTPUTS = ("x_0", "x_prev")


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["beta", "erased", "erased_before", "prior_mean"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True, eq=False)
class Tables:
    """The chain on the device: β, 1−ᾱ_t and 1−ᾱ_{t−1} [T] (0 at entry 0), and m."""

    beta: jax.Array
    erased: jax.Array
    erased_before: jax.Array
    prior_mean: jax.Array

    @property
    def num_steps(self) -> int:
        """T."""
        return self.beta.shape[0]


class Bits(NamedTuple):
    """A law of independent bits: probabilities of 1 and of 0, [B, ...]."""

    on: jax.Array
    off: jax.Array


@dataclasses.dataclass(frozen=True)
class Binomial:
    """The chain of bits.

    Attributes:
        prior_mean: m, inside (0, 1).
        output: what the network's logits are of. "x_prev": f_b of the paper, the next
            state itself. "x_0": of the data, and f_b is the posterior's mean over it;
            then every f_b is one that some law of the data could have, which the
            optimal one is too, for bits are independent given x_t and x_0.
    """

    prior_mean: float = 0.5
    output: str = "x_0"
    channels = 1  # numbers of the network for one of the state

    def __post_init__(self):
        if not 0 < self.prior_mean < 1:
            raise errors.Refusal(
                f"a prior mean of {self.prior_mean}: choose a number between 0 and 1"
            )
        errors.choose("binomial output", dict.fromkeys(OUTPUTS), self.output)

    def tables(self, schedule: process.Schedule, dtype=np.float32) -> Tables:
        """Return the tables of a schedule, derived in float64 and cast once."""
        beta = np.asarray(schedule.betas)
        with np.errstate(divide="ignore"):  # β = 1 erases all: 1 − e^−∞
            erased = -np.expm1(np.cumsum(np.log1p(-beta)))
        before = np.append(0.0, erased[:-1])
        cast = (jnp.asarray(v, dtype) for v in (beta, erased, before))
        return Tables(*cast, jnp.asarray(self.prior_mean, dtype))

    # ---- draws ----

    def noise(self, key, shape) -> jax.Array:
        """Return uniform numbers of `shape`, which decide bits in `draw`."""
        return keys.uniform(key, shape)

    def noise_each(self, each, shape) -> jax.Array:
        """Return uniform numbers [B, *shape], example i from each[i]."""
        return jax.vmap(lambda key: keys.uniform(key, shape))(each)

    def draw(self, law: Bits, noise) -> jax.Array:
        """Return bits of a law: 1 where the uniform noise is below its probability."""
        return (noise < law.on).astype(law.on.dtype)

    # ---- the forward chain ----

    def prior(self, tables: Tables, like) -> Bits:
        """Return π, independent bits of mean m, for states `like`."""
        on = jnp.broadcast_to(tables.prior_mean, like.shape).astype(like.dtype)
        return Bits(on, 1 - on)

    def kernel(self, tables: Tables, x_prev, t) -> Bits:
        """Return q(x_t | x_{t−1}) (table App.1)."""
        return _towards_prior(tables, x_prev, _at(tables.beta, t, x_prev))

    def marginal(self, tables: Tables, x_0, t) -> Bits:
        """Return q(x_t | x_0)."""
        return _towards_prior(tables, x_0, _at(tables.erased, t, x_0))

    def q_sample(self, tables: Tables, x_0, t, noise) -> jax.Array:
        """Return a draw of q(x_t | x_0)."""
        return self.draw(self.marginal(tables, x_0, t), noise)

    def posterior(self, tables: Tables, x_0, x_t, t) -> Bits:
        """Return q(x_{t−1} | x_t, x_0) of t ≥ 1, see the module."""
        before = _towards_prior(tables, x_0, _at(tables.erased_before, t, x_0))
        likelihood_on = _of(self.kernel(tables, jnp.ones_like(x_t), t), x_t)
        likelihood_off = _of(self.kernel(tables, jnp.zeros_like(x_t), t), x_t)
        on, off = likelihood_on * before.on, likelihood_off * before.off
        return Bits(on / (on + off), off / (on + off))

    # ---- the reverse chain ----

    def reverse(self, tables: Tables, output, x_t, t) -> Bits:
        """Return p(x_{t−1} | x_t) from the network's logits, [B, ...] like x_t."""
        on, off = jax.nn.sigmoid(output), jax.nn.sigmoid(-output)
        if self.output == "x_prev":
            return Bits(on, off)
        if_on = self.posterior(tables, jnp.ones_like(x_t), x_t, t)
        if_off = self.posterior(tables, jnp.zeros_like(x_t), x_t, t)
        return Bits(on * if_on.on + off * if_off.on, on * if_on.off + off * if_off.off)

    def first_step(self, tables: Tables, x_1) -> Bits:
        """Return p(x_0 | x_1), by definition the kernel: nothing is learned."""
        return self.kernel(tables, x_1, jnp.zeros(x_1.shape[0], jnp.int32))

    # ---- numbers in nats, [B], summed over an example ----

    def log_prob(self, law: Bits, x) -> jax.Array:
        """Return log of a law at states x."""
        return _sum(jnp.log(_of(law, x)))

    def kl(self, law: Bits, other: Bits) -> jax.Array:
        """Return KL(law ‖ other)."""
        return _sum(
            _times_log(law.on, law.on / other.on)
            + _times_log(law.off, law.off / other.off)
        )

    def entropy(self, law: Bits) -> jax.Array:
        """Return the entropy of a law."""
        return -_sum(_times_log(law.on, law.on) + _times_log(law.off, law.off))

    def kernel_entropy(self, tables: Tables, x_0, t) -> jax.Array:
        """Return H(X_t | X_{t−1}, X_0 = x_0), the mean over q(x_{t−1} | x_0)."""
        before = _towards_prior(tables, x_0, _at(tables.erased_before, t, x_0))
        entropies = [
            _bit_entropy(self.kernel(tables, jnp.full_like(x_0, bit), t))
            for bit in (1, 0)
        ]
        return _sum(before.on * entropies[0] + before.off * entropies[1])


def _at(table, t, like):
    return arrays.expand_to(table[t], like)


def _towards_prior(tables, x, share) -> Bits:
    """Return the law of a bit that is drawn anew from the prior by a share."""
    mean = tables.prior_mean
    on = x * (1 - share) + mean * share
    return Bits(on, (1 - x) * (1 - share) + (1 - mean) * share)


def _of(law, x):
    return jnp.where(x > 0.5, law.on, law.off)


def _times_log(weight, value):
    """Return weight·log(value), 0 where the weight is."""
    zero = weight <= 0
    return jnp.where(zero, 0.0, weight * jnp.log(jnp.where(zero, 1.0, value)))


def _bit_entropy(law):
    return -_times_log(law.on, law.on) - _times_log(law.off, law.off)


def _sum(values):
    return jnp.sum(values, axis=tuple(range(1, values.ndim)))
