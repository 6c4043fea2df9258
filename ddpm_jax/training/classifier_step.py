"""One optimizer step of the classifier of noisy images (ADM section 4 and its code)."""

import jax
import jax.numpy as jnp

from ddpm_jax.core import classification, keys
from ddpm_jax.diffusion import process, timesteps
from ddpm_jax.training import state as state_lib
from ddpm_jax.training import update


def train_step(
    state: state_lib.TrainState,
    batch: dict[str, jax.Array],
    *,
    seed: int,
    apply,
    tables,
    num_classes: int,
    dropout: bool = False,
    draw_noise=process.GAUSSIAN.noise,
    **tail,
):
    """Return the next state and the metrics of a step on the labels' cross-entropy.

    The loss of an example is −log p(y | x_t) with x_t ~ q(x_t | x_0) and t uniform on
    0 … T−1. Every draw is made for the whole batch before it is split.

    Args:
        state: the state before the step.
        batch: "image" [B, ..., C] in [−1, 1] and "label" int32 [B].
        seed: the run's seed.
        apply: `(params, x, t_seen, {}, dropout_keys=…) → logits [B, classes]`.
        tables: the process that makes the images noisy.
        num_classes: of the logits.
        dropout: whether the network drops activations.
        draw_noise: `(key, shape, dtype) → noise` of the process.
        **tail: optimizer, learning_rate and the options of `update.update_state`.

    Returns:
        The state and the metrics of `update.update_state`; the terms of the loss among
        them are the accuracies of `classification.terms`, by quarter of t too.
    """
    x_0 = batch["image"]
    draw = update.drawer(seed, state)
    sampler = timesteps.uniform(tables.num_steps)
    t, weight = sampler.sample((), draw("t"), x_0.shape[0])
    noise = draw_noise(draw("noise"), x_0.shape, x_0.dtype)
    examples = {
        "x_t": process.q_sample(tables, x_0, t, noise),
        "label": batch["label"],
        "t": t,
        "weight": weight,
    }
    if dropout:
        position = jnp.arange(x_0.shape[0])
        examples["dropout_keys"] = keys.fold_in_each(draw("dropout"), position)

    def loss_terms(params, part):
        t_seen, drop_keys = tables.timesteps_seen[part["t"]], part.get("dropout_keys")
        logits = apply(params, part["x_t"], t_seen, {}, dropout_keys=drop_keys)
        return classification.terms(logits, part["label"])

    return update.update_state(
        state,
        examples,
        loss_terms,
        num_steps=tables.num_steps,
        timestep_sampler=sampler,
        by_quarter=classification.accuracies(num_classes),
        **tail,
    )
