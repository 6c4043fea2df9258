"""How much a condition changes what a network predicts; 0 means that it is ignored."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.core import conditions, keys
from ddpm_jax.diffusion import process, reverse
from ddpm_jax.metrics import validation
from ddpm_jax.runtime import sharding

NAME = "sensitivity"
QUARTERS = tuple(f"{NAME}_q{q}" for q in range(4))
MATTERS = 0.02  # change of the noise, in some quarter of t, below which it hardly does


def make_sensitivity(
    schedule: process.Schedule,
    apply,
    specs: conditions.Specs,
    *,
    prediction: str,
    variance: str,
    images: np.ndarray,
    condition: dict[str, np.ndarray],
    seed: int,
    mesh,
    batch_size: int,
    timesteps_per_image: int = 4,
):
    """Return `params → dict`: "sensitivity", and by quarter of t "sensitivity_q0" … .

    It is the mean over fixed pairs of image and timestep of ‖ε(c) − ε(∅)‖ / ‖ε(∅)‖,
    where ε is the predicted noise at the same x_t, c the condition of the image and ∅
    none.

    Args:
        schedule: the process that the network is trained on.
        apply: `(params, x, t_seen, condition) → output`.
        specs: of the condition; at least one key has a value for "no condition".
        prediction, variance: what the output means.
        images: float32 [n, ..., C] in [−1, 1].
        condition: arrays [n, ...] by key.
        seed: of the noise.
        mesh: devices to share each batch.
        batch_size: pairs at a time, a multiple of the devices; changes no value.
        timesteps_per_image: two evaluations of the network for each.
    """
    tables = process.tables(schedule)
    fixed = validation.pairs(len(images), timesteps_per_image, schedule.num_steps)

    def noise_of(params, condition, x_t, t):
        denoise = reverse.denoiser(
            tables,
            lambda x, t_seen: apply(params, x, t_seen, condition),
            prediction=prediction,
            variance=variance,
        )
        return denoise(x_t, t).noise

    def ratio(params, batch):
        stream = keys.key_for(seed, "validate/noise", index=batch["index"])
        stream = keys.fold_in_each(stream, batch["part"])
        x_0, t, given = batch["image"], batch["t"], batch["condition"]
        x_t = process.q_sample(tables, x_0, t, keys.normal_each(stream, x_0.shape[1:]))
        with_text = noise_of(params, given, x_t, t)
        without_text = noise_of(params, conditions.without(specs, given), x_t, t)
        return _norm(with_text - without_text) / jnp.maximum(_norm(without_text), 1e-12)

    program = jax.jit(ratio, out_shardings=sharding.replicated(mesh))

    def measure(params) -> dict:
        parts = [
            np.asarray(program(params, batch))[:kept]
            for batch, kept in validation.batches(
                fixed, images, condition, mesh, batch_size
            )
        ]
        values = np.concatenate(parts).astype(np.float64)
        return validation.means(NAME, values, fixed.t, schedule.num_steps)

    return measure


def largest(record: Mapping[str, float | None]) -> float | None:
    """Return the largest sensitivity of any quarter of t in a record, None without."""
    values = [record[name] for name in QUARTERS if record.get(name) is not None]
    return max(values, default=None)


def _norm(x):
    return jnp.sqrt(jnp.sum(x**2, axis=tuple(range(1, x.ndim))))
