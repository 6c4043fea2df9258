"""What is known exactly of the toy data: ceilings of the bound, and good samples.

All of it is float64 NumPy, and nothing of it is learned. Numbers are in bits.
"""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ddpm_jax.data import toy

CHORDS = 4000  # of the roll, which distances are measured to
NODES = 7  # of Gauss–Hermite in each direction
PLACES = 240  # along the roll
FEW_NODES, FEW_PLACES = 5, 60  # of the same, where every step is integrated …
PLACES_OF_X_0 = 20  # … and places of x_0 are as close as 0.7 deviations of x_t


class Law(NamedTuple):
    """What is known of a source.

    Attributes:
        ceiling: (chain's settings) → the largest K that the chain permits, and why.
        log_likelihood: of the data itself, None where it has no density.
        judge: (samples as data [n, ...], β_1) → numbers of the card by name.
        of_chain: β [T] → the largest K with these, where `ceiling` is of any chain.
    """

    ceiling: Callable[..., float]
    ceiling_told: str
    log_likelihood: float | None
    judge: Callable[..., dict[str, float]]
    of_chain: Callable[..., float] | None = None


# ---- heartbeat -----------------------------------------------------------------------


def heartbeat_ceiling(betas, prior_mean: float) -> float:
    """Return K of the best factorised reverse chain of the binary heartbeat, in bits.

    Given the phase, the bits of x_t are independent, and of x_t all that matters is how
    many of the four bins of each phase are 1: 5⁵ counts, which are summed over. The
    best factorised step is q(x_{t−1,i}=1|x_t), the mean of the posterior over phases.

    Args:
        betas: [T].
        prior_mean: of kernel and prior.
    """
    counts, ways = _counts_of_heartbeat()
    alpha_bar = np.cumprod(1 - np.asarray(betas, np.float64))
    before = np.append(1.0, alpha_bar[:-1])
    total = _bits(_ends_of_heartbeat(alpha_bar, prior_mean))
    for t in range(1, len(betas)):
        total -= _bits(
            _step_of_heartbeat(
                counts, ways, betas[t], alpha_bar[t], before[t], prior_mean
            )
        )
    return total


def _counts_of_heartbeat():
    """Return counts [350, 5], the true phase first, and how many states have each.

    The four other phases are alike: their counts are taken in ascending order alone.
    """
    per_phase, others = toy.BINS // toy.PERIOD, toy.PERIOD - 1
    found, ways = [], []
    values = range(per_phase + 1)
    for rest in itertools.combinations_with_replacement(values, others):
        repeats = [rest.count(value) for value in values]
        orders = math.factorial(others) // math.prod(map(math.factorial, repeats))
        for first in values:
            found.append((first, *rest))
            bits = math.prod(math.comb(per_phase, n) for n in found[-1])
            ways.append(orders * bits)
    return np.array(found, np.float64), np.array(ways, np.float64)


def _ends_of_heartbeat(alpha_bar, mean):
    """Return −KL(q(x_T|x_0) ‖ π) − H(X_1|X_0) in nats."""
    pulses = toy.BINS // toy.PERIOD
    rests = toy.BINS - pulses
    total = 0.0
    for number, bit in ((pulses, 1.0), (rests, 0.0)):
        first = mean + (bit - mean) * alpha_bar[0]
        last = mean + (bit - mean) * alpha_bar[-1]
        total -= number * (_bernoulli_kl(last, mean) + _bernoulli_entropy(first))
    return total


