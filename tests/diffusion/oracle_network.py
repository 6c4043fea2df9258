"""The Gaussian oracle as a network of the package."""

import jax.numpy as jnp
import numpy as np
from reference import oracle as ref_oracle
from reference import process as ref_process

from ddpm_jax.diffusion import process, respacing, schedules

MEAN = (0.0, 0.4, -0.7, 0.2)
STD = (1.0, 0.5, 0.15, 0.05)


def build(name, num_steps, spec="", mean=MEAN, std=STD, **options):
    """Return the package's tables and the oracle of the same betas."""
    betas = schedules.make_betas(name, num_steps, **options)
    schedule = process.Schedule.from_betas(betas)
    schedule = respacing.respace(schedule, spec)
    reference = ref_process.Process(schedule.betas)
    return process.tables(schedule), ref_oracle.Oracle(reference, mean, std)


def network(tables, oracle, prediction, log_var=None, variance=None):
    """Return `(x_t, t_seen) → output`: the regression line, and a variance half.

    Args:
        log_var: [T, C] for the second half of the channels, as `variance` writes it.
    """
    seen = np.asarray(tables.timesteps_seen)
    line = oracle.optimal(prediction)
    intercept, slope = (jnp.asarray(v, jnp.float32) for v in line)
    half = None
    if variance == "learned":
        half = jnp.asarray(log_var, jnp.float32)
    elif variance == "learned_range":
        low = oracle.process.posterior_log_var[:, None]
        high = np.log(oracle.process.beta)[:, None]
        half = jnp.asarray(2 * (log_var - low) / (high - low) - 1, jnp.float32)

    def apply(x_t, t_seen):
        k = jnp.searchsorted(jnp.asarray(seen), t_seen)
        output = intercept[k] + slope[k] * x_t
        if half is None:
            return output
        return jnp.concatenate([output, half[k]], axis=-1)

    return apply
