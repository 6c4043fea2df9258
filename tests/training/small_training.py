"""A network that compiles in a moment, and train steps built around it."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ddpm_jax.core import conditions
from ddpm_jax.diffusion import process, schedules, timesteps
from ddpm_jax.runtime import sharding
from ddpm_jax.training import state as state_lib
from ddpm_jax.training import step as step_lib

IMAGE_SHAPE = (8, 8, 1)
PIXELS, WIDTH, BATCH = 64, 64, 16
NUM_CLASSES = 10
NULL = NUM_CLASSES
LABELLED = {"label": conditions.Spec((), "int32", NULL, NULL + 1)}
LEVELS = 17
KEEP = 0.9
# LLVM's optimisations take most of the time of these tests and change no truth in them.
QUICK = {"xla_backend_optimization_level": 0}

SIMPLE = {"prediction": "noise", "variance": "fixed_large", "loss": "simple"}
HYBRID = {
    "prediction": "noise",
    "variance": "learned_range",
    "loss": "rescaled_hybrid",
    "levels": LEVELS,
}


def normals(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def make_tables(num_steps=20):
    betas = schedules.make_betas("cosine", num_steps)
    return process.tables(process.Schedule.from_betas(betas))


def make_batch(size=BATCH, seed=3):
    random = np.random.default_rng(seed)
    grey = random.integers(0, LEVELS, (size, *IMAGE_SHAPE))
    return {
        "image": (grey / 8 - 1).astype(np.float32),
        "label": random.integers(0, NUM_CLASSES, size).astype(np.int32),
    }


def make_params(seed=1, outputs=2):
    """Weights of a perceptron; two of them are large enough to be sharded."""
    return {
        "in": normals(PIXELS, WIDTH, seed=seed) / 8,
        "time": normals(WIDTH, seed=seed + 1),
        "labels": normals(NUM_CLASSES + 1, WIDTH, seed=seed + 2),
        "out": normals(WIDTH, PIXELS * outputs, seed=seed + 3) / 8,
    }


def apply(params, x, t, condition, *, dropout_keys=None):
    """One hidden layer over all pixels, with time, label and dropout."""
    hidden = x.reshape(len(x), -1) @ params["in"]
    hidden += jnp.sin(t / 7.0)[:, None] * params["time"]
    if "label" in condition:
        hidden += params["labels"][condition["label"]]
    hidden = jnp.tanh(hidden)
    if dropout_keys is not None:
        keep = jax.vmap(lambda key: jax.random.bernoulli(key, KEEP, (WIDTH,)))
        hidden = jnp.where(keep(dropout_keys), hidden / KEEP, 0.0)
    return (hidden @ params["out"]).reshape(*x.shape[:-1], -1)


# ---- instruments ---------------------------------------------------------------------


@jax.custom_vjp
def reveal(slot, value):
    """Return 0, and pass −`value` off as the gradient of `slot`.

    After a step of `optax.sgd(1.0)` a slot that was 0 holds the bits of the value that
    the network was given, whatever the compiler made of the rest.
    """
    del slot, value
    return jnp.zeros(())


reveal.defvjp(
    lambda slot, value: (jnp.zeros(()), value),
    lambda value, _: (-value, jnp.zeros_like(value)),
)


def revealing_params(size=BATCH, dropout=True, specs=LABELLED):
    shapes = {"x_t": IMAGE_SHAPE, "t": ()}
    shapes |= {key: spec.shape for key, spec in specs.items()}
    if dropout:
        shapes["dropout_keys"] = (4,)
    slots = {
        name: np.zeros((size, *shape), np.float32) for name, shape in shapes.items()
    }
    return {"network": make_params(), "slots": slots}


def revealing_apply(params, x, t, condition, *, dropout_keys=None):
    """`apply` whose gradient shows its inputs."""
    shown = {"x_t": x, "t": t, **condition}
    if dropout_keys is not None:
        # Halves of the 32-bit words: exact in float32.
        words = jax.random.key_data(dropout_keys)
        shown["dropout_keys"] = jnp.concatenate([words >> 16, words & 0xFFFF], axis=1)
    output = apply(params["network"], x, t, condition, dropout_keys=dropout_keys)
    for name, value in shown.items():
        output += reveal(params["slots"][name], value.astype(jnp.float32))
    return output


def recorder():
    """An Optax transformation that changes nothing and keeps the last gradient."""
    return optax.GradientTransformation(
        lambda params: jax.tree.map(jnp.zeros_like, params),
        lambda gradient, state, params=None: (gradient, gradient),
    )


class Seen(NamedTuple):
    """A timestep sampler's state, and the (t, loss) of its last update."""

    inner: object
    t: jax.Array
    loss: jax.Array


