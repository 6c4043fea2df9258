"""What all kinds of train steps share: keys of the draws before, the update after.

A kind of step is a head and this tail. The head (`step.train_step` for the U-Net) draws
for the whole batch and says what the loss of an example is; `update_state` does the
rest.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from ddpm_jax.core import keys
from ddpm_jax.diffusion import losses
from ddpm_jax.training import blocks
from ddpm_jax.training import ema as ema_lib
from ddpm_jax.training import state as state_lib

# The metrics of every kind of step; a kind's own have other names.
COMMON = (
    "loss",
    "grad_norm",
    "learning_rate",
    "finite",
    "t",
    "example_loss",
    "block_norms",
    "quarter_loss",
    "quarter_count",
    "ema_initial_share",
)


def drawer(seed: int, state: state_lib.TrainState):
    """Return `purpose → key` for this step.

    A key is a function of the seed, the step, the roll-backs before it and the purpose
    ("t", "noise", …); each purpose is for one draw.
    """

    def draw(purpose):
        return keys.key_for(
            seed, f"train/{purpose}", step=state.step, draw_epoch=state.draw_epoch
        )

    return draw


def update_state(
    state: state_lib.TrainState,
    examples: dict[str, jax.Array],
    loss_terms,
    *,
    num_steps: int,
    timestep_sampler,
    optimizer: optax.GradientTransformation,
    learning_rate,
    ema_ramp: bool = True,
    microbatches: int = 1,
    by_quarter: Sequence[str] = (),
):
    """Return the next state and the metrics of a step whose draws are made.

    The gradient is that of mean(weight · loss), the mean over the whole batch.

    Args:
        state: the state before the step.
        examples: arrays [B, ...], the draws among them: "t" int32 [B], "weight" [B] of
            the timestep sampler, and whatever `loss_terms` reads.
        loss_terms: `(params, part of the examples [b, ...]) → terms`: "loss" [b],
            without the timestep sampler's weight, and further values [b] whose means
            become metrics of the same names, none of them in `COMMON`. An example's
            terms do not depend on the others in its part.
        num_steps: T′ of the process, for the quarters of t.
        timestep_sampler: a value of `diffusion.timesteps`; it is given t and loss.
        optimizer: Optax transformation.
        learning_rate: `update → learning rate` of that optimizer, for the metrics.
        ema_ramp: see `ema.decay_at`.
        microbatches: parts of the batch, evaluated one after the other; they divide B.
        by_quarter: names of terms that are reported by quarter of t, as the loss is.

    Returns:
        The state, unchanged but for `step` and `skipped` where loss or gradient or
        update is not finite; and "loss", the weighted mean, and the means of the other
        terms; "grad_norm", "learning_rate", "finite"; in image order "t" int32 [B] and
        "example_loss" [B], without that weight; in that of `blocks.block_names`
        "block_norms" [K] of the gradient; by quarter of t "quarter_loss" (sums) and
        "quarter_count", [4], and "quarter_<name>" of `by_quarter`; by EMA
        "ema_initial_share".

    Raises:
        ValueError: a term has the name of a common metric.
    """
    t, weight = examples["t"], examples["weight"]
    gradient, terms = _gradient(loss_terms, microbatches)(state.params, examples)
    _check_names(terms)
    loss = jnp.mean(terms["loss"] * weight)
    block_norms, grad_norm = blocks.norms(gradient)
    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    proposed, updates = _propose(state, gradient, optimizer, ema_ramp)
    # The update too: no optimizer is trusted to keep finite gradients finite.
    finite &= jnp.isfinite(optax.tree.norm(updates))
    history = timestep_sampler.update(state.timesteps, t, terms["loss"])
    proposed = proposed.replace(timesteps=history)
    rate = learning_rate(state.step - state.skipped)
    state = _keep_unless(finite, proposed, state)

    sums, counts = losses.quarter_sums(terms["loss"], t, num_steps)
    metrics = {name: jnp.mean(term) for name, term in terms.items() if name != "loss"}
    metrics |= {
        "loss": loss,
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
    for name in by_quarter:
        sums, _ = losses.quarter_sums(terms[name], t, num_steps)
        metrics[f"quarter_{name}"] = sums
    return state, metrics


def _check_names(terms):
    """Refuse terms whose means the common metrics would replace."""
    taken = sorted(name for name in terms if name in COMMON and name != "loss")
    if taken:
        raise ValueError(
            f"the loss term {taken[0]!r} has the name of a common metric: rename it"
        )


def _gradient(loss_terms, microbatches):
    """Return `(params, examples) → (gradient of the mean loss, terms [B])`.

    Microbatch m holds examples m, m+M, m+2M, …: with the batch sharded in contiguous
    rows every device then keeps its own rows. The terms are in image order.
    """

    def weighted_loss(params, part):
        terms = loss_terms(params, part)
        return jnp.mean(terms["loss"] * part["weight"]), terms

    gradient_and_terms = jax.grad(weighted_loss, has_aux=True)
    if microbatches == 1:
        return gradient_and_terms

    def split(values):
        return values.reshape(-1, microbatches, *values.shape[1:]).swapaxes(0, 1)

    def accumulate(params, examples):
        def body(total, part):
            gradient, terms = gradient_and_terms(params, part)
            return jax.tree.map(jnp.add, total, gradient), terms

        zeros = jax.tree.map(jnp.zeros_like, params)
        total, terms = jax.lax.scan(body, zeros, jax.tree.map(split, examples))
        # Averaged, not summed: the OpenAI codes sum and so scale with the split.
        gradient = jax.tree.map(lambda value: value / microbatches, total)
        return gradient, jax.tree.map(lambda v: v.swapaxes(0, 1).reshape(-1), terms)

    return accumulate


def _propose(state, gradient, optimizer, ema_ramp):
    """Return the state after this update, if it is to count, and the update."""
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
