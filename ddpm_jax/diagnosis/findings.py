"""What a check says: a verdict, what was measured, why that counts, what to do."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from ddpm_jax.core import wording
from ddpm_jax.report import html

OK, WATCH, PROBLEM, NOT_CHECKED = "ok", "watch", "problem", "not checked"


@dataclasses.dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        name: of the check.
        verdict: `OK`, `WATCH` (may be wrong, or normal early on), `PROBLEM` or
            `NOT_CHECKED`.
        said: what was measured, in a sentence.
        reason: what that means, and where the limits come from.
        remedy: what to do; "" where nothing is to be done.
    """

    name: str
    verdict: str
    said: str
    reason: str = ""
    remedy: str = ""


def conclusion(findings: Sequence[Finding]) -> tuple[Finding | None, str]:
    """Return the finding to look at first, None if all is well, and a sentence.

    The checks stand in the order of cause and effect (data, process, network, sampling,
    samples), so that the first problem is the one to solve first.
    """
    for verdict in (PROBLEM, WATCH):
        of_kind = [f for f in findings if f.verdict == verdict]
        if of_kind:
            first = of_kind[0]
            others = len(of_kind) - 1
            more = f"; {others} more below may follow from it" if others else ""
            return first, f"look first at {first.name}: {first.remedy}{more}"
    unchecked = [f.name for f in findings if f.verdict == NOT_CHECKED]
    if unchecked:
        names = wording.listed(unchecked)
        return None, f"nothing is wrong in what was checked (not: {names})"
    return None, "nothing is wrong: what is left to gain lies in training and size"


def timesteps(t: np.ndarray, chosen: np.ndarray) -> str:
    """Return e.g. "t = 13", "t = 13 … 93" or "3 of 16 t from 13 to 93".

    Args:
        t: [K] ascending; chosen: bool [K], at least one.
    """
    places = np.flatnonzero(chosen)
    first, last = t[places[0]], t[places[-1]]
    if len(places) == 1:
        return f"t = {first}"
    if places[-1] - places[0] + 1 == len(places):
        return f"t = {first} … {last}"
    return f"{len(places)} of {len(t)} t from {first} to {last}"


def percent(share: float) -> str:
    """Return e.g. "12 %", "0.31 %" or "less than 0.01 %"."""
    if 0 < share < 1e-4:
        return "less than 0.01 %"
    return f"{html.short(float(100 * share), 2)} %"
