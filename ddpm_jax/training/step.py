"""One optimizer step, read from top to bottom: draw, loss, gradient, update, EMA."""

import jax
import jax.numpy as jnp
import optax

from ddpm_jax.core import conditions, keys
from ddpm_jax.diffusion import losses
from ddpm_jax.training import blocks
from ddpm_jax.training import ema as ema_lib
from ddpm_jax.training import state as state_lib


def train_step(
    state: state_lib.TrainState,
    batch: dict[str, jax.Array],
    *,
    seed: int,
    apply,
    tables,
    objective: dict,
    optimizer: optax.GradientTransformation,
    learning_rate,
    timestep_sampler,
    ema_ramp: bool = True,
    condition_spec: conditions.Specs | None = None,
    label_dropout: float = 0.0,
    dropout: bool = False,
    microbatches: int = 1,
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
        optimizer: Optax transformation.
        learning_rate: `update → learning rate` of that optimizer, for the metrics.
        timestep_sampler: a value of `diffusion.timesteps`.
        ema_ramp: see `ema.decay_at`.
        condition_spec: what the network reads besides x and t; None for nothing.
        label_dropout: probability of replacing a condition by "no condition".
        dropout: whether the network drops activations.
        microbatches: parts of the batch, evaluated one after the other.

    Returns:
        The state, unchanged but for `step` and `skipped` where loss or gradient or
        update is not finite; and "loss", "mse", "vb", "grad_norm", "learning_rate",
        "finite"; in image order "t" int32 [B] and "example_loss" [B], unweighted; in
        that of `blocks.block_names` "block_norms" [K] of the gradient; by quarter of t
        "quarter_loss" (sums) and "quarter_count", [4]; by EMA "ema_initial_share".
    """
    x_0 = batch["image"]
    draw = _drawer(seed, state)
    t, weight = timestep_sampler.sample(state.timesteps, draw("t"), x_0.shape[0])
    examples = {
        "x_0": x_0,
        "t": t,
        "weight": weight,
        "noise": jax.random.normal(draw("noise"), x_0.shape, x_0.dtype),
    }
    condition = {key: batch[key] for key in condition_spec or {}}
    if label_dropout:
        drop = jax.random.bernoulli(draw("label"), label_dropout, t.shape)
        condition = conditions.dropped(condition_spec, condition, drop)
    examples["condition"] = condition
    if dropout:
        position = jnp.arange(x_0.shape[0])
        examples["dropout_keys"] = keys.fold_in_each(draw("dropout"), position)

    def loss_fn(params, part):
        def network(x_t, t_seen):
            drop_keys = part.get("dropout_keys")
            return apply(
                params, x_t, t_seen, part["condition"], dropout_keys=drop_keys
            )

        terms = losses.training_losses(
            tables, network, part["x_0"], part["t"], part["noise"], **objective
        )
        return jnp.mean(terms["loss"] * part["weight"]), terms

    gradient, terms = _accumulate(loss_fn, state.params, examples, microbatches)
    loss = jnp.mean(terms["loss"] * weight)
    block_norms, grad_norm = blocks.norms(gradient)
    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    proposed, updates = _update(state, gradient, optimizer, ema_ramp)
    # The update too: Adam divides by the root of a gradient that may be zero.
    finite &= jnp.isfinite(optax.tree.norm(updates))
    history = timestep_sampler.update(state.timesteps, t, terms["loss"])
    proposed = proposed.replace(timesteps=history)
    rate = learning_rate(state.step - state.skipped)
    state = _keep_unless(finite, proposed, state)

    sums, counts = losses.quarter_sums(terms["loss"], t, tables.num_steps)
    metrics = {
        "loss": loss,
        "mse": jnp.mean(terms["mse"]),
        "vb": jnp.mean(terms["vb"]),
        "grad_norm": grad_norm,
        "learning_rate": rate,
        "finite": finite,
        "t": t,
        "example_loss": terms["loss"],
        "block_norms": block_norms,
        "quarter_loss": sums,
        "quarter_count": counts,
        "ema_initial_share": state.ema_initial_share,
    }
    return state, metrics


def _drawer(seed, state):
    """Return `purpose → key` for this step."""

    def draw(purpose):
        return keys.key_for(
            seed, f"train/{purpose}", step=state.step, draw_epoch=state.draw_epoch
        )

    return draw


def _accumulate(loss_fn, params, examples, microbatches):
    """Return the gradient of the mean loss and the terms [B] in image order.

    Microbatch m holds examples m, m+M, m+2M, …: with the batch sharded in contiguous
    rows every device then keeps its own rows.
    """
    if microbatches == 1:
        gradient, terms = jax.grad(loss_fn, has_aux=True)(params, examples)
        return gradient, terms

    def split(values):
        return values.reshape(-1, microbatches, *values.shape[1:]).swapaxes(0, 1)

    def body(total, part):
        gradient, terms = jax.grad(loss_fn, has_aux=True)(params, part)
        return jax.tree.map(jnp.add, total, gradient), terms

    zeros = jax.tree.map(jnp.zeros_like, params)
    total, terms = jax.lax.scan(body, zeros, jax.tree.map(split, examples))
    # Averaged, not summed: the original codes sum and so scale with the split.
    gradient = jax.tree.map(lambda value: value / microbatches, total)
    return gradient, jax.tree.map(lambda v: v.swapaxes(0, 1).reshape(-1), terms)


def _update(state, gradient, optimizer, ema_ramp):
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema, share = ema_lib.update(
        state.ema,
        state.ema_initial_share,
        params,
        state.step - state.skipped,
        ramp=ema_ramp,
    )
    proposed = state.replace(
        params=params, opt_state=opt_state, ema=ema, ema_initial_share=share
    )
    return proposed, updates


def _keep_unless(finite, proposed, state):
    """Return `proposed` if finite, else `state`; the step advances in either case."""
    chosen = jax.tree.map(lambda new, old: jnp.where(finite, new, old), proposed, state)
    return chosen.replace(
        step=state.step + 1,
        skipped=state.skipped + jnp.where(finite, 0, 1).astype(jnp.int32),
    )
