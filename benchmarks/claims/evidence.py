"""From stored numbers to verdicts: intervals over seeds, and the rule of the verdict.

A check says that a number, made of measured ones for each seed alone, lies above or
below a bound. Runs of one seed share weights at the start, order of the data and the
noise of samples where their shapes agree, so that numbers of one seed are compared with
each other and only then averaged. With n seeds the interval is mean ± t·s/√n, t being
the 97.5 % quantile of Student's law with n−1 degrees of freedom: 4.303 for three.

The rule, fixed before the runs: a check *holds* where its interval lies wholly on its
side of the bound, is *contradicted* where it lies wholly on the other, and is
*undecided* otherwise. A claim is *reproduced* where all its checks hold, *reproduced in
part* where some do, and *not reproduced at this size* where none does.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

# Measured numbers of one seed: (arm, measure) → values by name.
Lookup = Mapping[tuple[str, str], Mapping]

HOLDS, CONTRADICTED, UNDECIDED = "holds", "contradicted", "undecided"
MISSING = "not yet run"
REPRODUCED, IN_PART = "reproduced", "reproduced in part"
NOT_REPRODUCED = "not reproduced at this size"
UNTESTABLE = "cannot be tested here"


@dataclasses.dataclass(frozen=True)
class Quantity:
    """A number of one seed, made of measured ones.

    Attributes:
        needs: (arm, measure) that it is made of.
        of: lookup → number.
    """

    needs: frozenset[tuple[str, str]]
    of: Callable[[Lookup], float]

    def __sub__(self, other: "Quantity") -> "Quantity":
        return _joined(self, other, lambda a, b: a - b)

    def __truediv__(self, other: "Quantity") -> "Quantity":
        return _joined(self, other, lambda a, b: a / b)


def _joined(one, other, operation):
    return Quantity(
        one.needs | other.needs,
        lambda lookup: operation(one.of(lookup), other.of(lookup)),
    )


def measured(
    arm: str, measure: str, value: str | Callable[[Mapping], float]
) -> Quantity:
    """Return a measured number.

    Args:
        arm, measure: where it was measured.
        value: its name there, or a function of all values of the measurement.
    """
    read = value if callable(value) else lambda values: values[value]
    key = arm, measure
    return Quantity(frozenset([key]), lambda lookup: read(lookup[key]))


@dataclasses.dataclass(frozen=True)
class Check:
    """An inequality that belongs to a claim.

    Attributes:
        told: the inequality in words.
        quantity: of each seed.
        side: "above" or "below".
        bound: that the quantity is to lie above or below.
    """

    told: str
    quantity: Quantity
    side: str
    bound: float = 0.0


class Interval(NamedTuple):
    """Mean and standard error over seeds, and the interval of 95 %."""

    mean: float
    error: float
    low: float
    high: float
    count: int


def interval(values: Sequence[float]) -> Interval:
    """Return the interval of the mean of some seeds.

    Args:
        values: one of each seed, at least two.
    """
    from scipy import stats

    count = len(values)
    if count < 2:
        raise ValueError(f"{count} seed has no interval")
    mean = math.fsum(values) / count
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    error = math.sqrt(variance / count)
    reach = float(stats.t.ppf(0.975, count - 1)) * error
    return Interval(mean, error, mean - reach, mean + reach, count)


class Judged(NamedTuple):
    """A check and what became of it; `found` is None where numbers are missing."""

    check: Check
    state: str
    found: Interval | None


def judge(check: Check, lookups: Sequence[Lookup]) -> Judged:
    """Return whether a check holds.

    Args:
        check: the inequality.
        lookups: of each seed; one that lacks a number makes it missing.
    """
    if any(key not in lookup for lookup in lookups for key in check.quantity.needs):
        return Judged(check, MISSING, None)
    found = interval([check.quantity.of(lookup) for lookup in lookups])
    above, below = found.low > check.bound, found.high < check.bound
    if check.side == "below":
        above, below = below, above
    elif check.side != "above":
        raise ValueError(f"side {check.side!r} of a check")
    state = HOLDS if above else CONTRADICTED if below else UNDECIDED
    return Judged(check, state, found)


def verdict(judged: Sequence[Judged]) -> str:
    """Return the verdict of a claim by the rule above."""
    states = [one.state for one in judged]
    if not states:
        return UNTESTABLE
    if MISSING in states:
        return MISSING
    held = states.count(HOLDS)
    if held == len(states):
        return REPRODUCED
    return IN_PART if held else NOT_REPRODUCED
