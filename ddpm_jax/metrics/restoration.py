"""What draws of a restoration say together, and whether they say it truly.

Draws are calibrated if the truth lies among them like one more draw: its rank among k
is then 0 … k with equal chances, and the interval from the j-th smallest draw to the
j-th largest covers it in (k + 1 − 2j)/(k + 1) of all cases.
"""

from typing import NamedTuple

import numpy as np

SHARES = (0.5, 0.9)  # intervals that are asked for
FEWEST = 2  # draws that have a deviation


class Summary(NamedTuple):
    """Mean and deviation of the draws of each measurement, float64 [n, ...]."""

    mean: np.ndarray
    deviation: np.ndarray


class Coverage(NamedTuple):
    """How often an interval of the draws covers the truth.

    Attributes:
        nominal: the share that calibrated draws would cover.
        share: that was covered; None where nothing was counted.
        error: standard error, from one image to another; None for one image.
    """

    nominal: float
    share: float | None
    error: float | None


def summary(draws: np.ndarray) -> Summary:
    """Return mean and deviation of draws [n, k, ...]; k = 1 has a deviation of NaN."""
    draws = np.asarray(draws, np.float64)
    if draws.shape[1] < FEWEST:
        return Summary(draws[:, 0], np.full_like(draws[:, 0], np.nan))
    return Summary(draws.mean(axis=1), draws.std(axis=1, ddof=1))


def ranks(draws: np.ndarray, truth: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return how many draws lie below the truth, int [n, ...] of 0 … k.

    Equal values are put in an order by chance. Where all draws and the truth are equal
    that says nothing of the draws: see `tied`.

    Args:
        draws: [n, k, ...].
        truth: [n, ...].
        seed: of that order.
    """
    generator = np.random.default_rng(seed)
    below = np.sum(draws < truth[:, None], axis=1)
    equal = np.sum(draws == truth[:, None], axis=1)
    return below + generator.integers(0, equal + 1)


def tied(draws: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return where every draw is equal to the truth, bool [n, ...].

    Ranks there are by chance alone, and covered at the nominal rate whatever the draws.

    Args:
        draws: [n, k, ...].
        truth: [n, ...].
    """
    return np.all(draws == truth[:, None], axis=1)


def coverage(found: np.ndarray, draws: int, share: float) -> Coverage:
    """Return how often the interval of draws whose share is next to one covers.

    Args:
        found: [n, ...], from `ranks`; NaN where nothing is to be counted.
        draws: k, at least 2.
        share: of the interval that is asked for, in 0 … 1.
    """
    whole = draws + 1
    left_out = np.clip(round(whole * (1 - share) / 2), 1, draws // 2)
    inside = (found >= left_out) & (found <= draws - left_out)
    counted = np.isfinite(found).reshape(len(found), -1)
    each = np.sum(inside.reshape(counted.shape), axis=1)
    totals = counted.sum(axis=1)
    kept = totals > 0
    shares = each[kept] / totals[kept]
    error = None
    if len(shares) > 1:
        error = float(shares.std(ddof=1) / np.sqrt(len(shares)))
    nominal = (whole - 2 * left_out) / whole
    share = float(shares.mean()) if len(shares) else None
    return Coverage(float(nominal), share, error)


def on_levels(values: np.ndarray, levels: int) -> np.ndarray:
    """Return values of −1 … 1 on the nearest of the data's grey levels, 0 … levels−1.

    The truth lies on one of them exactly, and no draw of a network does.
    """
    return np.rint((np.asarray(values, np.float64) + 1) * (levels - 1) / 2).astype(int)
