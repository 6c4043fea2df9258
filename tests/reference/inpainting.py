"""Laws of inpainting for pairs of correlated Gaussians, from the papers' formulas.

x_0 = (known, hole) ~ N(0, S) with S = [[1, ρ], [ρ, 1]], known = y. With the exact
denoiser every method but DPS is affine in x_t, so mean and covariance follow a
recursion, here in float64 and written with scores and ᾱ alone.
"""

import numpy as np

IDENTITY = np.eye(2)
ROW = np.array([[1.0, 0.0]])  # A, which keeps the known coordinate


def covariance(rho):
    return np.array([[1.0, rho], [rho, 1.0]])


def conditional(rho, y):
    """The true mean and variance of the hole."""
    return rho * y, 1 - rho**2


def score(alpha_bar, rho):
    """∇ log p(x_t) = M x_t."""
    return -np.linalg.inv(alpha_bar * covariance(rho) + (1 - alpha_bar) * IDENTITY)


def tweedie(alpha_bar, matrix, offset):
    """E[x_0 | …] = (x_t + (1−ᾱ) s)/√ᾱ for a score s = matrix x_t + offset."""
    root = np.sqrt(alpha_bar)
    return (IDENTITY + (1 - alpha_bar) * matrix) / root, (1 - alpha_bar) * offset / root


def estimate(alpha_bar, rho, y, method, measurement_std):
    """x̂_0 = matrix x_t + offset, as a method has it."""
    matrix, offset = score(alpha_bar, rho), np.zeros(2)
    if method == "pigdm":
        jacobian, _ = tweedie(alpha_bar, matrix, offset)
        # log N(y; A x̂_0, r² A Aᵀ + σ_y²), r² = 1−ᾱ (ΠGDM, VP)
        pull = jacobian.T @ ROW.T / (1 - alpha_bar + measurement_std**2)
        offset = pull[:, 0] * y
        matrix = matrix - pull @ ROW @ jacobian
    if method == "exact":
        # the joint law of (x_0, x_t, y), with Bayes' rule for x_0 given both
        seen = np.vstack([np.sqrt(alpha_bar) * IDENTITY, ROW])
        noise = np.diag([1 - alpha_bar, 1 - alpha_bar, measurement_std**2])
        data = covariance(rho)
        gain = data @ seen.T @ np.linalg.inv(seen @ data @ seen.T + noise)
        return gain[:, :2], gain[:, 2] * y
    return tweedie(alpha_bar, matrix, offset)


def move(now, then, eta):
    """Weights of x̂_0 and x_t, and variance: DDPM eq. 7, with an eta DDIM eq. 12."""
    ratio = now / then
    added = (1 - then) / (1 - now) * (1 - ratio)
    if eta is None:
        of_x_0 = np.sqrt(then) * (1 - ratio) / (1 - now)
        return of_x_0, np.sqrt(ratio) * (1 - then) / (1 - now), added
    added = eta**2 * added
    direction = np.sqrt(max(1 - then - added, 0)) / np.sqrt(1 - now)
    return np.sqrt(then) - direction * np.sqrt(now), direction, added


def law(alpha_bar, path, rho, y, method, *, eta=None, measurement_std=0.0, large=False):
    """Mean [2] and covariance [2, 2] of samples that start from N(0, I).

    Args:
        alpha_bar: [T′]; path: entries (t, t_next, kind).
        method: "replace" (also with the path of RePaint), "pigdm" or "exact".
        eta: None for ancestral steps, else of DDIM.
        large: whether the variance of ancestral steps is β, not β̃.
    """
    mean, cov = np.zeros(2), np.eye(2)

    def redraw(mean, cov, at):
        """Known ~ q(x_t | x_0 = y), independent of the hole."""
        if method != "replace":
            return mean, cov
        return np.array([np.sqrt(at) * y, mean[1]]), np.diag([1 - at, cov[1, 1]])

    mean, cov = redraw(mean, cov, alpha_bar[path[0][0]])
    for t, t_next, kind in path:
        now, then = alpha_bar[t], 1.0 if t_next < 0 else alpha_bar[t_next]
        if kind == "renoise":  # q(x_{t_next} | x_t)
            mean = np.sqrt(then / now) * mean
            cov = then / now * cov + (1 - then / now) * IDENTITY
            continue
        matrix, offset = estimate(now, rho, y, method, measurement_std)
        of_x_0, of_x_t, added = move(now, then, eta)
        if large:
            added = 1 - now / then if t_next >= 0 else 0.0
        whole = of_x_0 * matrix + of_x_t * IDENTITY
        mean = whole @ mean + of_x_0 * offset
        cov = whole @ cov @ whole.T + added * IDENTITY
        mean, cov = redraw(mean, cov, then)
    return mean, cov
