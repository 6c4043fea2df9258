"""Samplers: step functions under one compiled scan over an explicit path.

A path is a list of (t, t_next, kind). Kind "step" evaluates the network at (x_t, t) and
moves to t_next; t_next = −1 means ᾱ = 1 and no noise. Kind "renoise" jumps upward with
a draw of q(x_{t_next} | x_t), without the network.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.core import arrays, errors
from ddpm_jax.core.types import NoiseFn
from ddpm_jax.diffusion import process, reverse

STEP, RENOISE = "step", "renoise"

Path = Sequence[tuple[int, int, str]]
PredictionTransform = Callable[
    [jax.Array, jax.Array, reverse.Prediction], reverse.Prediction
]
StepTransform = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""`(x, t_next, noise) → x`, on x_T first and after every step."""


# ---- steps: (tables, x_t, prediction, t, t_next, noise) → x --------------------------
# `reads` says which field of the prediction a step moves along ("mean" or "score").


@dataclasses.dataclass(frozen=True)
class Ancestral:
    """x_{t−1} = μ + σ z, and μ at the last step (DDPM algorithm 2)."""

    reads = "mean"

    def __call__(self, tables, x_t, prediction, t, t_next, noise):
        del tables
        is_last = arrays.expand_to(t_next < 0, x_t)
        sigma = jnp.where(is_last, 0.0, jnp.exp(0.5 * prediction.log_var))
        return prediction.mean + sigma * noise

    def check_path(self, path):
        """Refuse a path that skips timesteps: respace the process instead."""
        for t, t_next, kind in path:
            if kind == STEP and t_next != t - 1:
                raise errors.Refusal(
                    f"ancestral step from t = {t} to {t_next}: it goes to {t - 1} "
                    "only; respace the process, or use a DDIM step"
                )


@dataclasses.dataclass(frozen=True)
class Ddim:
    """x = √ᾱ_n x̂_0 + √(1−ᾱ_n−σ²) ε̂ + σ z (Song et al. 2021, eq. 12 and 16).

    η = 0 is deterministic; η = 1 has the variance β̃ of the posterior.
    """

    eta: float = 0.0
    reads = "score"

    def __call__(self, tables, x_t, prediction, t, t_next, noise):
        sqrt_next, one_minus_next = _marginal(tables, t_next, x_t)
        one_minus = process.at(tables.one_minus_alpha_bar, t, x_t)
        log_next = jnp.where(t_next < 0, 0.0, tables.log_alpha_bar[t_next])
        log_ratio = arrays.expand_to(tables.log_alpha_bar[t] - log_next, x_t)
        # σ² = η² (1−ᾱ_n)/(1−ᾱ_t) · (1 − ᾱ_t/ᾱ_n), the last factor by expm1
        variance = self.eta**2 * one_minus_next / one_minus * -jnp.expm1(log_ratio)
        direction = jnp.sqrt(jnp.maximum(one_minus_next - variance, 0.0))
        x = sqrt_next * prediction.x_0 + direction * prediction.noise
        return x if self.eta == 0 else x + jnp.sqrt(variance) * noise

    def check_path(self, path):
        """Refuse an upward step with noise: use `reverse_ddim` or "renoise"."""
        for t, t_next, kind in path:
            if kind == STEP and t_next >= t:
                raise errors.Refusal(
                    f"DDIM step upward from t = {t} to {t_next}: use reverse_ddim() "
                    "to encode, or kind 'renoise' to add noise"
                )


@dataclasses.dataclass(frozen=True)
class ReverseDdim:
    """One deterministic step upward in t, which encodes (Song et al. 2021, 4.3)."""

    reads = "score"

    def __call__(self, tables, x_t, prediction, t, t_next, noise):
        del t, noise
        sqrt_next, one_minus_next = _marginal(tables, t_next, x_t)
        return sqrt_next * prediction.x_0 + jnp.sqrt(one_minus_next) * prediction.noise

    def check_path(self, path):
        """Refuse a step that does not go upward."""
        for t, t_next, kind in path:
            if kind == STEP and t_next <= t:
                raise errors.Refusal(
                    f"reverse DDIM step from t = {t} to {t_next}: it encodes, so "
                    "t_next must be larger; use encoding_path()"
                )


