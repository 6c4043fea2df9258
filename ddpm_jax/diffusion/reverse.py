"""The reverse process p(x_{t−1} | x_t): from network output to a Prediction.

    network output → x̂_0 → hooks (inpainting, thresholding, clipping) → noise, mean

After the hooks one function rebuilds noise and mean from x̂_0, so that the fields of a
Prediction agree with each other. The exception is x_{t−1} prediction: its mean is the
network's and is never clipped; hooks change x_0 and noise only.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.core import arrays, errors, flags
from ddpm_jax.core.types import Network
from ddpm_jax.diffusion import process

LEARNED_VARIANCES = ("learned", "learned_range")

DenoiserTransform = Callable
"""`transform(denoise) → denoise`: stands between a denoiser and what changes its
predictions, and may differentiate it, such as the guidance of a reconstruction."""

X0Hook = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""`hook(x_0, x_t, t) → x_0`."""


class Prediction(NamedTuple):
    """What one network evaluation says about x_t; every field is [B, ..., C].

    `variance` and `log_var` are both here because at t = 0 they are not each other's
    logarithm: with fixed small variance they are 0 and the clipped log β̃.
    """

    x_0: jax.Array
    noise: jax.Array
    mean: jax.Array
    variance: jax.Array
    log_var: jax.Array


# ---- parameterisations: output → x̂_0 ------------------------------------------------

PREDICTIONS = {
    "noise": process.x_0_from_noise,
    "x_0": lambda tables, x_t, t, output: output,
    "x_prev": process.x_0_from_x_prev,
    "v": process.x_0_from_v,
}


# ---- variances: (tables, x_t, t, variance half) → variance, log-variance -------------


def _fixed_small(tables, x_t, t, _):
    return (
        process.at(tables.posterior_variance, t, x_t),
        process.at(tables.posterior_log_var, t, x_t),
    )


def _fixed_large(tables, x_t, t, _):
    return (
        process.at(tables.fixed_large_variance, t, x_t),
        process.at(tables.fixed_large_log_var, t, x_t),
    )


def _learned(tables, x_t, t, values):
    del tables, x_t, t
    return jnp.exp(values), values


def _learned_range(tables, x_t, t, values):
    low = process.at(tables.posterior_log_var, t, x_t)
    high = process.at(tables.log_beta, t, x_t)
    share = (values + 1) / 2  # unbounded: may leave [0, 1]
    log_var = share * high + (1 - share) * low  # Improved DDPM eq. 15
    return jnp.exp(log_var), log_var


VARIANCES = {
    "fixed_small": _fixed_small,
    "fixed_large": _fixed_large,
    "learned": _learned,
    "learned_range": _learned_range,
}


# ---- hooks on x̂_0 --------------------------------------------------------------------


# A hook is a pytree: its numbers are leaves, so that a compiled chain takes them as
# inputs and another value compiles nothing.


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["low", "high"], meta_fields=[]
)
@dataclasses.dataclass(frozen=True)
class Clip:
    """Clip x̂_0 to the range of the data; DDPM's code does so in every sampler."""

    low: float
    high: float

    def __call__(self, x_0, x_t, t):
        return jnp.clip(x_0, self.low, self.high)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["maximum"],
    meta_fields=["percentile"],
)
@dataclasses.dataclass(frozen=True)
class DynamicThreshold:
    """Clip x̂_0 to ±s and divide by s, a quantile of |x̂_0| (see `dynamic_threshold`)."""

    percentile: float
    maximum: float

    def __call__(self, x_0, x_t, t):
        del x_t, t
        size = jnp.abs(x_0).reshape(x_0.shape[0], -1)
        s = jnp.clip(jnp.quantile(size, self.percentile, axis=1), 1.0, self.maximum)
        s = arrays.expand_to(s, x_0)
        return jnp.clip(x_0, -s, s) / s


