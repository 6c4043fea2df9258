"""One optimizer step of the U-Net: draws and loss here, the rest in `update`."""

import jax
import jax.numpy as jnp

from ddpm_jax.core import conditions, flags, keys
from ddpm_jax.diffusion import losses, process
from ddpm_jax.training import state as state_lib
from ddpm_jax.training import update


@flags.as_written()
def train_step(
    state: state_lib.TrainState,
    batch: dict[str, jax.Array],
    *,
    seed: int,
    apply,
    tables,
    objective: dict,
    timestep_sampler,
    condition_spec: conditions.Specs | None = None,
    label_dropout: float = 0.0,
    dropout: bool = False,
    draw_noise=process.GAUSSIAN.noise,
    **tail,
):
    """Return the next state and the metrics of this step.

    Every draw is made for the whole batch before it is split, so that the gradient is
    the same for any number of microbatches and devices.

    Args:
        state: the state before the step.
        batch: "image" [B, ..., C] in [−1, 1], and the condition: arrays [B, ...] by the
            keys of `condition_spec`.
        seed: the run's seed.
        apply: `(params, x, t_seen, condition, dropout_keys=…) → output`.
        tables: the process.
        objective: keyword arguments of `losses.training_losses`.
        timestep_sampler: a value of `diffusion.timesteps`.
        condition_spec: what the network reads besides x and t; None for nothing.
        label_dropout: probability of replacing a condition by "no condition".
        dropout: whether the network drops activations.
        draw_noise: `(key, shape, dtype) → noise` of the process.
        **tail: optimizer, learning_rate and the options of `update.update_state`.

    Returns:
        The state and the metrics of `update.update_state`; the terms of the loss among
        them are "mse" and "vb" of `losses.training_losses`.
    """
    x_0 = batch["image"]
    draw = update.drawer(seed, state)
    t, weight = timestep_sampler.sample(state.timesteps, draw("t"), x_0.shape[0])
    examples = {
        "x_0": x_0,
        "t": t,
        "weight": weight,
        "noise": draw_noise(draw("noise"), x_0.shape, x_0.dtype),
    }
    condition = {key: batch[key] for key in condition_spec or {}}
    if label_dropout:
        drop = keys.bernoulli(draw("label"), label_dropout, t.shape)
        condition = conditions.dropped(condition_spec, condition, drop)
    examples["condition"] = condition
    if dropout:
        position = jnp.arange(x_0.shape[0])
        examples["dropout_keys"] = keys.fold_in_each(draw("dropout"), position)

    def loss_terms(params, part):
        def network(x_t, t_seen):
            condition, drop_keys = part["condition"], part.get("dropout_keys")
            return apply(params, x_t, t_seen, condition, dropout_keys=drop_keys)

        return losses.training_losses(
            tables, network, part["x_0"], part["t"], part["noise"], **objective
        )

    return update.update_state(
        state,
        examples,
        loss_terms,
        num_steps=tables.num_steps,
        timestep_sampler=timestep_sampler,
        **tail,
    )