def _step_of_heartbeat(counts, ways, beta, alpha_bar, before, mean):
    """Return E KL(q(x_{t−1}|x_t,x_0) ‖ the best factorised step), in nats."""
    per_phase = toy.BINS // toy.PERIOD
    on = np.array([mean * (1 - alpha_bar), mean + (1 - mean) * alpha_bar])  # by x_0

    # The law of the counts where phase 0 is the true one, and of the phase given them.
    def log_law(phase):
        chance = np.where(np.arange(toy.PERIOD) == phase, on[1], on[0])
        ones = counts * np.log(chance) + (per_phase - counts) * np.log1p(-chance)
        return ones.sum(axis=1)

    log_laws = np.stack([log_law(phase) for phase in range(toy.PERIOD)], axis=1)
    weight = ways * np.exp(log_laws[:, 0])
    phase = np.exp(log_laws - log_laws.max(axis=1, keepdims=True))
    phase /= phase.sum(axis=1, keepdims=True)  # [counts, phases]

    total = 0.0
    for bit, number in ((1.0, counts), (0.0, per_phase - counts)):
        kernel = [v if bit else 1 - v for v in (mean * beta, 1 - beta + mean * beta)]
        after = []
        for x_0 in (0, 1):
            was_on = mean + (x_0 - mean) * before
            joint = kernel[1] * was_on, kernel[0] * (1 - was_on)
            after.append(joint[0] / (joint[0] + joint[1]))
        best = phase * after[1] + (1 - phase) * after[0]
        true = np.where(np.arange(toy.PERIOD) == 0, after[1], after[0])
        total += np.sum(weight * (number * _bernoulli_kl(true, best)).sum(axis=1))
    return total


def _bernoulli_kl(p, q):
    return _times_log(p, q) + _times_log(1 - p, 1 - q)


def _times_log(p, q):
    p, q = np.broadcast_arrays(p, q)
    return np.where(p > 0, p * np.log(np.where(p > 0, p, 1) / q), 0.0)


def _bernoulli_entropy(p):
    return -(p * np.log(p) + (1 - p) * np.log1p(-p))


def _bits(nats):
    return float(nats / math.log(2))


def judge_heartbeats(samples, beta_1: float) -> dict[str, float]:
    """Return the share of samples that are one of the five heartbeats."""
    del beta_1
    bits = (np.asarray(samples).reshape(-1, toy.BINS) > 0).astype(np.float32)
    matches = (bits[:, None] == toy.heartbeats()).all(axis=-1)
    return {"valid_share": float(matches.any(axis=1).mean())}


# ---- swiss roll ----------------------------------------------------------------------


def swissroll_ceiling(beta_1: float) -> float:
    """Return −H(X_1) of the swiss roll in bits, which no K exceeds.

    X_1 = √(1−β_1) X_0 + √β_1 ε. The mean of log p over X_1 is taken by the midpoint
    rule along the roll and Gauss–Hermite across; p itself is a mean over the roll.

    Args:
        beta_1: the first rate.
    """
    deviation = math.sqrt(beta_1)
    roll = math.sqrt(1 - beta_1) * toy.roll_at(_angles(PLACES))
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    weights = weights / weights.sum()
    length = np.linalg.norm(np.diff(toy.roll_at(_angles(20_000)), axis=0), axis=1).sum()
    fine = math.sqrt(1 - beta_1) * toy.roll_at(_angles(int(5 * length / deviation)))
    offsets = deviation * np.stack(np.meshgrid(nodes, nodes), axis=-1).reshape(-1, 2)
    both = np.outer(weights, weights).reshape(-1)
    reach = deviation * (2 * abs(nodes).max() + 8)
    total = 0.0
    for place in roll:
        near = fine[np.linalg.norm(fine - place, axis=1) < reach]
        squares = np.square((place + offsets)[:, None] - near).sum(axis=-1) / beta_1
        least = squares.min(axis=1, keepdims=True)
        density = np.exp(-0.5 * (squares - least)).sum(axis=1) / len(fine)
        log_density = np.log(density) - 0.5 * least[:, 0] - math.log(2 * np.pi * beta_1)
        total += both @ log_density
    return _bits(total / PLACES)