def ancestral() -> Ancestral:
    """Return DDPM's stochastic step."""
    return Ancestral()


def ddim(eta: float = 0.0) -> Ddim:
    """Return the DDIM step with noise share η in [0, 1]."""
    if not 0 <= eta <= 1:
        raise errors.Refusal(f"eta {eta}: choose 0 (deterministic) … 1 (as ancestral)")
    return Ddim(float(eta))


def reverse_ddim() -> ReverseDdim:
    """Return the encoding step; give `sample` the `encoding_path`."""
    return ReverseDdim()


def _marginal(tables, t_next, like):
    """Return √ᾱ and 1−ᾱ at t_next, with ᾱ = 1 at −1 (never index −1)."""
    at_end = t_next < 0
    index = jnp.maximum(t_next, 0)
    sqrt_alpha_bar = jnp.where(at_end, 1.0, tables.sqrt_alpha_bar[index])
    one_minus = jnp.where(at_end, 0.0, tables.one_minus_alpha_bar[index])
    return arrays.expand_to(sqrt_alpha_bar, like), arrays.expand_to(one_minus, like)


# ---- paths ---------------------------------------------------------------------------


def sampling_path(num_steps: int) -> Path:
    """Return T′−1 → T′−2 → … → 0 → −1: every step of the process, downward."""
    return tuple((t, t - 1, STEP) for t in range(num_steps - 1, -1, -1))


def encoding_path(num_steps: int) -> Path:
    """Return 0 → 1 → … → T′−1, the T′−1 steps upward of reverse DDIM.

    The step beyond T′−1 is left out: it adds visible noise (ADM appendix).
    """
    return tuple((t, t + 1, STEP) for t in range(num_steps - 1))


# ---- the loop ------------------------------------------------------------------------


class Sampled(NamedTuple):
    """The end of a chain, and what it looked like on the way.

    `x` [B, ..., C] is the final state (x_0 after a sampling path). `trajectory` and
    `trajectory_x_0` [S, B, ..., C] hold the state after each requested position and
    the x̂_0 of that position; they are None where none was requested.
    """

    x: jax.Array
    trajectory: jax.Array | None
    trajectory_x_0: jax.Array | None

    @property
    def x_0(self) -> jax.Array:
        """The final state, by the name that it has after a sampling path."""
        return self.x


