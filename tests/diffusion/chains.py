"""Small chains that the sampler tests share."""

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.diffusion import process, respacing, reverse, samplers, schedules

SHAPE = (4, 3, 2)
STEPS = {
    "ancestral": samplers.ancestral(),
    "ddim0": samplers.ddim(eta=0.0),
    "ddim0.5": samplers.ddim(eta=0.5),
    "ddim1": samplers.ddim(eta=1.0),
}


def make_tables(name="linear", num_steps=1000, spec="", **options):
    schedule = process.Schedule.from_betas(
        schedules.make_betas(name, num_steps, **options)
    )
    return process.tables(respacing.respace(schedule, spec))


def normals(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def mixing(width=2, seed=5):
    """A nonlinear network."""
    weight = normals(2, width, seed=seed)

    def network(x_t, t_seen):
        time = jnp.asarray(t_seen, jnp.float32).reshape(-1, 1, 1) / 1000
        return jnp.tanh(x_t @ weight + time)

    return network


def make_denoiser(tables, network=None, *, prediction="x_0", variance="fixed_small"):
    network = mixing() if network is None else network
    return reverse.denoiser(tables, network, prediction=prediction, variance=variance)


def run(tables, denoise, step, *, x_T=None, draws=None, jit=True, **options):
    x_T = normals(*SHAPE) if x_T is None else x_T
    count = len(options.get("path") or range(tables.num_steps))
    draws = normals(count, *x_T.shape, seed=1) if draws is None else draws
    draws = jnp.asarray(draws)

    def chain(x_T):
        return samplers.sample(
            tables, denoise, step=step, x_T=x_T, noise_fn=lambda k: draws[k], **options
        )

    return (jax.jit(chain) if jit else chain)(jnp.asarray(x_T))
