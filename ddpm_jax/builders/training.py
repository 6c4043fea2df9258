"""Optimizer, mesh and train state."""

import jax

from ddpm_jax.builders.process import timestep_sampler
from ddpm_jax.core import errors, keys
from ddpm_jax.runtime import sharding as sharding_lib
from ddpm_jax.training import optim
from ddpm_jax.training import state as state_lib


def learning_rate(config):
    """Return `step → learning rate`."""
    train = config.train
    return optim.learning_rate_schedule(
        learning_rate=train.learning_rate,
        warmup_steps=train.warmup_steps,
        decay=train.decay,
        decay_steps=train.steps,
    )


def optimizer(config):
    """Return the Optax transformation."""
    train = config.train
    return optim.make_optimizer(
        schedule=learning_rate(config),
        optimizer=train.optimizer,
        weight_decay=train.weight_decay,
        clip_norm=train.clip_norm,
        beta_1=train.beta_1,
        beta_2=train.beta_2,
        epsilon=train.epsilon,
        mu_dtype=train.mu_dtype,
    )


def mesh(config):
    """Return the mesh over all devices."""
    return sharding_lib.make_mesh(config.mesh.data, config.mesh.fsdp)


def _create(config):
    """Return `params → TrainState`."""
    decays = tuple(config.train.ema_decay)
    valid = all(0 <= decay < 1 for decay in decays)
    if not valid or len(set(decays)) < len(decays):
        raise errors.Refusal(
            f"train.ema_decay={decays}: give one or several different rates, 0 … below "
            "1, such as 0.9999, or none at all for no average"
        )
    return lambda params: state_lib.create(
        params,
        optimizer=optimizer(config),
        ema_decays=decays,
        timestep_sampler=timestep_sampler(config),
    )


def abstract_state(config, network, device_mesh) -> state_lib.TrainState:
    """Return shapes, dtypes and shardings of the train state; nothing is computed."""
    return _placed(jax.eval_shape(_create(config), network.shapes), device_mesh)


def abstract_weights(network, device_mesh) -> state_lib.TrainState:
    """Return the same of a state that holds weights alone."""
    shapes = jax.eval_shape(state_lib.of_weights, network.shapes)
    return _placed(shapes, device_mesh)


def _placed(shapes, device_mesh):
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=sharding
        ),
        shapes,
        sharding_lib.state_shardings(device_mesh, shapes),
    )


def ema_name(config) -> str | None:
    """Return the name of the average that sampling and evaluation use: the first.

    None where the run keeps none.
    """
    decays = config.train.ema_decay
    return str(decays[0]) if decays else None


def initial_params(config, network, device_mesh):
    """Return the weights that the seed draws, leaf by leaf into their shardings."""
    shardings = sharding_lib.state_shardings(device_mesh, network.shapes)
    return network.init(keys.key_for(config.seed, "init"), shardings)


def initial_state(config, params, abstract) -> state_lib.TrainState:
    """Return the state before the first step.

    Args:
        params: weights to start from.
        abstract: from `abstract_state`.
    """
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    return jax.jit(_create(config), out_shardings=shardings)(params)
