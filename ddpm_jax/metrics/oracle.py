"""Gaussian data, for which the exact denoiser and the law of every sampler are known.

For x_0 ~ N(m, s²), coordinate by coordinate, x_t = √ᾱ x_0 + √(1−ᾱ) ε is Gaussian too,
and E[x_0 | x_t] = m + k (x_t − √ᾱ m) with k = √ᾱ s² / (ᾱ s² + 1−ᾱ). With this denoiser
every step of a sampler maps Gaussians to Gaussians by an affine rule: a x + b + c·noise
takes mean and variance (μ, v) to (a μ + b, a² v + c²). What samples must look like is
therefore known for any number of steps, and a sampler can be proved on any machine.

Where no noise is added, a sampler of any order with any memory makes a x_T + b: its
rule is followed for the two rows (a, b) instead.
"""

import itertools
import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from ddpm_jax.core import errors
from ddpm_jax.diffusion import process

ROUNDINGS = 2  # of x̂_0 from ε̂, in quadrature, each of half a unit in the last place


class Gaussian(NamedTuple):
    """A normal distribution of independent coordinates: mean and variance, [C]."""

    mean: np.ndarray
    var: np.ndarray


DATA = Gaussian(
    mean=np.array([0.0, 0.4, -0.7, 0.2]), var=np.array([1.0, 0.5, 0.15, 0.05]) ** 2
)
"""Coordinates from noise-like to narrow; the last are the hard ones."""


def noise_network(data: Gaussian, schedule: process.Schedule):
    """Return the exact `(x_t [B, ..., C], t_seen [B]) → noise` of these data.

    Args:
        data: the distribution of x_0.
        schedule: the whole process; the network serves all its respacings.
    """
    signal = np.sqrt(schedule.alpha_bar)[:, None]  # [T, C] from here on
    noise_var = 1 - signal**2
    # E[ε | x_t] = √(1−ᾱ) (x_t − √ᾱ m) / (ᾱ s² + 1−ᾱ)
    slope = np.sqrt(noise_var) / (signal**2 * data.var + noise_var)
    intercept = -slope * signal * data.mean
    slope, intercept = (jnp.asarray(v, jnp.float32) for v in (slope, intercept))

    def network(x_t, t_seen):
        rows = (-1, *[1] * (x_t.ndim - 2), x_t.shape[-1])
        return intercept[t_seen].reshape(rows) + slope[t_seen].reshape(rows) * x_t

    return network


def sample_law(
    data: Gaussian,
    schedule: process.Schedule,
    *,
    method: str,
    eta: float = 0.0,
    temperature: float = 1.0,
) -> Gaussian:
    """Return the law of samples that start from N(0, temperature² I), in float64.

    Args:
        data: the distribution of x_0, known to the denoiser.
        schedule: the respaced process.
        method: one of `METHODS`; "ancestral" is with the small variance β̃.
        eta: share of noise of ddim.
        temperature: factor of x_T.

    Raises:
        Refusal: a method whose law is not known.

    Reference: DDPM (Ho et al. 2020) eq. 7; DDIM (Song et al. 2021) eq. 12 and 16; those
    of the other methods are in `FLOWS`.
    """
    errors.choose("sampling method", METHODS, method)
    alpha_bar = schedule.alpha_bar
    if method in FLOWS:
        return _deterministic_law(data, alpha_bar, FLOWS[method], temperature)
    rule = RULES[method]
    before = np.append(1.0, alpha_bar[:-1])
    mean, var = np.zeros_like(data.mean), np.full_like(data.var, temperature**2)
    for now, then in zip(alpha_bar[::-1], before[::-1], strict=True):
        k = np.sqrt(now) * data.var / (now * data.var + 1 - now)
        of_x_0, of_x_t, added = rule(now, then, eta)
        slope = of_x_0 * k + of_x_t
        mean = slope * mean + of_x_0 * (1 - k * np.sqrt(now)) * data.mean
        var = slope**2 * var + added
    return Gaussian(mean, var)


def _ancestral_rule(now, then, eta):
    """Return the weights of x̂_0 and x_t and the variance of one step."""
    del eta
    alpha = now / then
    of_x_0 = np.sqrt(then) * (1 - alpha) / (1 - now)
    of_x_t = np.sqrt(alpha) * (1 - then) / (1 - now)
    return of_x_0, of_x_t, (1 - then) / (1 - now) * (1 - alpha)


def _ddim_rule(now, then, eta):
    added = eta**2 * (1 - then) / (1 - now) * (1 - now / then)
    direction = np.sqrt(1 - then - added) / np.sqrt(1 - now)  # x_t − √ᾱ x̂_0 → noise
    return np.sqrt(then) - direction * np.sqrt(now), direction, added


# First order → the weights of x̂_0 and x_t and the variance of a step.
RULES = {"ancestral": _ancestral_rule, "ddim": _ddim_rule}


# ---- without noise -------------------------------------------------------------------


