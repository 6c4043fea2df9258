"""The optimizer: clipping, Adam(W), warm-up and decay of the learning rate."""

import math

import jax
import jax.numpy as jnp
import optax

from ddpm_jax.core import errors

# Share of the learning rate left at progress u = step/steps in [0, 1].
DECAYS = {
    "none": jnp.ones_like,
    "linear": lambda u: 1 - u,  # the OpenAI codes' annealing
    "cosine": lambda u: 0.5 * (1 + jnp.cos(math.pi * u)),
}

MU_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def learning_rate_schedule(*, learning_rate, warmup_steps, decay, decay_steps):
    """Return `step → learning rate`.

    Args:
        learning_rate: the peak.
        warmup_steps: linear rise from 0 at step 0 (DDPM's code: 5,000); 0 for none.
        decay: "none", "linear" or "cosine", to 0 at `decay_steps`.
        decay_steps: where the decay ends.

    Raises:
        Refusal: a learning rate that is not positive, an unknown decay, a negative
            warm-up.
    """
    shape = errors.choose("learning rate decay", DECAYS, decay)
    if not (learning_rate > 0 and math.isfinite(learning_rate)):
        raise errors.Refusal(
            f"learning rate {learning_rate!r}: give a positive number such as 1e-4"
        )

    if warmup_steps < 0:
        raise errors.Refusal(f"{warmup_steps} warm-up steps: give 0 or more")

    def schedule(step):
        step = jnp.asarray(step, jnp.float32)
        warm = jnp.minimum(step / warmup_steps, 1.0) if warmup_steps else 1.0
        progress = jnp.clip(step / max(decay_steps, 1), 0.0, 1.0)
        return learning_rate * warm * shape(progress)

    return schedule


def make_optimizer(
    *,
    schedule,
    weight_decay=0.0,
    clip_norm=0.0,
    beta_1=0.9,
    beta_2=0.999,
    epsilon=1e-8,
    mu_dtype="float32",
) -> optax.GradientTransformation:
    """Return AdamW (Adam where `weight_decay` is 0) behind a clip by global norm.

    Args:
        schedule: `step → learning rate`.
        weight_decay: decoupled decay.
        clip_norm: largest global norm of the gradient; 0 for no clipping.
        beta_1, beta_2, epsilon: Adam's constants.
        mu_dtype: "float32" or "bfloat16", what the first moments are kept in; all else
            is float32.

    Raises:
        Refusal: a negative clip norm, which would reverse every update; an unknown
            `mu_dtype`; when the state is made, parameters that are not float32.
    """
    if clip_norm < 0:
        raise errors.Refusal(f"clip norm {clip_norm}: give 0 (no clipping) or more")
    adam = optax.chain(
        _adam(beta_1, beta_2, epsilon, errors.choose("mu_dtype", MU_DTYPES, mu_dtype)),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(schedule),
    )
    if not clip_norm:
        return adam
    return optax.chain(optax.clip_by_global_norm(clip_norm), adam)


def _adam(beta_1, beta_2, epsilon, mu_dtype):
    """Return Adam that keeps its first moments in `mu_dtype`.

    Optax's own `mu_dtype` also multiplies by β₁ in it, and the bfloat16 next to 0.9 is
    0.898: moments of a constant gradient would end 1.5 % short.
    """
    exact = optax.scale_by_adam(beta_1, beta_2, epsilon)

    def kept(state):
        return state._replace(mu=optax.tree.cast(state.mu, mu_dtype))

    def init(params):
        state = exact.init(params)
        _check_second_moments(state.nu)
        return kept(state)

    def update(gradient, state, params=None):
        state = state._replace(mu=optax.tree.cast(state.mu, jnp.float32))
        updates, state = exact.update(gradient, state, params)
        return updates, kept(state)

    return optax.GradientTransformation(init, update)


def _check_second_moments(moments):
    """Refuse moments that a step could not change: they have the parameters' dtype."""
    others = {str(leaf.dtype) for leaf in jax.tree.leaves(moments)} - {"float32"}
    if others:
        raise errors.Refusal(
            f"parameters of {', '.join(sorted(others))} would give Adam second moments "
            "of the same type, which lose the small change of a step to rounding: keep "
            "the parameters float32, and compute in bfloat16 with model.dtype=bfloat16"
        )
