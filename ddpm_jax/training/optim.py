"""The optimizer: clipping, Adam(W) or Muon, warm-up and decay of the learning rate."""

import math

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from ddpm_jax.core import errors

# Share of the learning rate left at progress u = step/steps in [0, 1].
DECAYS = {
    "none": jnp.ones_like,
    "linear": lambda u: 1 - u,  # the OpenAI codes' annealing
    "cosine": lambda u: 0.5 * (1 + jnp.cos(math.pi * u)),
}

MU_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}

MUON_MOMENTUM = 0.95
ADAM_RMS = 0.2  # of Adam's updates over the learning rate, as networks usually have it
ENDS = {"conv_in", "conv_out"}  # the layers whose inputs or outputs are pixels


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
    optimizer="adam",
    weight_decay=0.0,
    clip_norm=0.0,
    beta_1=0.9,
    beta_2=0.999,
    epsilon=1e-8,
    mu_dtype="float32",
) -> optax.GradientTransformation:
    """Return an optimizer behind a clip of the gradient by its global norm.

    Args:
        schedule: `step → learning rate`.
        optimizer: "adam" (AdamW where `weight_decay` is not 0), or "muon", see `muon`.
        weight_decay: decoupled decay.
        clip_norm: largest global norm of the gradient; 0 for no clipping.
        beta_1, beta_2, epsilon: Adam's constants.
        mu_dtype: "float32" or "bfloat16", what Adam's first moments are kept in; all
            else is float32.

    Raises:
        Refusal: a negative clip norm, which would reverse every update; an unknown
            optimizer or `mu_dtype`, or Muon with bfloat16; when the state is made,
            parameters that are not float32.
    """
    if clip_norm < 0:
        raise errors.Refusal(f"clip norm {clip_norm}: give 0 (no clipping) or more")
    chosen = errors.choose("optimizer", OPTIMIZERS, optimizer)(
        schedule, weight_decay, (beta_1, beta_2, epsilon), mu_dtype
    )
    if not clip_norm:
        return chosen
    return optax.chain(optax.clip_by_global_norm(clip_norm), chosen)


def adam(schedule, weight_decay, constants, mu_dtype) -> optax.GradientTransformation:
    """Return AdamW, whose first moments are kept in `mu_dtype`.

    Optax's own `mu_dtype` also multiplies by β₁ in it, and the bfloat16 next to 0.9 is
    0.898: moments of a constant gradient would end 1.5 % short.

    Args:
        schedule: `step → learning rate`.
        weight_decay: decoupled decay.
        constants: β₁, β₂, ε.
        mu_dtype: "float32" or "bfloat16".
    """
    exact = optax.scale_by_adam(*constants)
    dtype = errors.choose("mu_dtype", MU_DTYPES, mu_dtype)

    def kept(state):
        return state._replace(mu=optax.tree.cast(state.mu, dtype))

    def init(params):
        _check_parameters(params)
        return kept(exact.init(params))

    def update(gradient, state, params=None):
        state = state._replace(mu=optax.tree.cast(state.mu, jnp.float32))
        updates, state = exact.update(gradient, state, params)
        return updates, kept(state)

    return optax.chain(
        optax.GradientTransformation(init, update),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(schedule),
    )


def muon(schedule, weight_decay, constants, mu_dtype) -> optax.GradientTransformation:
    """Return Muon for kernels behind the first and before the last layer.

    The rest takes NAdamW: AdamW with Nesterov's momentum, which Optax gives to both.

    The momentum of a kernel is taken as a matrix [inputs, outputs] and replaced by the
    nearest one whose singular values are all alike (about 1), so that rare directions
    move as far as frequent ones. Updates are as large as Adam's usually are, 0.2 times
    the learning rate in the root mean square, so that one rate is for both.

    Args:
        schedule, weight_decay, constants: as in `adam`.
        mu_dtype: "float32".

    Reference: Jordan et al. 2024; for rates and decay, Liu et al. 2025.
    """
    if errors.choose("mu_dtype", MU_DTYPES, mu_dtype) != jnp.float32:
        raise errors.Refusal(
            f"mu_dtype {mu_dtype!r} with optimizer 'muon': only Adam's first moments "
            "can be bfloat16; give float32"
        )
    beta_1, beta_2, epsilon = constants
    made = optax.contrib.muon(
        schedule,
        beta=MUON_MOMENTUM,
        eps=epsilon,
        weight_decay=weight_decay,
        adam_b1=beta_1,
        adam_b2=beta_2,
        adam_weight_decay=weight_decay,
        muon_weight_dimension_numbers=matrices,
        consistent_rms=ADAM_RMS,
    )

    def init(params):
        _check_parameters(params)
        return made.init(params)

    return optax.GradientTransformation(init, made.update)


def matrices(params):
    """Return which axes of each parameter are a matrix's rows and columns, or None.

    Kernels are [..., inputs, outputs]; those of the first and the last layer, tables of
    embeddings and vectors are none.
    """
    return jax.tree_util.tree_map_with_path(_matrix, params)


def _matrix(path, leaf):
    names = [str(getattr(part, "key", part)) for part in path]
    if names[-1] != "kernel" or leaf.ndim < 2 or set(names) & ENDS:
        return None
    *inputs, output = range(leaf.ndim)
    return optax.contrib.MuonDimensionNumbers(tuple(inputs), (output,))


OPTIMIZERS = {"adam": adam, "muon": muon}


def _check_parameters(params):
    """Refuse parameters whose second moments a step could not change."""
    others = {str(leaf.dtype) for leaf in jax.tree.leaves(params)} - {"float32"}
    if others:
        raise errors.Refusal(
            f"parameters of {', '.join(sorted(others))} would give Adam second moments "
            "of the same type, which lose the small change of a step to rounding: keep "
            "the parameters float32, and compute in bfloat16 with model.dtype=bfloat16"
        )