def clipping(low: float = -1.0, high: float = 1.0) -> Clip:
    """Return the hook that clips x̂_0 to [low, high], numbers or traced ones."""
    bounds = arrays.number(low), arrays.number(high)
    if None in bounds:
        return Clip(low, high)
    if not bounds[0] < bounds[1]:
        raise errors.Refusal(f"clip({low}, {high}): the lower bound must be smaller")
    return Clip(*bounds)


def dynamic_thresholding(percentile: float = 0.995, maximum: float = 1.0) -> X0Hook:
    """Return the hook that clips to a quantile of |x̂_0| and rescales to [−1, 1].

    Args:
        percentile: share of |x̂_0| of each example that is left unclipped, in (0, 1].
        maximum: upper bound of the threshold s, at least 1; 1 is plain clipping. It
            may be traced.

    Reference: Saharia et al. 2022 (Imagen), section 2.3.
    """
    share, largest = arrays.number(percentile), arrays.number(maximum)
    if share is None:
        raise errors.Refusal(
            "dynamic_threshold with a traced percentile: give a number, for the "
            "program is compiled for it; only the maximum may be traced"
        )
    if not 0 < share <= 1 or not (largest is None or largest >= 1):
        raise errors.Refusal(
            f"dynamic_threshold({percentile}, {maximum}): the percentile lies in "
            "(0, 1] and the maximum is at least 1"
        )
    return DynamicThreshold(share, maximum if largest is None else largest)


# ---- the denoiser --------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class Denoiser:
    """A network together with what its output means; see `denoiser`.

    Compared and hashed by identity, because its tables are arrays.
    """

    tables: process.Tables
    network: Network
    prediction: str
    variance: str
    x_0_hooks: tuple[X0Hook, ...]

    @property
    def hooks_miss_mean(self) -> bool:
        """Whether a hook other than clipping has no effect on the mean."""
        others = any(not isinstance(hook, Clip) for hook in self.x_0_hooks)
        return self.prediction == "x_prev" and others

    @flags.as_written()
    def __call__(self, x_t, t) -> Prediction:
        process.check_floats("x_t", x_t)
        output = self.network(x_t, process.seen(self.tables, t, x_t))
        return predict(
            self.tables,
            output,
            x_t,
            t,
            prediction=self.prediction,
            variance=self.variance,
            x_0_hooks=self.x_0_hooks,
        )

    def unhooked(self, x_t, t) -> Prediction:
        """Return the prediction before its hooks, for those who differentiate x̂_0."""
        return dataclasses.replace(self, x_0_hooks=())(x_t, t)

    def hooked(self, prediction: Prediction, x_t, t) -> Prediction:
        """Return an unhooked prediction after the hooks, its fields in agreement."""
        x_0 = prediction.x_0
        for hook in self.x_0_hooks:
            x_0 = hook(x_0, x_t, t)
        if self.prediction != "x_prev":
            mean = process.q_posterior_mean(self.tables, x_0, x_t, t)
            prediction = prediction._replace(mean=mean)
        noise = process.noise_from_x_0(self.tables, x_t, t, x_0)
        return prediction._replace(x_0=x_0, noise=noise)


def denoiser(
    tables: process.Tables,
    network: Network,
    *,
    prediction: str,
    variance: str,
    x_0_hooks: tuple[X0Hook, ...] = (),
) -> Denoiser:
    """Return the callable `(x_t [B, ..., C], t [B]) → Prediction`.

    Args:
        tables: the (respaced) process; `t` counts its steps.
        network: `(x_t, t_seen) → output`; output has 2C channels if the variance is
            learned: first the mean parameter, then the variance parameter.
        prediction: "noise", "x_0", "x_prev" or "v".
        variance: "fixed_small", "fixed_large", "learned" or "learned_range".
        x_0_hooks: applied to x̂_0 in this order.

    Raises:
        Refusal: unknown names; noise prediction where ᾱ reaches 0.
    """
    check_parameterisation(tables.schedule, prediction=prediction, variance=variance)
    return Denoiser(tables, network, prediction, variance, tuple(x_0_hooks))


