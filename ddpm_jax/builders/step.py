"""The train step, compiled for its shardings."""

import functools

import jax
import numpy as np

from ddpm_jax.builders.process import objective, schedule, timestep_sampler
from ddpm_jax.builders.training import learning_rate, optimizer
from ddpm_jax.core import conditions
from ddpm_jax.diffusion import process
from ddpm_jax.runtime import sharding
from ddpm_jax.training import step


def train_step(config, facts, network):
    """Return `(state, batch) → (state, metrics)` for this config."""
    return functools.partial(
        step.train_step,
        seed=config.seed,
        apply=network.apply,
        tables=process.tables(schedule(config)),
        objective=objective(config, facts),
        optimizer=optimizer(config),
        learning_rate=learning_rate(config),
        timestep_sampler=timestep_sampler(config),
        ema_ramp=config.train.ema_ramp,
        condition_spec=network.condition_spec,
        label_dropout=config.train.label_dropout,
        dropout=config.model.dropout > 0,
        microbatches=config.train.microbatches,
    )


def jitted_step(take_step, abstract, device_mesh) -> jax.stages.Wrapped:
    """Return a train step that keeps the state where it is and reuses its memory.

    Args:
        take_step: from `train_step`.
        abstract: from `abstract_state`.
        device_mesh: the mesh of `abstract`.
    """
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    return jax.jit(
        take_step,
        out_shardings=(shardings, sharding.replicated(device_mesh)),
        donate_argnums=0,
    )


def abstract_batch(
    config, facts, network, device_mesh
) -> dict[str, jax.ShapeDtypeStruct]:
    """Return shapes, dtypes and shardings of the global batch of a step."""
    size, rows = config.train.batch_size, sharding.batch_sharding(device_mesh)
    image = jax.ShapeDtypeStruct((size, *facts.shape), np.float32)
    shapes = {"image": image, **conditions.abstract(network.condition_spec, size)}
    return {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=rows)
        for name, leaf in shapes.items()
    }