class Recording:
    """A timestep sampler that also keeps what it was told."""

    def __init__(self, sampler, size=BATCH):
        self.sampler, self.size = sampler, size

    def init(self):
        nothing = jnp.zeros(self.size)
        return Seen(self.sampler.init(), nothing.astype(jnp.int32), nothing)

    def sample(self, state, key, n):
        return self.sampler.sample(state.inner, key, n)

    def update(self, state, t, loss):
        return Seen(self.sampler.update(state.inner, t, loss), t, loss)


# ---- assembling ----------------------------------------------------------------------


def meshes(quick, other):
    """Parameters of a test: meshes (data, fsdp), those after `quick` marked slow."""
    return [
        pytest.param(shape, id=f"{shape[0]}x{shape[1]}", marks=marks)
        for shapes, marks in ((quick, ()), (other, pytest.mark.slow))
        for shape in shapes
    ]


def make_mesh(shape):
    count = shape[0] * shape[1]
    return sharding.make_mesh(*shape, devices=jax.devices()[:count])


def make_state(params, *, optimizer, sampler=None, ema_decays=(0.9, 0.99), mesh=None):
    """The state before the first step, on a mesh or on the first device."""
    sampler = timesteps.uniform(20) if sampler is None else sampler
    create = functools.partial(
        state_lib.create,
        optimizer=optimizer,
        ema_decays=ema_decays,
        timestep_sampler=sampler,
    )
    params = jax.tree.map(jnp.array, params)
    if mesh is None:
        return create(params)
    shardings = sharding.state_shardings(mesh, jax.eval_shape(create, params))
    return jax.device_put(create(params), shardings)


def make_step(*, optimizer, tables=None, sampler=None, network=apply, **options):
    tables = make_tables() if tables is None else tables
    sampler = timesteps.uniform(tables.num_steps) if sampler is None else sampler
    options = {
        "seed": 0,
        "objective": HYBRID,
        "learning_rate": lambda update: 1e-3,
        "condition_spec": LABELLED,
        **options,
    }
    return functools.partial(
        step_lib.train_step,
        apply=network,
        tables=tables,
        optimizer=optimizer,
        timestep_sampler=sampler,
        **options,
    )


def compiled(function):
    return jax.jit(function, compiler_options=QUICK)


def on_mesh(step, state, mesh, donate=True):
    """Compile a step for the placement of `state`, as training does."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    return jax.jit(
        step,
        out_shardings=(shardings, sharding.replicated(mesh)),
        donate_argnums=0 if donate else (),
        compiler_options=QUICK,
    )


# ---- comparing -----------------------------------------------------------------------


def to_numpy(tree):
    return jax.tree.map(np.array, tree)


def largest(tree):
    return max(float(np.max(np.abs(leaf))) for leaf in jax.tree.leaves(tree))


def largest_difference(a, b):
    return largest(jax.tree.map(lambda x, y: np.float64(x) - np.float64(y), a, b))


def assert_same_bits(a, b):
    """Compare shapes, dtypes and bits, so that NaN equals NaN and 0 is not −0."""
    a_leaves, a_tree = jax.tree.flatten_with_path(a)
    b_leaves, b_tree = jax.tree.flatten_with_path(b)
    assert a_tree == b_tree
    for (path, x), (_, y) in zip(a_leaves, b_leaves, strict=True):
        assert x.dtype == y.dtype, path
        assert np.shape(x) == np.shape(y), path
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes(), path
