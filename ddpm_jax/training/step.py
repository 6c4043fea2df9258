"""One optimizer step of the U-Net: draws and loss here, the rest in `update`."""

import jax
import jax.numpy as jnp

from ddpm_jax.core import keys
from ddpm_jax.diffusion import losses
from ddpm_jax.training import state as state_lib
from ddpm_jax.training import update


def train_step(
    state: state_lib.TrainState,
    batch: dict[str, jax.Array],
    *,
    seed: int,
    apply,
    tables,
    objective: dict,
    timestep_sampler,
    null_label: int | None = None,
    label_dropout: float = 0.0,
    dropout: bool = False,
    draw_noise=jax.random.normal,
    **tail,
):
    """Return the next state and the metrics of this step.

    Every draw is made for the whole batch before it is split, so that the gradient is
    the same for any number of microbatches and devices.

    Args:
        state: the state before the step.
        batch: "image" [B, ..., C] in [−1, 1] and, for a conditional network, "label"
            int32 [B].
        seed: the run's seed.
        apply: `(params, x, t_seen, labels, dropout_keys=…) → output`.
        tables: the process.
        objective: keyword arguments of `losses.training_losses`.
        timestep_sampler: a value of `diffusion.timesteps`.
        null_label: the label that stands for "no class", if the network has one.
        label_dropout: probability of replacing a label by it.
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
    if "label" in batch:
        drop = jax.random.bernoulli(draw("label"), label_dropout, t.shape)
        null = null_label if label_dropout else 0
        examples["labels"] = jnp.where(drop, null, batch["label"])
    if dropout:
        position = jnp.arange(x_0.shape[0])
        examples["dropout_keys"] = keys.fold_in_each(draw("dropout"), position)

    def loss_terms(params, part):
        def network(x_t, t_seen):
            labels = part.get("labels")
            drop_keys = part.get("dropout_keys")
            return apply(params, x_t, t_seen, labels, dropout_keys=drop_keys)

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
