"""Chains in float64, one step after another.

`predict(x_t, t)` gives a `reverse.Reverse`; `draws[k]` is the noise of the k-th step;
`gradient(x_t, t)` is that of log p(y | x_t).
"""

import math

import numpy as np


def ancestral(process, predict, x, draws, *, gradient=None):
    for k, step in enumerate(reversed(range(process.num_steps))):
        t = np.full(len(x), step)
        p = predict(x, t)
        mean = p.mean
        if gradient is not None:
            mean = mean + p.variance * gradient(x, t)
        x = mean + (np.exp(p.log_var / 2) * draws[k] if step > 0 else 0)
    return x


def guided_noise(process, p, x, t, gradient):
    if gradient is None:
        return p.noise, p.x_0
    spread = math.sqrt(process.noise_var[t[0]])
    noise = p.noise - spread * gradient(x, t)
    return noise, (x - spread * noise) / math.sqrt(process.alpha_bar[t[0]])


def ddim_step(process, noise, x_0, step, target, eta, draw):
    """DDIM eq. 12 between any two steps; target −1 is clean data."""
    signal, spread = process.alpha_bar[step], process.noise_var[step]
    signal_next = process.alpha_bar[target] if target >= 0 else 1.0
    spread_next = process.noise_var[target] if target >= 0 else 0.0
    # DDIM eq. 16: 1 − ᾱ/ᾱ' is the variance that the joined forward steps add.
    joined = max(1 - signal / signal_next, 0.0)  # upwards only η = 0 makes sense
    sigma = eta * math.sqrt(spread_next / spread * joined)
    # σ² is at most 1 − ᾱ'; rounding may leave a negative of the order of 1e-17.
    direction = math.sqrt(max(spread_next - sigma * sigma, 0.0))
    return math.sqrt(signal_next) * x_0 + direction * noise + sigma * draw


def ddim(process, predict, x, draws, *, eta=0.0, gradient=None):
    for k, step in enumerate(reversed(range(process.num_steps))):
        t = np.full(len(x), step)
        noise, x_0 = guided_noise(process, predict(x, t), x, t, gradient)
        x = ddim_step(process, noise, x_0, step, step - 1, eta, draws[k])
    return x


def encode(process, predict, x):
    """Deterministic DDIM upwards from clean data taken as x_{t=0}: T − 1 steps."""
    for step in range(process.num_steps - 1):
        p = predict(x, np.full(len(x), step))
        x = ddim_step(process, p.noise, p.x_0, step, step + 1, 0.0, 0.0)
    return x
