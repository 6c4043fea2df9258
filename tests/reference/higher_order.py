"""Solvers of second order in float64, as the papers print them.

`levels` are ᾱ from the noisiest on; `x_0(x, ᾱ)` is the denoiser. Each returns x at the
last of the levels. Heun's method is written for x/√ᾱ and its noise-to-signal ratio, the
two of DPM-Solver++ for α, σ and λ.
"""

import itertools

import numpy as np


def ddim(levels, x_0, x):
    """Song et al. 2021, eq. 12 with σ = 0."""
    for k in range(len(levels) - 1):
        x = _ddim_step(x, x_0(x, levels[k]), levels[k], levels[k + 1])
    return x


def _ddim_step(x, estimate, a, b):
    noise = (x - np.sqrt(a) * estimate) / np.sqrt(1 - a)
    return np.sqrt(b) * estimate + np.sqrt(1 - b) * noise


def heun(levels, x_0, x):
    """Karras et al. 2022, algorithm 1 with S_churn = 0: d = (x − D(x; σ))/σ."""
    for a, b in itertools.pairwise(levels):
        if a == 0:
            x = _ddim_step(x, x_0(x, a), a, b)
            continue
        sigma, sigma_next = np.sqrt((1 - a) / a), np.sqrt((1 - b) / b)
        y = x / np.sqrt(a)
        d = (y - x_0(x, a)) / sigma
        y_next = y + (sigma_next - sigma) * d
        d_next = (y_next - x_0(np.sqrt(b) * y_next, b)) / sigma_next
        y = y + (sigma_next - sigma) * (0.5 * d + 0.5 * d_next)
        x = np.sqrt(b) * y
    return x


def _tables(levels):
    alpha, sigma = np.sqrt(levels), np.sqrt(1 - np.asarray(levels))
    with np.errstate(divide="ignore"):
        return alpha, sigma, np.log(alpha) - np.log(sigma)


def dpmpp_2m(levels, x_0, x):
    """Lu et al. 2022 (DPM-Solver++), algorithm 2."""
    alpha, sigma, lam = _tables(levels)
    q = None
    for i in range(1, len(levels)):
        h = lam[i] - lam[i - 1]
        current = x_0(x, levels[i - 1])
        if q is None or np.isinf(lam[i - 2]):
            d = current
        else:
            r = (lam[i - 1] - lam[i - 2]) / h
            d = (1 + 1 / (2 * r)) * current - 1 / (2 * r) * q
        x = sigma[i] / sigma[i - 1] * x - alpha[i] * (np.exp(-h) - 1) * d
        q = current
    return x


def dpmpp_2s(levels, x_0, x):
    """Lu et al. 2022 (DPM-Solver++), algorithm 1, s_i every second level.

    An odd number of intervals begins with a move of first order.
    """
    alpha, sigma, lam = _tables(levels)
    odd = (len(levels) - 1) % 2
    if odd:
        x = _ddim_step(x, x_0(x, levels[0]), levels[0], levels[1])
    for i in range(odd + 2, len(levels), 2):
        p, s = i - 2, i - 1
        u = _ddim_step(x, x_0(x, levels[p]), levels[p], levels[s])
        if np.isinf(lam[p]):
            x = _ddim_step(u, x_0(u, levels[s]), levels[s], levels[i])
            continue
        h = lam[i] - lam[p]
        r = (lam[s] - lam[p]) / h
        d = (1 - 1 / (2 * r)) * x_0(x, levels[p]) + 1 / (2 * r) * x_0(u, levels[s])
        x = sigma[i] / sigma[p] * x - alpha[i] * (np.exp(-h) - 1) * d
    return x


SOLVERS = {"ddim": ddim, "heun": heun, "dpmpp_2m": dpmpp_2m, "dpmpp_2s": dpmpp_2s}


def runge_kutta(first, last, x_0, x, steps):
    """Return x at `last`: the exact flow, by steps of fourth order.

    In z = x/σ the flow is dz/dλ = e^λ x_0 (Lu et al. 2022, eq. 8 before the integral).
    """
    ends = [np.log(a / (1 - a)) / 2 for a in (first, last)]
    grid = np.linspace(*ends, steps + 1)

    def slope(lam, z):
        a = 1 / (1 + np.exp(-2 * lam))
        return np.exp(lam) * x_0(np.sqrt(1 - a) * z, a)

    z = x / np.sqrt(1 - first)
    for lam, after in itertools.pairwise(grid):
        h = after - lam
        k_1 = slope(lam, z)
        k_2 = slope(lam + h / 2, z + h / 2 * k_1)
        k_3 = slope(lam + h / 2, z + h / 2 * k_2)
        k_4 = slope(after, z + h * k_3)
        z = z + h / 6 * (k_1 + 2 * k_2 + 2 * k_3 + k_4)
    return np.sqrt(1 - last) * z
