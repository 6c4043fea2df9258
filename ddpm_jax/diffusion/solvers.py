"""Solvers: how one evaluation of the network becomes one move of a chain.

A solver is a value with

    init(x) → carry                         what it keeps between entries of a path
    step(carry, tables, x_t, prediction, t, t_next, noise, *, kind) → (carry, x)
    path(num_steps)                         its entries of a whole chain
    check_path(path)                        refuses paths that are not its own
    reads                                   "mean" or "score": what it moves along
    kinds                                   of entries, where it is more than "step"
    spacing                                 its usual one of `respacing.SPACINGS`, where
                                            it is not "even"
    entries_per_step                        where it is not 1

and is a pytree: its numbers are leaves, so that one compiled chain serves them all.
There is one evaluation of the network per entry. A solver that evaluates twice (Heun)
takes two entries, "predict" and "correct", and keeps x_t and the first slope in its
carry; a multistep solver keeps earlier predictions there. A new solver is a class here
or in a file of its own, and an entry of `SOLVERS`.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from ddpm_jax.core import arrays, errors
from ddpm_jax.diffusion import higher_order, process
from ddpm_jax.diffusion.paths import STEP, encoding_path, sampling_path


class Memoryless:
    """A solver of first order: it keeps nothing from one entry to the next.

    A subclass says what an entry does: `(tables, x_t, prediction, t, t_next, noise) →
    x`, with t and t_next int32 [B], t_next = −1 meaning ᾱ = 1 and no noise.
    """

    def path(self, num_steps):
        """Return every step of the process, downward."""
        return sampling_path(num_steps)

    def init(self, x):
        """Return the empty carry."""
        del x
        return ()

    def step(self, carry, tables, x_t, prediction, t, t_next, noise, *, kind):
        """Return the carry as it was and the next state."""
        del kind
        return carry, self(tables, x_t, prediction, t, t_next, noise)


def _value(data_fields=(), meta_fields=()):
    """Register a frozen dataclass as a pytree."""
    return functools.partial(
        jax.tree_util.register_dataclass,
        data_fields=list(data_fields),
        meta_fields=list(meta_fields),
    )


@_value()
@dataclasses.dataclass(frozen=True)
class Ancestral(Memoryless):
    """x_{t−1} = μ + σ z, and μ at the last step (DDPM algorithm 2)."""

    reads = "mean"

    def __call__(self, tables, x_t, prediction, t, t_next, noise):
        del tables
        is_last = arrays.expand_to(t_next < 0, x_t)
        sigma = jnp.where(is_last, 0.0, jnp.exp(0.5 * prediction.log_var))
        return prediction.mean + sigma * noise

    def check_path(self, path):
        """Refuse a path that skips timesteps: respace the process instead."""
        for t, t_next, kind, *_ in path:
            if kind == STEP and t_next != t - 1:
                raise errors.Refusal(
                    f"ancestral step from t = {t} to {t_next}: it goes to {t - 1} "
                    "only; respace the process, or use a DDIM step"
                )


@_value(["eta_squared"])
@dataclasses.dataclass(frozen=True)
class Ddim(Memoryless):
    """x = √ᾱ_n x̂_0 + √(1−ᾱ_n−σ²) ε̂ + σ z (Song et al. 2021, eq. 12 and 16).

    η = 0 is deterministic; η = 1 has the variance β̃ of the posterior. η² is kept, which
    is rounded once.
    """

    eta_squared: float | jax.Array = 0.0
    reads = "score"

    def __call__(self, tables, x_t, prediction, t, t_next, noise):
        sqrt_next, one_minus_next = process.marginal(tables, t_next, x_t)
        one_minus = process.at(tables.one_minus_alpha_bar, t, x_t)
        log_next = jnp.where(t_next < 0, 0.0, tables.log_alpha_bar[t_next])
        log_ratio = arrays.expand_to(tables.log_alpha_bar[t] - log_next, x_t)
        # σ² = η² (1−ᾱ_n)/(1−ᾱ_t) · (1 − ᾱ_t/ᾱ_n), the last factor by expm1
        share = self.eta_squared
        variance = share * one_minus_next / one_minus * -jnp.expm1(log_ratio)
        direction = jnp.sqrt(jnp.maximum(one_minus_next - variance, 0.0))
        x = sqrt_next * prediction.x_0 + direction * prediction.noise
        is_deterministic = isinstance(share, float) and share == 0
        return x if is_deterministic else x + jnp.sqrt(variance) * noise

    def check_path(self, path):
        """Refuse an upward step with noise: use `reverse_ddim` or "renoise"."""
        for t, t_next, kind, *_ in path:
            if kind == STEP and t_next >= t:
                raise errors.Refusal(
                    f"DDIM step upward from t = {t} to {t_next}: use reverse_ddim() "
                    "to encode, or kind 'renoise' to add noise"
                )


@_value()
@dataclasses.dataclass(frozen=True)
class ReverseDdim(Memoryless):
    """One deterministic step upward in t, which encodes (Song et al. 2021, 4.3)."""

    reads = "score"

    def path(self, num_steps):
        """Return the T′−1 steps upward."""
        return encoding_path(num_steps)

    def __call__(self, tables, x_t, prediction, t, t_next, noise):
        del t, noise
        sqrt_next, one_minus_next = process.marginal(tables, t_next, x_t)
        return sqrt_next * prediction.x_0 + jnp.sqrt(one_minus_next) * prediction.noise

    def check_path(self, path):
        """Refuse a step that does not go upward."""
        for t, t_next, kind, *_ in path:
            if kind == STEP and t_next <= t:
                raise errors.Refusal(
                    f"reverse DDIM step from t = {t} to {t_next}: it encodes, so "
                    "t_next must be larger; use encoding_path()"
                )


def ancestral() -> Ancestral:
    """Return DDPM's stochastic step."""
    return Ancestral()


def ddim(eta: float = 0.0) -> Ddim:
    """Return the DDIM step with noise share η in [0, 1], a number or a traced one."""
    share = arrays.number(eta)
    if share is None:  # traced
        return Ddim(eta**2)
    if not 0 <= share <= 1:
        raise errors.Refusal(f"eta {eta}: choose 0 (deterministic) … 1 (as ancestral)")
    return Ddim(share**2)


def reverse_ddim() -> ReverseDdim:
    """Return the encoding step; give `samplers.sample` the `encoding_path`."""
    return ReverseDdim()


# By sampling.method; each takes the settings that its signature names.
SOLVERS = {
    "ancestral": ancestral,
    "ddim": ddim,
    "heun": higher_order.heun,
    "dpmpp_2m": higher_order.dpmpp_2m,
    "dpmpp_2s": higher_order.dpmpp_2s,
}
# By the sampling.method that decodes what they encode: names of `ENCODERS`.
ENCODER_OF = {
    "ddim": "reverse_ddim",
    "heun": "reverse_heun",
    "dpmpp_2m": "reverse_dpmpp_2m",
}
ENCODERS = {
    "reverse_ddim": reverse_ddim,
    "reverse_heun": higher_order.reverse_heun,
    "reverse_dpmpp_2m": higher_order.reverse_dpmpp_2m,
}