def _deterministic_law(data, alpha_bar, flow, temperature):
    """Return the law of a x_T + b; `flow` moves the rows a and b, [2, C]."""

    def estimate(x, now):
        k = np.sqrt(now) * data.var / (now * data.var + 1 - now)
        return k * x + np.stack([0 * data.mean, (1 - k * np.sqrt(now)) * data.mean])

    x = np.stack([np.ones_like(data.mean), np.zeros_like(data.mean)])
    scale, mean = estimate(flow(alpha_bar[::-1], estimate, x), alpha_bar[0])
    return Gaussian(mean, (scale * temperature) ** 2)


def _first_order(x, x_0, now, then):
    """Return DDIM's move; it exists where ᾱ = 0 too."""
    return np.sqrt(then) * x_0 + np.sqrt((1 - then) / (1 - now)) * (
        x - np.sqrt(now) * x_0
    )


def _heun_flow(levels, estimate, x):
    """Move x along `levels` of ᾱ, ascending (Karras et al. 2022, algorithm 1)."""
    for now, then in itertools.pairwise(levels):
        predicted = _first_order(x, estimate(x, now), now, then)
        if now == 0:  # y and s are infinite
            x = predicted
            continue
        s, s_then = np.sqrt(1 / now - 1), np.sqrt(1 / then - 1)
        y, y_then = x / np.sqrt(now), predicted / np.sqrt(then)
        slope = (y - estimate(x, now)) / s
        slope_then = (y_then - estimate(predicted, then)) / s_then
        x = np.sqrt(then) * (y + (s_then - s) * (slope + slope_then) / 2)
    return x


def _logsnr(level):
    with np.errstate(divide="ignore"):
        return np.log(level / (1 - level)) / 2


def _data_step(x, direction, now, then):
    """Move x with D in the place of x̂_0 (Lu et al. 2022, DPM-Solver++, eq. 9)."""
    h = _logsnr(then) - _logsnr(now)
    ratio = np.sqrt((1 - then) / (1 - now))
    return ratio * x - np.sqrt(then) * np.expm1(-h) * direction


def _dpmpp_2m_flow(levels, estimate, x):
    """Move x along `levels` of ᾱ, ascending (Lu et al. 2022, algorithm 2)."""
    before = None
    for now, then in itertools.pairwise(levels):
        x_0 = direction = estimate(x, now)
        if before is not None:
            level, x_0_before = before
            h, h_before = _logsnr(then) - _logsnr(now), _logsnr(now) - _logsnr(level)
            r = h_before / h
            direction = (1 + 1 / (2 * r)) * x_0 - x_0_before / (2 * r)
        x = _data_step(x, direction, now, then)
        before = now, x_0
    return x


def _dpmpp_2s_flow(levels, estimate, x):
    """Move x along `levels` of ᾱ, two at a time (Lu et al. 2022, algorithm 1)."""
    if len(levels) % 2 == 0:
        x = _first_order(x, estimate(x, levels[0]), *levels[:2])
        levels = levels[1:]
    for now, middle, then in zip(
        levels[:-2:2], levels[1::2], levels[2::2], strict=True
    ):
        x_0 = estimate(x, now)
        u = _data_step(x, x_0, now, middle)
        if now == 0:
            x = _first_order(u, estimate(u, middle), middle, then)
            continue
        h = _logsnr(then) - _logsnr(now)
        r = (_logsnr(middle) - _logsnr(now)) / h
        direction = (1 - 1 / (2 * r)) * x_0 + estimate(u, middle) / (2 * r)
        x = _data_step(x, direction, now, then)
    return x


# Second order → its moves from x_T to t = 0; the last move returns x̂_0.
FLOWS = {
    "heun": _heun_flow,
    "dpmpp_2m": _dpmpp_2m_flow,
    "dpmpp_2s": _dpmpp_2s_flow,
}
METHODS = {**RULES, **FLOWS}


class Deviation(NamedTuple):
    """How far samples are from a law, in standard errors of the worst coordinate.

    Infinite for samples that hold NaN.
    """

    mean: float
    var: float


def deviation(
    samples, law: Gaussian, schedule: process.Schedule | None = None
) -> Deviation:
    """Compare samples [N, C] with the law that they should have.

    Args:
        samples: independent draws.
        law: mean and variance, from `sample_law`.
        schedule: the respaced process of a chain in float32: what rounding may do to
            x̂_0 = (x_t − √(1−ᾱ) ε̂) / √ᾱ at its first step is then allowed for.
    """
    samples = np.asarray(samples, np.float64)
    count = len(samples)
    rounding = 0.0
    if schedule is not None:
        rounding = ROUNDINGS * 2**-24 / np.sqrt(schedule.alpha_bar[-1])
    spread = np.sqrt(law.var)
    mean_error = np.abs(samples.mean(axis=0) - law.mean) - rounding
    var_error = np.abs(samples.var(axis=0) - law.var)
    var_error -= rounding * (2 * spread + rounding)
    return Deviation(
        mean=_worst(mean_error / (spread / np.sqrt(count))),
        var=_worst(var_error / (law.var * np.sqrt(2 / count))),
    )


def _worst(errors_of):
    """Return the largest, from 0 on, and infinity for NaN, which `max` would drop."""
    worst = float(np.max(errors_of))
    return math.inf if math.isnan(worst) else max(0.0, worst)
