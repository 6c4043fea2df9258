"""Laws of restoration for Gaussian data, from the papers' formulas.

x_0 ~ N(0, S), y = A x_0 + σ n. With the exact denoiser "pigdm" and "exact" are linear
in x_t and y, so that the law of their chains follows a recursion, here in float64 with
scores, matrix inverses and ᾱ alone: no vector-Jacobian product, no iteration.
"""

import numpy as np


def posterior(data, operator, std):
    """The gain K and the covariance of p(x_0 | y) = N(K y, V), by Bayes' rule."""
    seen = operator @ data @ operator.T + std**2 * np.eye(len(operator))
    gain = data @ operator.T @ np.linalg.pinv(seen, hermitian=True)
    return gain, data - gain @ operator @ data


def estimate(alpha_bar, data, operator, std, likelihood):
    """x̂_0 = of_x x_t + of_y y, as a likelihood has it."""
    size, root = len(data), np.sqrt(alpha_bar)
    eye, left = np.eye(size), 1 - alpha_bar
    if likelihood == "exact":  # the joint law of (x_0, x_t, y)
        seen = np.vstack([root * eye, operator])
        noise = np.diag([left] * size + [std**2] * len(operator))
        seen_cov = seen @ data @ seen.T + noise
        gain = data @ seen.T @ np.linalg.pinv(seen_cov, hermitian=True)
        return gain[:, :size], gain[:, size:]
    score = -np.linalg.inv(alpha_bar * data + left * eye)  # ∇ log p(x_t) = score x_t
    of_x = (eye + left * score) / root  # Tweedie
    # ∇ log N(y; A x̂_0, r² A Aᵀ + σ²), r² = 1−ᾱ (ΠGDM, VP), and Tweedie again
    seen = left * operator @ operator.T + std**2 * np.eye(len(operator))
    pull = of_x.T @ operator.T @ np.linalg.pinv(seen, hermitian=True)
    of_y = left * pull / root
    return of_x - of_y @ operator @ of_x, of_y


def law(alpha_bar, data, operator, std, likelihood):
    """The gain G and covariance of ancestral samples N(G y, C) that start from noise.

    Steps are DDPM's eq. 7 with the small variance; alpha_bar is of the respaced chain.
    """
    size = len(data)
    gain, cov = np.zeros((size, len(operator))), np.eye(size)
    for now, then in zip(alpha_bar[::-1], [*alpha_bar[-2::-1], 1.0], strict=True):
        ratio = now / then
        of_x_0 = np.sqrt(then) * (1 - ratio) / (1 - now)
        of_x_t = np.sqrt(ratio) * (1 - then) / (1 - now)
        added = (1 - then) / (1 - now) * (1 - ratio)
        of_x, of_y = estimate(now, data, operator, std, likelihood)
        whole = of_x_0 * of_x + of_x_t * np.eye(size)
        gain = whole @ gain + of_x_0 * of_y
        cov = whole @ cov @ whole.T + added * np.eye(size)
    return gain, cov
