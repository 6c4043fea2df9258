"""Guidance: by mixing network outputs, or by the gradient of a classifier.

Mixing the outputs of several branches is stage 1 of a prediction: `extrapolated` and
`rescaled` act on the channels that say the mean, and `mixed` chains them. A
classifier's gradient is a prediction transform, stage 3.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.core import conditions, errors
from ddpm_jax.core.types import Network
from ddpm_jax.diffusion import process, reverse

FORMS = ("mean", "score")


def extrapolate(main: Network, other: Network, scale: float) -> Network:
    """Return the network `other + scale·(main − other)` on the mean channels.

    Both must predict the same quantity; the variance channels are main's. Scales 1
    and 0 evaluate one network alone and return its whole output. With a weaker
    checkpoint as `other` this is autoguidance.
    """
    is_number = not isinstance(scale, jax.Array)
    if is_number and scale == 1:
        return main
    if is_number and scale == 0:
        return other

    def network(x_t, t_seen):
        return _mix(main(x_t, t_seen), other(x_t, t_seen), scale, x_t.shape[-1])

    return network


def classifier_free(
    network: Callable[[jax.Array, jax.Array, conditions.Condition], jax.Array],
    condition: conditions.Condition,
    unconditional: conditions.Condition,
    scale: float | jax.Array,
) -> Network:
    """Return the guided network, evaluated as one batch of 2B.

    Args:
        network: `(x_t, t_seen, condition) → output`.
        condition, unconditional: arrays [B, ...] by key, see `conditions.without`, or
            any other pytree of arrays.
        scale: 1 is plain conditional, 0 unconditional; each evaluates B alone, where
            the scale is a number. A scale that is traced evaluates 2B always.

    Reference: Ho & Salimans 2021; the form and its scale are GLIDE's eq. 8.
    """
    is_number = not isinstance(scale, jax.Array)
    if is_number and scale == 1:
        return lambda x_t, t_seen: network(x_t, t_seen, condition)
    if is_number and scale == 0:
        return lambda x_t, t_seen: network(x_t, t_seen, unconditional)
    pair = in_pairs(network, condition, unconditional)
    return lambda x_t, t_seen: _mix(*pair(x_t, t_seen), scale, x_t.shape[-1])


# ---- outputs of several branches -----------------------------------------------------

MAIN = "main"  # the branch that is guided: its variance channels are the result's


def extrapolated(guided, other, *, scale):
    """Return `other + scale·(guided − other)`.

    Away from the unconditional branch this is classifier-free guidance, away from a
    weaker network autoguidance (Karras et al. 2024, eq. 3), away from another class
    what a negative prompt does.

    Args:
        guided, other: outputs of the mean channels, [B, ..., C].
        scale: 1 is `guided`, 0 is `other`.
    """
    return other + scale * (guided - other)


def rescaled(guided, plain, *, share):
    """Return `guided` with its deviation brought back toward that of `plain`.

    Large scales raise the deviation of each example, which burns pictures.

    Args:
        guided, plain: outputs of the mean channels, [B, ..., C]; `plain` is the
            conditional network alone.
        share: φ, 0 leaves `guided`, 1 gives it the whole deviation of `plain`.

    Reference: Lin et al. 2023, eq. 15 and 16.
    """
    axes = tuple(range(1, guided.ndim))

    def deviation(values):
        return jnp.std(values.astype(jnp.float32), axis=axes, keepdims=True)

    ratio = deviation(plain) / jnp.maximum(deviation(guided), TINY)
    return guided * (share * ratio + (1 - share)).astype(guided.dtype)


TINY = 1e-12  # deviation of a constant output, which nothing can rescale


def mixed(
    outputs: Mapping[str, jax.Array],
    mixings: Sequence[Callable[[jax.Array, Mapping[str, jax.Array]], jax.Array]],
    channels: int,
) -> jax.Array:
    """Return the output of `MAIN`, its mean channels changed by each mixing in turn.

    Args:
        outputs: of the branches at one (x_t, t), by name, [B, ..., C or 2C].
        mixings: `(mean channels so far, mean channels of all branches) → mean
            channels`.
        channels: C.
    """
    main = outputs[MAIN]
    means = {name: output[..., :channels] for name, output in outputs.items()}
    mean = means[MAIN]
    for mixing in mixings:
        mean = mixing(mean, means)
    return jnp.concatenate([mean, main[..., channels:]], axis=-1)


def _mix(main, other, scale, channels):
    def mixing(mean, means):
        return extrapolated(mean, means["other"], scale=scale)

    return mixed({MAIN: main, "other": other}, [mixing], channels)


def in_pairs(network, one, other) -> Callable[[jax.Array, jax.Array], tuple]:
    """Return `(x_t, t_seen) → both outputs` of a network under two conditions.

    They are evaluated as one batch of 2B.

    Args:
        network: `(x_t, t_seen, condition) → output`.
        one, other: conditions, pytrees of arrays [B, ...].
    """
    both = conditions.paired(one, other)

    def pair(x_t, t_seen):
        x_twice, t_twice = (jnp.repeat(a, 2, axis=0) for a in (x_t, t_seen))
        output = network(x_twice, t_twice, both)
        pairs = output.reshape(-1, 2, *output.shape[1:])
        return pairs[:, 0], pairs[:, 1]

    return pair


# ---- the gradient of a classifier ----------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class ClassifierGuidance:
    """The prediction transform that `classifier` returns."""

    tables: process.Tables
    log_prob: Callable[[jax.Array, jax.Array], jax.Array]
    scale: float
    form: str

    def __call__(self, x_t, t, prediction: reverse.Prediction) -> reverse.Prediction:
        t_seen = process.seen(self.tables, t, x_t)
        # Examples do not interact, so the gradient of the sum is each one's own.
        gradient = self.scale * jax.grad(lambda x: jnp.sum(self.log_prob(x, t_seen)))(
            x_t
        )
        if self.form == "mean":
            mean = prediction.mean + prediction.variance * gradient
            return prediction._replace(mean=mean)
        sigma = process.at(self.tables.sqrt_one_minus_alpha_bar, t, x_t)
        noise = prediction.noise - sigma * gradient
        return reverse.rebuild(self.tables, prediction, x_t, t, noise=noise)


def classifier(
    tables: process.Tables,
    log_prob: Callable[[jax.Array, jax.Array], jax.Array],
    scale: float,
    *,
    form: str,
) -> ClassifierGuidance:
    """Return the prediction transform of classifier guidance.

    Args:
        log_prob: `(x_t, t_seen) → log p(y | x_t)`, [B]; t_seen as the network sees it.
        scale: factor s of the gradient g, taken at (x_t, t).
        form: "mean" shifts the mean by variance·g, also at t = 0, for steps that read
            the mean (ADM algorithm 1; the paper takes g at the mean, the published
            code at x_t); "score" subtracts √(1−ᾱ_t)·g from the noise, rebuilt from the
            clipped x̂_0, for steps that read the noise (ADM algorithm 2).

    Raises:
        Refusal: unknown form; score form where ᾱ reaches 0.
    """
    if form not in FORMS:
        raise errors.Refusal(
            f"unknown form {form!r} of classifier guidance: choose 'mean' (ancestral) "
            "or 'score' (DDIM)"
        )
    # Tables that are inputs of a program have no schedule: they were checked before.
    if form == "score" and tables.schedule:
        check_score_form(tables.schedule)
    return ClassifierGuidance(tables, log_prob, scale, form)


def check_score_form(schedule: process.Schedule) -> None:
    """Refuse to shift the noise where ᾱ reaches 0.

    Raises:
        Refusal: x_0 cannot be recovered from the noise there.
    """
    if np.any(schedule.alpha_bar == 0):
        raise errors.Refusal(
            "score form of classifier guidance with ᾱ = 0 at the last step: x_0 cannot "
            "be recovered from the shifted noise; use form 'mean' with ancestral steps"
        )
