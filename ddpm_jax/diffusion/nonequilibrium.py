"""The bound and the probability of a chain that is learned step by step.

`chain` is a `binomial.Binomial` or `learned_rates.LearnedRates`, `tables` its tables,
and `network` a function (x_t, t) → output. All values are in nats, one an example.

    K = −Σ_{t=2}^{T} E_q KL(q(x_{t−1}|x_t,x_0) ‖ p(x_{t−1}|x_t))
        + H_q(X_T|X_0) − H_q(X_1|X_0) − H_p(X_T)             eq. 14

bounds the mean log-likelihood from below. The reverse step at t = 1 is defined to be
the kernel of the forward one. It adds E[log π(x_0) − log π(x_1)], which is 0 for data
that have the prior's moments: mean m of bits, unit variance of Gaussian states.

Reference: Sohl-Dickstein et al. 2015, sections 2.3 and 2.4, App. B.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddpm_jax.core import arrays

NATS_PER_BIT = math.log(2)


def step_kl(chain, tables, output, x_0, x_t, t) -> jax.Array:
    """Return KL(q(x_{t−1}|x_t,x_0) ‖ p(x_{t−1}|x_t)) [B], for t ≥ 1.

    Args:
        output: of the network at x_t.
        x_0, x_t: [B, ...]; t: int32 [B], zero-based.
    """
    made = chain.reverse(tables, output, x_t, t)
    return chain.kl(chain.posterior(tables, x_0, x_t, t), made)


def ends(chain, tables, x_0) -> jax.Array:
    """Return H_q(X_T|X_0) − H_q(X_1|X_0) − H_p(X_T) [B], the rest of K (eq. 14).

    A mean of −log p(x_T) over q(x_T|x_0) stands for the last entropy. Over the data the
    two are the same where X_T has the prior's moments, as data of unit variance have;
    where they have not, K stays a bound.
    """
    first = jnp.zeros(x_0.shape[0], jnp.int32)
    last = jnp.full(x_0.shape[0], tables.num_steps - 1, jnp.int32)
    final = chain.marginal(tables, x_0, last)
    prior = chain.prior(tables, x_0)
    entropy_1 = chain.entropy(chain.marginal(tables, x_0, first))
    return -chain.kl(final, prior) - entropy_1


def terms(chain, tables, output, x_0, x_t, t, *, unit: float = 1.0) -> dict:
    """Return estimates of −K − H(X_1|X_0) ("loss") and of K ("bound") from one t, [B].

    Args:
        output: of the network at x_t.
        x_0, x_t: [B, ...]; t: int32 [B], uniform on 1 … T−1.
        unit: nats that are one unit of the result.
    """
    kl = (tables.num_steps - 1) * step_kl(chain, tables, output, x_0, x_t, t)
    first = jnp.zeros(x_0.shape[0], jnp.int32)
    entropy_1 = chain.entropy(chain.marginal(tables, x_0, first))
    bound = ends(chain, tables, x_0) - kl
    return {"loss": -(bound + entropy_1) / unit, "bound": bound / unit}


def entropy_bounds(chain, tables, x_0, t) -> tuple[jax.Array, jax.Array]:
    """Return lower and upper bound of H(X_{t−1}|X_t), each [B] (section 2.6).

    The upper one holds of the mean over data whose entropy grows along the chain: for
    Gaussian states, data of unit variance.

    Args:
        x_0: [B, ...]; t: int32 [B], from 1.
    """
    kernel = chain.kernel_entropy(tables, x_0, t)
    before = chain.entropy(chain.marginal(tables, x_0, t - 1))
    after = chain.entropy(chain.marginal(tables, x_0, t))
    return kernel + before - after, kernel


class Trajectories(NamedTuple):
    """What importance averaging gives for each example.

    Attributes:
        log_probability: [B] nats, of which exp is unbiased.
        effective: [B], the effective number of trajectories, (Σw)²/Σw².
    """

    log_probability: jax.Array
    effective: jax.Array


def log_weights(chain, tables, network, x_0, noise_fn) -> jax.Array:
    """Return log of p(x_T) Π p(x_{t−1}|x_t) / q(x_t|x_{t−1}) [B] of one trajectory.

    Args:
        network: (x_t, t) → output.
        x_0: [B, ...].
        noise_fn: t → noise [B, ...] of the step to x_t, as `chain.draw` takes it.

    Reference: eq. 9 of the paper.
    """
    rows = x_0.shape[0]

    def forwards(x_prev, t):
        law = chain.kernel(tables, x_prev, t)
        x_t = chain.draw(law, noise_fn(t[0]))
        return x_t, chain.log_prob(law, x_t)

    def step(carry, t):
        x_prev, total = carry
        t = jnp.full(rows, t)
        x_t, log_q = forwards(x_prev, t)
        law = chain.reverse(tables, network(x_t, t), x_t, t)
        return (x_t, total + chain.log_prob(law, x_prev) - log_q), None

    x_1, log_q = forwards(x_0, jnp.zeros(rows, jnp.int32))
    first = chain.log_prob(chain.first_step(tables, x_1), x_0) - log_q
    steps = jnp.arange(1, tables.num_steps, dtype=jnp.int32)
    (x_T, total), _ = jax.lax.scan(step, (x_1, first), steps)
    return total + chain.log_prob(chain.prior(tables, x_T), x_T)


def averaged(weights) -> Trajectories:
    """Return the average of trajectories' log-weights [K, B] over K."""
    count = weights.shape[0]
    first = jax.nn.logsumexp(weights, axis=0)
    second = jax.nn.logsumexp(2 * weights, axis=0)
    return Trajectories(first - math.log(count), jnp.exp(2 * first - second))


class Run(NamedTuple):
    """A reverse chain: its end before and after the unlearned step, [B, ...] each.

    `states` [S, B, ...] are x_t of the zero-based t that were to be kept.
    """

    x_1: jax.Array
    x_0: jax.Array
    states: jax.Array


def sample(chain, tables, network, start, noise_fn, *, change=None, kept=()) -> Run:
    """Run the reverse chain from draws of the prior.

    Args:
        network: (x_t, t) → output.
        start: noise [B, ...] of x_T, as `chain.draw` takes it.
        noise_fn: t → noise [B, ...] of the step from x_t to x_{t−1}.
        change: (law of x_{t−1}, t) → law, see `r_x`; None changes nothing. It is called
            with the prior too, at t = T, and with the unlearned step, at t = 0.
        kept: zero-based t whose x_t are returned too.
    """
    change = change or (lambda law, t: law)
    rows, count = start.shape[0], tables.num_steps
    kept = jnp.asarray(kept, jnp.int32)

    def keep(states, x, t):
        is_kept = arrays.expand_to(kept == t, states)
        return jnp.where(is_kept, x, states)

    def step(k, carry):
        x_t, states = carry
        t = jnp.full(rows, count - 1 - k)
        law = chain.reverse(tables, network(x_t, t), x_t, t)
        x_prev = chain.draw(change(law, t), noise_fn(t[0]))
        return x_prev, keep(states, x_prev, t[0] - 1)

    prior = chain.prior(tables, start)
    x_T = chain.draw(change(prior, jnp.full(rows, count)), start)
    states = keep(jnp.zeros((len(kept), *x_T.shape), x_T.dtype), x_T, count - 1)
    x_1, states = jax.lax.fori_loop(0, count - 1, step, (x_T, states))
    zero = jnp.zeros(rows, jnp.int32)
    law = change(chain.first_step(tables, x_1), zero)
    return Run(x_1, chain.draw(law, noise_fn(zero[0])), states)
