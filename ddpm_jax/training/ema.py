"""Exponential moving averages of the weights, several rates at once."""

import jax
import jax.numpy as jnp

from ddpm_jax.core import errors

MAX_INITIAL_SHARE = 0.01  # of an average that is fit for sampling


def decay_at(decay: float, step, *, ramp: bool):
    """Return the decay used after update number `step` + 1.

    With `ramp` it is min(decay, (1+step)/(10+step)), so that a young average follows
    the weights instead of holding the random start: at 0.9999 without ramp 37 % of it
    is still in the EMA after 10,000 steps. The papers' codes have no ramp.
    """
    if not ramp:
        return jnp.asarray(decay, jnp.float32)
    step = jnp.asarray(step, jnp.float32)  # an int32 makes float64 with jax_enable_x64
    return jnp.minimum(decay, (1.0 + step) / (10.0 + step))


def update(averages, initial_share, params, step, *, ramp: bool):
    """Return every average and its share of initial weights after one update.

    Args:
        averages: {str(decay): parameters}.
        initial_share: {str(decay): scalar}.
        params: parameters after the update.
        step: updates before this one.
    """
    new_averages, new_share = {}, {}
    for name, average in averages.items():
        decay = decay_at(float(name), step, ramp=ramp)
        new_averages[name] = jax.tree.map(
            lambda e, p, decay=decay: decay * e + (1 - decay) * p, average, params
        )
        new_share[name] = decay * initial_share[name]
    return new_averages, new_share


def choose(
    weights: str, initial_share: dict[str, float], *, name: str | None, field: str
) -> tuple[str | None, str]:
    """Decide which weights to use, and say why in a sentence.

    Args:
        weights: "auto", "ema" or "raw".
        initial_share: the share of initial weights left in each average.
        name: the average that counts, e.g. "0.9999"; None where none is kept.
        field: the config field of `weights`, for the sentence.

    Returns:
        The name of the average, or None for the raw weights; and the sentence.

    Raises:
        Refusal: an unknown choice, or an average that is not kept.
    """
    if weights not in ("auto", "ema", "raw"):
        raise errors.Refusal(
            f"unknown {field} {weights!r}: choose 'auto', 'ema' or 'raw'"
        )
    if weights == "raw":
        return None, "raw weights, as asked"
    if name is None and weights == "ema":
        raise errors.Refusal(
            f"{field}='ema': this run keeps no average of its weights, for its "
            f"train.ema_decay is (); set {field}=auto"
        )
    if name is None:
        return None, "raw weights, for the run keeps no average (train.ema_decay=())"
    share = initial_share[name]
    is_tiny = 0 < share < 1e-4
    percent = "less than 0.01" if is_tiny else f"{100 * share:.2g}"
    holds = f"EMA {name} holds {percent} % of the initial weights"
    if weights == "ema":
        return name, f"EMA weights, as asked ({holds})"
    if share < MAX_INITIAL_SHARE:
        return name, f"EMA weights ({holds})"
    return None, f"raw weights, because {holds}; {field}=ema insists"
