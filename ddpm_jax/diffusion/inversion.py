"""Inversion: the latents from which a chain returns a given image.

Deterministic: `reverse_ddim` on `samplers.encoding_path` takes an image, as the state
at t = 0, to T′−1; `decoding_path` goes back to t = 0. Stochastic: `noise_maps` finds
the noise of every step, and is exact for any network.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.core import arrays, errors
from ddpm_jax.core.types import NoiseFn
from ddpm_jax.diffusion import process, reverse, samplers, solvers


def decoding_path(num_steps: int, step=None) -> samplers.Path:
    """Return T′−1 → … → 1 → 0, which undoes `samplers.encoding_path`.

    The last denoising, to t = −1, is left out: encoding takes the image for the state
    at t = 0 and has not undone it. With it, every solver is off by the same.

    Args:
        num_steps: T′, at least 2.
        step: a solver whose own path is cut; DDIM's by default.

    Raises:
        Refusal: fewer than 2 steps.
    """
    if num_steps < 2:
        raise errors.Refusal(
            f"{num_steps} steps to encode and decode with: take at least 2, as a chain "
            "of one step has nothing between the image and its latent"
        )
    whole = samplers.sampling_path(num_steps) if step is None else step.path(num_steps)
    return tuple(entry for entry in whole if entry[1] >= 0)


class NoiseMaps(NamedTuple):
    """What a stochastic chain needs to return an image.

    Attributes:
        x_start: [B, ..., C], the state at the first t of the path.
        noise: [N, B, ..., C], of the N entries of the path; 0 for the last.
        residual: [B, ..., C], what the last step, which takes no noise, leaves of the
            image.
    """

    x_start: jax.Array
    noise: jax.Array
    residual: jax.Array


def noise_maps(
    tables: process.Tables,
    denoise: reverse.Denoiser,
    x_0,
    *,
    step,
    noise_fn: NoiseFn,
    path: samplers.Path | None = None,
    plain: reverse.Denoiser | None = None,
) -> NoiseMaps:
    """Return the noise with which a stochastic chain returns x_0.

    States are drawn from q(x_t | x_0) independently of each other, and the noise of
    each step is what takes one to the next. It is therefore larger than what the chain
    itself draws, is correlated from step to step, and imprints the image on what the
    chain makes under another condition. Each step starts where the chain will be, so
    that rounding does not add up.

    Give `x_start` as x_T, `noise` as the chain's noise, and `with_residual` as a step
    transform.

    Args:
        tables: the (respaced) process.
        denoise: `(x_t, t) → Prediction`, guided or not.
        x_0: [B, ..., C].
        step: `ancestral()`, or `ddim(eta)` with η > 0.
        noise_fn: position → noise [B, ..., C], N + 1 of them: position 0 is x_start,
            position k+1 the state after entry k of the path.
        path: down to −1; the solver's own by default. To start at t instead of T′−1,
            `samplers.sampling_path(t + 1)`.
        plain: the denoiser of entries that are not guided; None where all are.

    Raises:
        Refusal: a step without noise, or a path that does not end at −1.

    Reference: Huberman-Spiegelglas et al. 2024, algorithm 1.
    """
    path = tuple(step.path(tables.num_steps) if path is None else path)
    samplers.check(tables.num_steps, denoise, step, path)
    reverse.check_process(tables, denoise)
    _check_noisy(step, path)

    def drawn(t, position):
        return process.q_sample(tables, x_0, t, noise_fn(position))

    def body(x, numbered):
        position, entry = numbered
        t, t_next = (jnp.full(x.shape[0], v) for v in (entry.t, entry.t_next))
        if plain is None:
            prediction = denoise(x, t)
        else:
            prediction = jax.lax.cond(entry.guided, denoise, plain, x, t)

        def move(noise):
            return step(tables, x, prediction, t, t_next, noise)

        nothing = jnp.zeros_like(x)
        mean, std = jax.jvp(move, (nothing,), (jnp.ones_like(x),))
        gap = drawn(jnp.maximum(t_next, 0), position + 1) - mean
        noise = jnp.where(std > 0, gap / jnp.where(std > 0, std, 1.0), 0.0)
        return move(noise), noise

    x_start = drawn(jnp.full(x_0.shape[0], path[0][0]), 0)
    numbered = (np.arange(len(path), dtype=np.int32), samplers.entries(path))
    end, noise = jax.lax.scan(body, x_start, numbered)
    return NoiseMaps(x_start, noise, x_0 - end)


def with_residual(residual) -> samplers.StepTransform:
    """Return the step transform that adds the residual of `noise_maps` at the end.

    Args:
        residual: [B, ..., C].
    """

    def transform(x, t_next, noise):
        del noise
        return x + jnp.where(arrays.expand_to(t_next < 0, x), residual, 0.0)

    return transform


def _check_noisy(step, path):
    """Refuse steps and paths whose noise cannot be solved for."""
    if not isinstance(step, solvers.Memoryless) or any(
        kind != samplers.STEP for _, _, kind, *_ in path
    ):
        raise errors.Refusal(
            f"noise maps of {type(step).__name__} on a path with other entries than "
            "'step', or with memory: use ancestral() or ddim(eta) with eta > 0"
        )
    if path[-1][1] >= 0:
        raise errors.Refusal(
            f"noise maps of a path that ends at t = {path[-1][1]}: end it at −1, where "
            "the image is"
        )
    eta_squared = getattr(step, "eta_squared", 1.0)
    if isinstance(eta_squared, float) and eta_squared == 0:
        raise errors.Refusal(
            "noise maps of a DDIM step with eta 0, which takes no noise: choose eta "
            "up to 1, or encode with reverse_ddim()"
        )
