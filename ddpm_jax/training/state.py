"""Everything that a resumed run needs, as one value."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "step",
        "params",
        "opt_state",
        "ema",
        "ema_initial_share",
        "timesteps",
        "skipped",
        "draw_epoch",
    ],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class TrainState:
    """The state after `step` steps; together with the seed it determines the rest.

    Attributes:
        step: int32, steps taken, skipped ones included.
        params: nested dictionary of float32 arrays.
        opt_state: Optax's state.
        ema: one copy of the parameters for each rate, keyed by the rate ("0.9999").
        ema_initial_share: the share of the initial weights left in each EMA.
        timesteps: state of the timestep sampler.
        skipped: int32, updates left out because loss or gradient was not finite.
        draw_epoch: int32, raised by a roll-back so that the same steps draw anew.
    """

    step: jax.Array
    params: Any
    opt_state: Any
    ema: dict[str, Any]
    ema_initial_share: dict[str, jax.Array]
    timesteps: Any
    skipped: jax.Array
    draw_epoch: jax.Array

    def replace(self, **changes) -> "TrainState":
        """Return a copy with some fields changed."""
        return dataclasses.replace(self, **changes)


def create(params, *, optimizer, ema_decays, timestep_sampler) -> TrainState:
    """Return the state before the first step.

    It can be traced, so that its shapes are had before its arrays: `jax.eval_shape`.

    Args:
        params: initial parameters.
        optimizer: Optax transformation.
        ema_decays: rates of the exponential moving averages, e.g. (0.9999,).
        timestep_sampler: a value of `diffusion.timesteps`.
    """
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        # Copies, because a donated state must not hold one buffer twice.
        ema={str(decay): jax.tree.map(jnp.copy, params) for decay in ema_decays},
        ema_initial_share={
            str(decay): jnp.ones((), jnp.float32) for decay in ema_decays
        },
        timesteps=timestep_sampler.init(),
        skipped=jnp.zeros((), jnp.int32),
        draw_epoch=jnp.zeros((), jnp.int32),
    )


def of_weights(params) -> TrainState:
    """Return a state of weights alone, as imported runs hold them; traceable."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=(),
        ema={},
        ema_initial_share={},
        timesteps=(),
        skipped=jnp.zeros((), jnp.int32),
        draw_epoch=jnp.zeros((), jnp.int32),
    )
