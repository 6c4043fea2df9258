"""Multiplying the law of a chain by a function r(x): every step is multiplied by it.

    p̃(x_{t−1} | x_t) ∝ p(x_{t−1} | x_t) r_{t−1}(x_{t−1})

A change is a function (law of x_{t−1}, t) → law for `nonequilibrium.sample`, where t is
that of x_t: the law that is changed is of the state before it.

* `smooth`: any differentiable log r of Gaussian states, to first order in the variance
  of a step: the mean moves by f_Σ ∂log r/∂x, taken at the mean (table App.1).
* `observed`: r = N(y; x, σ²), the posterior given a noisy copy; exact for each step.
* `bitwise`: of bits, d = r(1)/(r(0)+r(1)) for each; exact for each step.
* `known`: a delta function on some coordinates: they are held; exact for each step.

What the chain's end is. Exact steps make p̃(x_0) ∝ p(x_0) r(x_0) exactly where r_t is
E[r(x_0) | x_t] (Doob's h-transform), which is known for Gaussian data and r, and for
independent bits. The paper takes r itself for all t, or r^{(T−t)/T}: `EXPONENTS`. That
is an approximation, and not one that small steps cure: in a chain at equilibrium every
step pulls by ∂log r, twice what holds p·r in balance, and a constant r ends near p·r².

Reference: Sohl-Dickstein et al. 2015, section 2.5 and App. C; table App.1.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.core import arrays, errors
from ddpm_jax.diffusion import binomial, learned_rates

EXPONENTS = {
    "constant": lambda t, num_steps: jnp.ones_like(t, jnp.float32),
    "linear": lambda t, num_steps: (num_steps - t) / num_steps,
}
"""The exponent of r at the state that follows x_t of zero-based t: t of it is t."""


def smooth(log_r: Callable) -> Callable:
    """Return the change by a smooth r of Gaussian states.

    Args:
        log_r: (x [B, ...], t [B]) → log r_{t−1}(x) [B]; t as in the module.
    """

    def change(law, t):
        slope = jax.grad(lambda x: jnp.sum(log_r(x, t)))(law.mean)
        return law._replace(mean=law.mean + law.variance * slope)

    return change


def powered(log_r: Callable, exponent: str, num_steps: int) -> Callable:
    """Return (x, t) → exponent(t)·log r(x), a power of r that depends on t.

    Args:
        log_r: x [B, ...] → [B].
        exponent: a key of `EXPONENTS`.
        num_steps: T.

    Raises:
        Refusal: an unknown exponent.
    """
    share = errors.choose("exponent of r", EXPONENTS, exponent)
    return lambda x, t: share(t, num_steps) * log_r(x)


def observed(copy) -> Callable:
    """Return the change by r(x) = N(y; x, σ²): precisions add.

    Args:
        copy: (y, σ²), of numbers or arrays that broadcast to [B, ...]; or a function
            t [B] → both.
    """

    def change(law, t):
        y, noise = copy(t) if callable(copy) else copy
        precision = 1 / law.variance + 1 / noise
        mean = (law.mean / law.variance + y / noise) / precision
        return learned_rates.Normal(mean, 1 / precision)

    return change


def bitwise(share) -> Callable:
    """Return the change of bits by d = r(1)/(r(0) + r(1)): c d/(c d + (1−c)(1−d)).

    Args:
        share: d, [B, ...] or broadcasting, 0 … 1; or a function t [B] → d.
    """

    def change(law, t):
        d = share(t) if callable(share) else share
        on, off = law.on * d, law.off * (1 - d)
        return binomial.Bits(on / (on + off), off / (on + off))

    return change


def known(values, mask) -> Callable:
    """Return the change by a delta function: coordinates in `mask` have the values.

    Every law becomes one of no spread there, so that noise changes nothing. A change is
    for the law of every state, the prior's too: the whole chain has the values.

    Args:
        values: [B, ...], of Gaussian states or bits.
        mask: bool, of the shape of `values`.

    Raises:
        Refusal: a mask of another shape or type, or values that are not finite.
    """
    check_known(values, mask)

    def change(law, t):
        del t
        if isinstance(law, binomial.Bits):
            on, off = values, 1 - values
            return binomial.Bits(
                jnp.where(mask, on, law.on), jnp.where(mask, off, law.off)
            )
        return learned_rates.Normal(
            jnp.where(mask, values, law.mean), jnp.where(mask, 0.0, law.variance)
        )

    return change


def check_known(values, mask) -> None:
    """Refuse a mask that does not belong to the values, and values that are none."""
    if np.shape(mask) != np.shape(values) or jnp.result_type(mask) != jnp.bool_:
        raise errors.Refusal(
            f"a mask {jnp.result_type(mask)}{list(np.shape(mask))} for values of shape "
            f"{list(np.shape(values))}: give one boolean for each value, True where it "
            "is known"
        )
    check_finite(values, "the known values")


def check_finite(values, what: str) -> None:
    """Refuse numbers of r that are not finite; traced values are not checked.

    Raises:
        Refusal: counts them.
    """
    found = arrays.known(jnp.asarray(values))
    bad = 0 if found is None else np.count_nonzero(~np.isfinite(found))
    if bad:
        raise errors.Refusal(
            f"{bad} of {found.size} numbers of {what} are NaN or infinite: r must be "
            "finite and positive everywhere"
        )
