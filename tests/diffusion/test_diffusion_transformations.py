"""Chains, losses and bounds inside what users put around them: meshes, types, traces.

The value of each is that of the same function by itself, on one device in float32.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chains import make_denoiser, make_tables, mixing, normals
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from ddpm_jax.core import conditions, errors
from ddpm_jax.diffusion import likelihood, losses, process, reverse, samplers

SHAPE = (8, 3, 2)
T = 5
TABLES = make_tables("cosine", 100, T)
DENOISE = make_denoiser(TABLES, prediction="v")
DRAWS = normals(T, *SHAPE, seed=1)
STEPS = {"ancestral": samplers.ancestral(), "ddim": samplers.ddim(0.5)}


def chain(x, draws, step="ddim", **options):
    step = STEPS[step] if isinstance(step, str) else step
    return samplers.sample(
        TABLES, DENOISE, step=step, x_T=x, noise_fn=lambda k: draws[k], **options
    )


def bits(x, draws):
    x = jnp.clip(x, -1, 1)
    return likelihood.bits_per_dim(TABLES, DENOISE, x, noise_fn=lambda k: draws[k])


def loss(x, draws):
    return losses.training_losses(
        TABLES,
        mixing(),
        x,
        jnp.full(x.shape[0], 2),
        draws[0],
        prediction="v",
        variance="fixed_small",
        loss="simple",
    )


FUNCTIONS = {
    "ancestral": lambda x, draws: chain(x, draws, "ancestral").x,
    "ddim": lambda x, draws: chain(x, draws, trajectory=[1]).x,
    "trajectory": lambda x, draws: chain(x, draws, trajectory=[0, 2]).trajectory_x_0[1],
    "bits": lambda x, draws: bits(x, draws).vb,
    "loss": lambda x, draws: loss(x, draws)["loss"],
}


@functools.cache
def alone(name):
    return jax.device_get(jax.jit(FUNCTIONS[name])(normals(*SHAPE), DRAWS))


def mesh(kind, axes=((4, "d"), (2, "m"))):
    sizes, names = zip(*axes, strict=True)
    return jax.make_mesh(sizes, names, axis_types=(kind,) * len(axes))


# What is split over the devices: everything, or one part alone.
SPLITS = [
    *((name, "both") for name in FUNCTIONS),
    *(
        (name, split)
        for name in ("ancestral", "trajectory")
        for split in ("x", "draws")
    ),
]


@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_in_shard_map(name, split):
    if split == "both":
        inside, specs = FUNCTIONS[name], (P("d"), P(None, "d"))
        given = normals(*SHAPE), DRAWS
    else:
        # A part that every device holds alike: the same rows on each of them.
        x = normals(*SHAPE) if split == "x" else np.tile(normals(*SHAPE)[:2], (4, 1, 1))
        draws = DRAWS if split == "draws" else np.tile(DRAWS[:, :2], (1, 4, 1, 1))
        wanted = jax.jit(FUNCTIONS[name])(x, draws)
        given = (x, draws[:, :2]) if split == "x" else (x[:2], draws)
        specs = (P("d"), P()) if split == "x" else (P(), P(None, "d"))
        inside = FUNCTIONS[name]
    mapped = jax.shard_map(
        inside, mesh=mesh(AxisType.Auto), in_specs=specs, out_specs=P("d")
    )
    made = jax.jit(mapped)(*given)
    wanted = alone(name) if split == "both" else wanted
    np.testing.assert_allclose(made, wanted, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_under_an_explicit_mesh(name, split):
    there = mesh(AxisType.Explicit)
    x = jax.device_put(normals(*SHAPE), NamedSharding(there, P("d")))
    draws = jax.device_put(DRAWS, NamedSharding(there, P(None, "d")))
    x = normals(*SHAPE) if split == "draws" else x
    draws = DRAWS if split == "x" else draws
    with jax.set_mesh(there):
        made = jax.jit(FUNCTIONS[name])(x, draws)
    np.testing.assert_allclose(made, alone(name), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("of", ["x", "draws", "network"])
@pytest.mark.parametrize(
    ("step", "dtype"), [("ancestral", jnp.bfloat16), ("ddim", jnp.float16)]
)
def test_narrow_types_make_float32_states(step, dtype, of):
    x, draws = jnp.asarray(normals(*SHAPE)), jnp.asarray(DRAWS)
    x = x.astype(dtype) if of == "x" else x
    draws = draws.astype(dtype) if of == "draws" else draws
    network = mixing()
    if of == "network":

        def network(x_t, t_seen):
            return mixing()(x_t, t_seen).astype(dtype)

    def make(x, draws):
        return samplers.sample(
            TABLES,
            make_denoiser(TABLES, network, prediction="v"),
            step=STEPS[step],
            x_T=x,
            noise_fn=lambda k: draws[k],
        ).x

    made = jax.jit(make)(x, draws)
    assert made.dtype == jnp.float32
    wide = make(x.astype(jnp.float32), draws.astype(jnp.float32))
    np.testing.assert_allclose(made, wide, rtol=1e-3, atol=2e-3)


# ---- traced numbers ------------------------------------------------------------------


def of_hook(hook):
    denoise = reverse.denoiser(
        TABLES, mixing(), prediction="v", variance="fixed_small", x_0_hooks=(hook,)
    )
    return denoise(jnp.asarray(normals(*SHAPE)) * 3, jnp.full(8, 3)).x_0


NUMBERS = {
    "eta": (lambda e: chain(normals(*SHAPE), jnp.asarray(DRAWS), samplers.ddim(e)).x),
    "clip": lambda n: of_hook(reverse.clipping(-n, n)),
    "dynamic_threshold": lambda n: of_hook(reverse.dynamic_thresholding(0.9, 1 + n)),
}


@pytest.mark.parametrize("transformation", ["jit", "vmap", "numpy", "array"])
@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_may_be_traced(name, transformation):
    function = NUMBERS[name]
    wanted = function(0.3)
    if transformation == "vmap":
        made = jax.vmap(function)(jnp.array([0.9, 0.3]))[1]
    else:
        make = {"jit": jax.jit(function)}.get(transformation, function)
        made = make(
            {"numpy": np.float32, "array": jnp.asarray}.get(transformation, float)(0.3)
        )
    np.testing.assert_allclose(made, wanted, rtol=1e-5, atol=1e-5)


def test_gradients_pass_through_a_chain():
    x = jnp.asarray(normals(*SHAPE))
    draws = jnp.asarray(DRAWS)
    slope = jax.jit(jax.grad(lambda x: chain(x, draws).x.sum()))(x)
    direction = jnp.asarray(normals(*SHAPE, seed=8))
    ends = [jnp.sum(chain(x + s * direction, draws).x) for s in (1e-2, -1e-2)]
    measured = float(ends[0] - ends[1]) / 2e-2
    np.testing.assert_allclose(jnp.sum(slope * direction), measured, rtol=0.03)


# ---- misuse that is known before anything runs ---------------------------------------


def at_t(t):
    return {
        "q_sample": lambda: process.q_sample(
            TABLES, jnp.zeros(SHAPE), t, jnp.zeros(())
        ),
        "q_posterior": lambda: process.q_posterior(
            TABLES, jnp.zeros(SHAPE), jnp.zeros(SHAPE), t
        ),
        "denoiser": lambda: DENOISE(jnp.zeros(SHAPE), t),
        "loss": lambda: losses.training_losses(
            TABLES,
            mixing(),
            jnp.zeros(SHAPE),
            t,
            jnp.zeros(SHAPE),
            prediction="v",
            variance="fixed_small",
            loss="simple",
        ),
    }


@pytest.mark.parametrize("entry", at_t(0))
@pytest.mark.parametrize(
    ("t", "words"),
    [
        (np.full(8, T), f"t = {T} .* 0 … {T - 1}"),
        (np.array([0, 0, 0, -1, 0, 0, 0, 0]), f"t = -1 .* 0 … {T - 1}"),
        (np.full(8, 2.0), "float.*int32"),
        (np.zeros(3, int), r"\[3\].*\[8\]"),
    ],
)
@pytest.mark.parametrize("convert", [np.asarray, jnp.asarray])
def test_steps_that_the_process_does_not_have_are_refused(entry, t, words, convert):
    with pytest.raises(errors.Refusal, match=words):
        at_t(convert(t))[entry]()


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, bool])
@pytest.mark.parametrize("name", ["ddim", "loss", "q_sample", "denoiser", "bits"])
def test_whole_numbers_are_no_data(name, dtype):
    x, t = np.ones(SHAPE, dtype), np.zeros(8, int)
    calls = {
        "q_sample": lambda x, draws: process.q_sample(TABLES, x, t, draws[0]),
        "denoiser": lambda x, draws: DENOISE(x, t).x_0,
        "bits": lambda x, draws: likelihood.bits_per_dim(
            TABLES, DENOISE, x, noise_fn=lambda k: draws[k]
        ),
    }
    for traced in (lambda f: f, jax.jit):
        with pytest.raises(errors.Refusal, match=re.escape("x / 127.5 − 1")):
            traced(calls.get(name) or FUNCTIONS[name])(x, jnp.asarray(DRAWS))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: samplers.ddim(np.float64(1.5)), "eta 1.5.*0 .* 1"),
        (lambda: samplers.ddim(jnp.array([0.1, 0.2])), "one number"),
        (lambda: samplers.ddim(None), "one number"),
        (lambda: jax.jit(samplers.ddim)(jnp.array([0.1, 0.2])), "one number"),
        (lambda: reverse.clipping(jnp.float32(1), -1), "clip"),
        (lambda: reverse.dynamic_thresholding(0.9, np.float32(0.5)), "at least 1"),
        (
            lambda: jax.jit(reverse.dynamic_thresholding)(0.9),
            "percentile: give a number",
        ),
    ],
)
def test_numbers_that_mean_nothing_are_refused(make, words):
    with pytest.raises(errors.Refusal, match=words):
        make()


@pytest.mark.parametrize("label", [99, 11, -1])
@pytest.mark.parametrize("convert", [np.asarray, jnp.asarray])
def test_labels_beyond_the_last_are_refused(label, convert):
    specs = {"label": conditions.Spec((), "int32", 10, 11)}
    conditions.check(specs, {"label": convert([0, 10])}, 2)
    with pytest.raises(errors.Refusal, match=rf"{label}: choose 0 … 10.*no condition"):
        conditions.check(specs, {"label": convert([0, label])}, 2)
