"""From a network's output to the reverse distribution, in float64."""

from typing import NamedTuple

import numpy as np

from reference.process import column


class Reverse(NamedTuple):
    x_0: np.ndarray
    noise: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    log_var: np.ndarray


def variances(process, half, x_t, t, variance):
    """Variance and log-variance; `half` is the output's second half or None."""
    like = np.ones_like(x_t)
    if variance == "fixed_small":
        log_var = column(process.posterior_log_var, t, x_t)
        return column(process.posterior_var, t, x_t) * like, log_var * like
    if variance == "fixed_large":
        large = column(process.large_var, t, x_t) * like
        return large, np.log(large)
    if variance == "learned":
        return np.exp(half), half
    low = column(process.posterior_log_var, t, x_t)
    high = np.log(column(process.beta, t, x_t))
    log_var = (low + high) / 2 + half * (high - low) / 2
    return np.exp(log_var), log_var


def reverse(process, output, x_t, t, *, prediction, variance, hook=None):
    """Spec A3 and A4; `hook(x_0)` changes the estimate (clipping, thresholding)."""
    channels = x_t.shape[-1]
    half = output[..., channels:] if output.shape[-1] > channels else None
    output = output[..., :channels]
    x_0 = process.x_0_from(prediction, output, x_t, t)
    if hook is not None:
        x_0 = hook(x_0)
    mean = process.posterior(x_0, x_t, t)[0]
    if prediction == "x_prev":
        mean = output
    noise = process.noise_from_x_0(x_0, x_t, t)
    return Reverse(x_0, noise, mean, *variances(process, half, x_t, t, variance))


def clip(x_0):
    return np.minimum(np.maximum(x_0, -1.0), 1.0)


def dynamic_threshold(x_0, percentile, maximum):
    """Imagen: clip each example to its own quantile s of |x_0|, then divide by s."""
    result = np.empty_like(x_0)
    for i, example in enumerate(x_0):
        ordered = np.sort(np.abs(example), axis=None)
        position = percentile * (ordered.size - 1)
        below = int(np.floor(position))
        above = min(below + 1, ordered.size - 1)
        s = ordered[below] + (position - below) * (ordered[above] - ordered[below])
        s = min(max(s, 1.0), maximum)
        result[i] = np.minimum(np.maximum(example, -s), s) / s
    return result
