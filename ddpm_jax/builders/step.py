"""The train step, compiled for its shardings."""

import jax
import numpy as np

from ddpm_jax.builders import kinds
from ddpm_jax.core import conditions
from ddpm_jax.runtime import sharding


def train_step(config, facts, network):
    """Return `(state, batch) → (state, metrics)` for this config."""
    return kinds.of(config).train_step(config, facts, network)


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
    specs = kinds.of(config).reads(network)
    image = jax.ShapeDtypeStruct((size, *facts.shape), np.float32)
    shapes = {"image": image, **conditions.abstract(specs, size)}
    return {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=rows)
        for name, leaf in shapes.items()
    }