def check_parameterisation(schedule, *, prediction, variance):
    """Refuse unknown names, and noise prediction where x_t holds no signal."""
    errors.choose("prediction", PREDICTIONS, prediction)
    errors.choose("variance", VARIANCES, variance)
    if prediction == "noise" and np.any(schedule.alpha_bar == 0):
        raise errors.Refusal(
            "prediction 'noise' with ᾱ = 0 at the last step: x_0 cannot be recovered "
            "from pure noise; use prediction 'v' or 'x_0', or a schedule that keeps "
            "some signal"
        )


def check_process(tables: process.Tables, denoise) -> None:
    """Refuse a denoiser of another process than that of the tables.

    Its t would count other steps, and the result be noise without a word.

    Args:
        tables: of the process.
        denoise: a `Denoiser`; others pass, and so does what has no schedule.

    Raises:
        Refusal: both say of which process they are, and they differ.
    """
    if not isinstance(denoise, Denoiser) or denoise.tables is None:
        return
    ours, theirs = tables.schedule, denoise.tables.schedule
    if ours is None or theirs is None or ours == theirs:
        return
    raise errors.Refusal(
        f"tables of {ours.num_steps} steps, and a denoiser of another process, of "
        f"{theirs.num_steps} steps: make both of one process, as "
        f"run.denoiser(steps={ours.num_steps}) returns them"
    )


def predict(
    tables, output, x_t, t, *, prediction, variance, x_0_hooks=()
) -> Prediction:
    """Turn one network output into a Prediction (see `denoiser` for the arguments)."""
    parameter, variance_half = split_output(output, x_t, variance)
    x_0 = PREDICTIONS[prediction](tables, x_t, t, parameter)
    for hook in x_0_hooks:
        x_0 = hook(x_0, x_t, t)
    if prediction == "x_prev":
        mean = parameter
    else:
        mean = process.q_posterior_mean(tables, x_0, x_t, t)
    var, log_var = VARIANCES[variance](tables, x_t, t, variance_half)
    return Prediction(
        x_0=x_0,
        noise=process.noise_from_x_0(tables, x_t, t, x_0),
        mean=mean,
        variance=jnp.broadcast_to(var, x_t.shape),
        log_var=jnp.broadcast_to(log_var, x_t.shape),
    )


def split_output(output, x_t, variance):
    """Split [B, ..., 2C] into mean and variance parameter; [B, ..., C] has no second.

    Raises:
        Refusal: an output whose shape does not fit the kind of variance.
    """
    channels = x_t.shape[-1]
    learned = variance in LEARNED_VARIANCES
    expected = (*x_t.shape[:-1], 2 * channels if learned else channels)
    if output.shape != expected:
        raise errors.Refusal(
            f"network output of shape {output.shape} with variance {variance!r}: "
            f"expected {expected}"
        )
    return output[..., :channels], output[..., channels:] if learned else None


def rebuild(tables, prediction: Prediction, x_t, t, *, noise) -> Prediction:
    """Return `prediction` with another noise, and x_0 and mean recomputed from it."""
    x_0 = process.x_0_from_noise(tables, x_t, t, noise)
    mean = process.q_posterior_mean(tables, x_0, x_t, t)
    return prediction._replace(x_0=x_0, noise=noise, mean=mean)


def moved(tables, prediction: Prediction, x_t, t, *, by) -> Prediction:
    """Return `prediction` with x̂_0 moved by `by`, and noise and mean along with it."""
    x_0 = prediction.x_0 + by
    mean = prediction.mean + process.at(tables.posterior_mean_x_0, t, x_t) * by
    noise = process.noise_from_x_0(tables, x_t, t, x_0)
    return prediction._replace(x_0=x_0, noise=noise, mean=mean)