def swissroll_chain_ceiling(betas) -> float:
    """Return K of the best chain with these β and a diagonal f_Σ, in bits.

    The best f_μ and f_Σ are the moments of q(x_{t−1}|x_t). Where the roll runs aslant
    to the axes they do not describe that law, and each step loses; more lose less.
    Means over x_t are taken along the roll and by Gauss–Hermite across, moments of x_0
    given x_t by sums over the roll.

    Args:
        betas: [T].
    """
    alpha_bar = np.cumprod(1 - np.asarray(betas, np.float64))
    nodes, weights = np.polynomial.hermite_e.hermegauss(FEW_NODES)
    offsets = np.stack(np.meshgrid(nodes, nodes), axis=-1).reshape(-1, 2)
    both = np.outer(weights, weights).reshape(-1) / weights.sum() ** 2
    last = alpha_bar[-1]
    total = 1 + math.log(1 - last) - (1 - last)  # −KL(q(x_T|x_0) ‖ π), unit variance
    total += -last - (1 + math.log(2 * math.pi * (1 - alpha_bar[0])))
    for t in range(1, len(alpha_bar)):
        means = math.sqrt(alpha_bar[t]) * toy.roll_at(_angles(FEW_PLACES))
        deviation = math.sqrt(1 - alpha_bar[t])
        x_t = (means[:, None] + deviation * offsets).reshape(-1, 2)
        roll = toy.roll_at(_angles(300 + int(PLACES_OF_X_0 / deviation)))
        spread = _variance_given(x_t, roll, alpha_bar[t])
        precision = 1 / (1 - alpha_bar[t - 1]) + (1 - betas[t]) / betas[t]
        share = math.sqrt(alpha_bar[t - 1]) / (1 - alpha_bar[t - 1]) / precision
        lost = 0.5 * np.log1p(share**2 * spread * precision).sum(axis=1)
        total -= lost.reshape(len(means), -1).mean(axis=0) @ both
    return _bits(total)


def _variance_given(x_t, roll, alpha_bar):
    """Return the variance of each axis of x_0 given x_t, [n, 2]."""
    found = []
    scaled = math.sqrt(alpha_bar) * roll
    for part in np.array_split(x_t, max(1, len(x_t) // 100)):
        log = part @ scaled.T - 0.5 * np.square(scaled).sum(axis=1)
        log /= 1 - alpha_bar
        chance = np.exp(log - log.max(axis=1, keepdims=True))
        chance /= chance.sum(axis=1, keepdims=True)
        mean = chance @ roll
        found.append(chance @ np.square(roll) - np.square(mean))
    return np.maximum(np.concatenate(found), 0)


def judge_points(samples, beta_1: float) -> dict[str, float]:
    """Return mean distances to the roll: of samples, and of held-out noised data."""
    generator = np.random.default_rng(7)
    angles = generator.uniform(toy.FIRST_ANGLE, toy.LAST_ANGLE, len(samples))
    shrunk = math.sqrt(1 - beta_1)
    noise = generator.normal(size=(len(samples), 2))
    noised = shrunk * toy.roll_at(angles) + math.sqrt(beta_1) * noise
    given, made = distances(noised), distances(np.asarray(samples, np.float64))
    return {
        "mean_distance": float(made.mean()),
        "median_distance": float(np.median(made)),
        "mean_distance_of_noised_data": float(given.mean()),
        "ratio_of_distances": float(made.mean() / given.mean()),
    }


def distances(points) -> np.ndarray:
    """Return the distance of points [n, 2] to the roll, [n]: to its nearest chord."""
    curve = toy.roll_at(_angles(CHORDS + 1))
    start, along = curve[:-1], np.diff(curve, axis=0)
    square = np.square(along).sum(axis=1)
    found = []
    for point in np.asarray(points, np.float64):
        place = np.clip(((point - start) * along).sum(axis=1) / square, 0, 1)
        gap = point - start - place[:, None] * along
        found.append(math.sqrt(np.square(gap).sum(axis=1).min()))
    return np.array(found)


def _angles(count):
    edges = np.linspace(toy.FIRST_ANGLE, toy.LAST_ANGLE, count + 1)
    return (edges[1:] + edges[:-1]) / 2


LAWS = {
    "heartbeat": Law(
        heartbeat_ceiling,
        "the best chain of factorised steps, by enumeration of the phases",
        -math.log2(toy.PERIOD),
        judge_heartbeats,
    ),
    "swissroll": Law(
        swissroll_ceiling,
        "−H(X_1), by numerical integration",
        None,
        judge_points,
        swissroll_chain_ceiling,
    ),
}
