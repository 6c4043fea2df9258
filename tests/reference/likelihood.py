"""Bits per dimension and its parts, in float64."""

import math

import numpy as np

from reference import reverse

LN_2 = math.log(2)


def mean_flat(values):
    return values.reshape(len(values), -1).mean(axis=1)


def normal_kl(mean_1, log_var_1, mean_2, log_var_2):
    """½ (r − 1 − log r + Δ² / σ_2²) with r = σ_1² / σ_2², in nats."""
    log_ratio = np.asarray(log_var_1 - log_var_2)
    square = np.square(mean_1 - mean_2) * np.exp(-np.asarray(log_var_2))
    return (np.expm1(log_ratio) - log_ratio + square) / 2


def approximate_cdf(z):
    """Page's Φ: ½ (1 + tanh y) is the logistic function of 2y; small tails survive."""
    y = math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)
    return np.where(
        y < 0,
        np.exp(2 * np.minimum(y, 0)) / (1 + np.exp(2 * np.minimum(y, 0))),
        1 / (1 + np.exp(-2 * np.maximum(y, 0))),
    )


def bin_probability(x, mean, log_scale, levels):
    """The mass of N(mean, scale²) in the bin of each x of the grid −1 … 1.

    The outer bins reach to infinity. Where a bin lies right of the mean it is mirrored,
    so that the difference is between small numbers.
    """
    x, mean, scale = np.broadcast_arrays(x, mean, np.exp(log_scale))
    half = 1 / (levels - 1)
    high = np.where(x > 1 - half, np.inf, (x + half - mean) / scale)
    low = np.where(x < -1 + half, -np.inf, (x - half - mean) / scale)
    mirrored = x > mean
    low, high = np.where(mirrored, -high, low), np.where(mirrored, -low, high)
    return approximate_cdf(high) - approximate_cdf(low)


def discretised_log_prob(x, mean, log_scale, levels):
    return np.log(np.maximum(bin_probability(x, mean, log_scale, levels), 1e-12))


def vlb_elements(process, x_0, x_t, t, predicted, levels):
    """Elementwise VLB term in bits: decoder at t = 0, else KL to the posterior."""
    true_mean, true_log_var = process.posterior(x_0, x_t, t)
    kl = normal_kl(true_mean, true_log_var, predicted.mean, predicted.log_var)
    decoder = -discretised_log_prob(x_0, predicted.mean, predicted.log_var / 2, levels)
    first = (t == 0).reshape(len(t), *[1] * (x_0.ndim - 1))
    return np.where(first, decoder, kl) / LN_2


def prior_bpd(process, x_0):
    signal, var = process.alpha_bar[-1], process.noise_var[-1]
    kl = normal_kl(math.sqrt(signal) * x_0, math.log(var), 0.0, 0.0)
    return mean_flat(kl) / LN_2


def bits_per_dim(process, predict, x_0, draws, levels=256):
    """Every term; draws[k] is the noise at t = T − 1 − k; columns by t."""
    steps, batch = process.num_steps, len(x_0)
    vb, x_0_mse, noise_mse = (np.empty((batch, steps)) for _ in range(3))
    for k in range(steps):
        t = np.full(batch, steps - 1 - k)
        x_t = process.q_sample(x_0, t, draws[k])
        p = predict(x_t, t)
        column = steps - 1 - k
        vb[:, column] = mean_flat(vlb_elements(process, x_0, x_t, t, p, levels))
        x_0_mse[:, column] = mean_flat(np.square(p.x_0 - x_0))
        noise_mse[:, column] = mean_flat(np.square(p.noise - draws[k]))
    prior = prior_bpd(process, x_0)
    return {
        "total": vb.sum(axis=1) + prior,
        "prior": prior,
        "vb": vb,
        "x_0_mse": x_0_mse,
        "noise_mse": noise_mse,
    }


def vlb_of_output(process, output, x_0, noise, t, *, prediction, variance, levels):
    """The VLB term of a raw output without clipping, elementwise."""
    x_t = process.q_sample(x_0, t, noise)
    p = reverse.reverse(
        process, output, x_t, t, prediction=prediction, variance=variance
    )
    return vlb_elements(process, x_0, x_t, t, p, levels)