def sample(
    tables: process.Tables,
    denoise: reverse.Denoiser,
    *,
    step,
    x_T,
    noise_fn: NoiseFn,
    prediction_transforms: Sequence[PredictionTransform] = (),
    step_transforms: Sequence[StepTransform] = (),
    transform_noise_fn: NoiseFn | None = None,
    path: Path | None = None,
    trajectory: Sequence[int] | None = None,
) -> Sampled:
    """Run a chain along a path as one compiled scan.

    Args:
        tables: the (respaced) process.
        denoise: `(x_t, t) → Prediction`.
        step: `ancestral()`, `ddim(eta)` or `reverse_ddim()`.
        x_T: [B, ..., C], the state at the first t of the path.
        noise_fn: position on the path → noise [B, ..., C]; drawn for the last
            position too, where it is not used.
        prediction_transforms: guidance, in order; its form must fit the step.
        step_transforms: act on the state; see `StepTransform`.
        transform_noise_fn: their noise; position 0 is x_T, position k+1 follows
            position k of the path.
        path: default `sampling_path(T′)`.
        trajectory: positions on the path whose results are kept; memory is that of
            the kept ones, whatever the number of steps.

    Raises:
        Refusal: step, path, transforms and hooks that do not belong together.
    """
    path = tuple(sampling_path(tables.num_steps) if path is None else path)
    kept = np.asarray(() if trajectory is None else trajectory, np.int32)
    _check(tables, denoise, step, path, prediction_transforms, kept)
    if step_transforms and transform_noise_fn is None:
        raise errors.Refusal(
            "step_transforms without transform_noise_fn: give them a noise stream"
        )

    has_renoise = any(kind == RENOISE for _, _, kind in path)

    def transform(x, t_next, position):
        for step_transform in step_transforms:
            x = step_transform(x, t_next, transform_noise_fn(position))
        return x

    def take_step(x, t, t_next, noise):
        prediction = denoise(x, t)
        for prediction_transform in prediction_transforms:
            prediction = prediction_transform(x, t, prediction)
        return step(tables, x, prediction, t, t_next, noise), prediction.x_0

    def body(carry, entry):
        x, states, estimates = carry
        position, t, t_next, is_renoise = entry
        t = jnp.full(x.shape[0], t)
        t_next = jnp.full(x.shape[0], t_next)
        arguments = (x, t, t_next, noise_fn(position))
        if has_renoise:
            jump = functools.partial(_renoise, tables)
            x, x_0 = jax.lax.cond(is_renoise, jump, take_step, *arguments)
        else:
            x, x_0 = take_step(*arguments)
        x = transform(x, t_next, position + 1)
        wanted = (kept == position).reshape((-1,) + (1,) * x.ndim)
        states = jnp.where(wanted, x, states)
        estimates = jnp.where(wanted, x_0, estimates)
        return (x, states, estimates), None

    x = transform(x_T, jnp.full(x_T.shape[0], path[0][0]), 0)
    empty = jnp.zeros((len(kept), *x.shape), x.dtype)
    (x, states, estimates), _ = jax.lax.scan(body, (x, empty, empty), _entries(path))
    if trajectory is None:
        return Sampled(x, None, None)
    return Sampled(x, states, estimates)


def _entries(path):
    """Return the path as arrays: position, t, t_next, whether to renoise."""
    return (
        np.arange(len(path), dtype=np.int32),
        np.asarray([t for t, _, _ in path], np.int32),
        np.asarray([t_next for _, t_next, _ in path], np.int32),
        np.asarray([kind == RENOISE for _, _, kind in path]),
    )


def _renoise(tables, x, t, t_next, noise):
    """Draw q(x_{t_next} | x_t) for t_next > t; x stands in for x̂_0 in snapshots."""
    log_ratio = tables.log_alpha_bar[t_next] - tables.log_alpha_bar[t]
    log_ratio = arrays.expand_to(log_ratio, x)
    noisy = jnp.exp(0.5 * log_ratio) * x + jnp.sqrt(-jnp.expm1(log_ratio)) * noise
    return noisy, x


def _check(tables, denoise, step, path, prediction_transforms, kept):
    if not path:
        raise errors.Refusal("an empty path: give at least one (t, t_next, kind)")
    last = tables.num_steps - 1
    for t, t_next, kind in path:
        if kind not in (STEP, RENOISE):
            raise errors.Refusal(f"unknown kind {kind!r}: choose 'step' or 'renoise'")
        if not (0 <= t <= last and -1 <= t_next <= last):
            raise errors.Refusal(
                f"path entry ({t}, {t_next}): t lies in 0 … {last}, t_next in −1 … "
                f"{last}"
            )
        if kind == RENOISE and t_next <= t:
            raise errors.Refusal(
                f"'renoise' from t = {t} to {t_next}: it adds noise, so t_next must "
                "be larger"
            )
    step.check_path(path)
    for prediction_transform in prediction_transforms:
        form = "mean" if step.reads == "mean" else "score"
        if getattr(prediction_transform, "form", form) != form:
            raise errors.Refusal(
                f"guidance in {prediction_transform.form!r} form with a step that "
                f"reads the {step.reads}: use form {form!r}"
            )
    if step.reads == "mean" and getattr(denoise, "hooks_miss_mean", False):
        raise errors.Refusal(
            "a hook on x_0 with prediction 'x_prev' and ancestral steps: the mean is "
            "the network's own and the hook would have no effect; use a DDIM step"
        )
    if kept.size and not np.all((kept >= 0) & (kept < len(path))):
        raise errors.Refusal(
            f"trajectory positions {kept.tolist()}: choose among 0 … {len(path) - 1}"
        )
