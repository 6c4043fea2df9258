"""Noise schedules, term by term in float64 Python."""

import math

import numpy as np


def linear(num_steps, *, beta_start=1e-4, beta_end=0.02):
    """DDPM's endpoints for 1000 steps, scaled so that the end of the chain stays."""
    scale = 1000 / num_steps
    return linear_fixed(
        num_steps, beta_start=scale * beta_start, beta_end=scale * beta_end
    )


def linear_fixed(num_steps, *, beta_start=1e-4, beta_end=0.02):
    if num_steps == 1:
        return np.array([beta_start])
    slope = (beta_end - beta_start) / (num_steps - 1)
    return np.array([beta_start + slope * i for i in range(num_steps)])


def cosine(num_steps):
    """Improved DDPM eq. 17.

    With a, b the angles at both ends of a step, 1 − cos²b / cos²a is
    sin(b − a) sin(b + a) / cos²a: no difference of nearly equal numbers.
    """

    def angle(u):
        return (u + 0.008) / 1.008 * math.pi / 2

    betas = []
    for i in range(num_steps):
        a, b = angle(i / num_steps), angle((i + 1) / num_steps)
        betas.append(min(math.sin(b - a) * math.sin(b + a) / math.cos(a) ** 2, 0.999))
    return np.array(betas)


def quad(num_steps, *, beta_start=1e-4, beta_end=0.02):
    roots = linear_fixed(
        num_steps, beta_start=math.sqrt(beta_start), beta_end=math.sqrt(beta_end)
    )
    return roots * roots


def const(num_steps, *, beta_end=0.02, **_):
    return np.array([beta_end] * num_steps)


def warmup(num_steps, fraction, *, beta_start=1e-4, beta_end=0.02):
    rising = int(num_steps * fraction)
    head = linear_fixed(rising, beta_start=beta_start, beta_end=beta_end)
    return np.array([*head[:rising], *[beta_end] * (num_steps - rising)])


def warmup10(num_steps, **ends):
    return warmup(num_steps, 0.1, **ends)


def warmup50(num_steps, **ends):
    return warmup(num_steps, 0.5, **ends)


def jsd(num_steps):
    return np.array([1 / (num_steps - i) for i in range(num_steps)])


def sigmoid(num_steps, *, beta_start=1e-4, beta_end=0.02):
    def logistic(z):
        return 1 / (1 + math.exp(-z))

    points = [-6 + 12 * i / max(num_steps - 1, 1) for i in range(num_steps)]
    return np.array(
        [beta_start + (beta_end - beta_start) * logistic(z) for z in points]
    )


BY_NAME = {
    "linear": linear,
    "linear_fixed": linear_fixed,
    "cosine": cosine,
    "quad": quad,
    "const": const,
    "warmup10": warmup10,
    "warmup50": warmup50,
    "jsd": jsd,
    "sigmoid": sigmoid,
}


def alpha_bar(betas):
    """Signal that is left: the product of 1 − β by logarithms in extended precision."""
    with np.errstate(divide="ignore"):
        logs = np.log1p(-np.asarray(betas, np.longdouble))
    return np.exp(np.cumsum(logs)).astype(np.float64)


def zero_terminal_snr(betas):
    """Lin et al. 2023, algorithm 1: √ᾱ moved and stretched so that its end is 0."""
    root = np.sqrt(alpha_bar(betas))
    moved = (root - root[-1]) * root[0] / (root[0] - root[-1])
    moved[0], moved[-1] = root[0], 0.0
    kept = np.square(moved)
    return 1 - kept / np.concatenate([[1.0], kept[:-1]])
