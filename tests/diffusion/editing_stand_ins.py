"""Denoisers that the tests of editing share: exact for a Gaussian, and of images."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from chains import normals
from reference import inpainting as ref

from ddpm_jax.diffusion import (
    inpainting,
    process,
    respacing,
    reverse,
    samplers,
    schedules,
)

# ---- correlated pairs: the first coordinate is known ---------------------------------

LENGTH = 1000
HOLE = np.array([False, True])
SCHEDULE = process.Schedule.from_betas(schedules.make_betas("linear", LENGTH))


def respaced(num_steps):
    return respacing.respace(SCHEDULE, "" if num_steps == LENGTH else num_steps)


def exact_matrices(rho):
    """[T, 2, 2], noise = matrix x_t of the whole process."""
    return np.float32(
        [-np.sqrt(1 - at) * ref.score(at, rho) for at in SCHEDULE.alpha_bar]
    )


@functools.cache
def program(method, variance, count):
    """Return one compiled program of a method: path, ρ, y and process are data."""

    def chain(tables, matrices, y, measurement_std, entries, stop, solver):
        def network(x_t, t_seen):
            return jnp.einsum("bij,bj->bi", matrices[t_seen], x_t)

        known = jnp.stack([y, jnp.nan])  # what lies in the hole is not used
        denoise = reverse.Denoiser(tables, network, "noise", variance, ())
        if method == "replace":
            step_transform = inpainting.known_region(tables, known, HOLE)
        else:
            step_transform = inpainting.pasted(known, HOLE)
            denoise = inpainting.reconstruction(
                tables,
                known,
                HOLE,
                likelihood=method,
                measurement_std=measurement_std,
            )(denoise)
        draws = [stream(seed, (count, 2)) for seed in range(2)]
        loop = samplers.Loop(
            tables,
            denoise,
            solver,
            draws[0],
            np.zeros(0, np.int32),
            frozenset((samplers.STEP, samplers.RENOISE)),
            step_transforms=(step_transform,),
            transform_noise_fns=(draws[1],),
        )
        return samplers.run(loop, draws[0](10**6), entries, stop).x

    return jax.jit(chain)


def stream(seed, shape):
    key = jax.random.key(seed)
    return lambda position: jax.random.normal(jax.random.fold_in(key, position), shape)


def samples(
    method,
    rho,
    y,
    *,
    num_steps,
    path=None,
    solver=None,
    variance="fixed_small",
    measurement_std=0.0,
    count=12_000,
):
    schedule = respaced(num_steps)
    path = samplers.sampling_path(num_steps) if path is None else path
    entries = samplers.entries(path, LENGTH * -(-len(path) // LENGTH))
    made = program(method, variance, count)(
        process.padded_tables(schedule, LENGTH),
        exact_matrices(rho),
        jnp.float32(y),
        jnp.float32(measurement_std),
        entries,
        np.int32(len(path)),
        samplers.ancestral() if solver is None else solver,
    )
    return np.asarray(made, np.float64)


# ---- images: a network with a symmetric derivative, as an exact denoiser's -----------

IMAGE = (2, 3, 1)
WEIGHT = np.linalg.qr(normals(6, 6, seed=3).astype(np.float64))[0] * 1.5
BIAS = np.linspace(-0.6, 0.6, 6)
IMAGE_HOLE = np.array([[1, 0, 0], [0, 1, 0]], bool)[..., None]


def potential_gradient(x, t, xp=np):
    """x̂_0 = W tanh(Wᵀ x + b)/1.5, the gradient of a convex function."""
    shift = xp.asarray(BIAS) + t / 1000
    return (xp.tanh(x @ WEIGHT + shift) @ WEIGHT.T) / 1.5


def image_network(x_t, t_seen):
    flat = x_t.reshape(x_t.shape[0], -1)
    time = jnp.asarray(t_seen, jnp.float32)[:, None]
    x_0 = potential_gradient(flat, time, jnp)
    return x_0.astype(jnp.float32).reshape(x_t.shape)
