"""Evaluation cards side by side: sorted, with uncertainty, or refused by name."""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Sequence

from ddpm_jax.core import errors
from ddpm_jax.metrics import table
from ddpm_jax.report import history
from ddpm_jax.runtime.console import say

# What cards are compared for; whatever else decides a number must be the same.
COMPARED = (
    "checkpoint",
    "weights",
    "run",
    "seed",
    "samples",
    "samples_hash",
    "config",
    "versions",
    "commit",
    "notes",
)
# The hash says what the reference is, whatever its file is called.
NAMES_ONLY = {"reference": "reference_hash"}
UNSHOWN = ("versions", "notes", "samples_hash", "config")
SURE = 1.96  # standard errors: 95 %
SHOWN = 12  # characters of a hash or commit


@dataclasses.dataclass(frozen=True)
class Card:
    """One evaluation card.

    Attributes:
        name: the file, as it was given.
        metric, value, unit: the number.
        error: its standard error, None where the card does not say.
        protocol: {dotted name: value} of what it depends on.
    """

    name: str
    metric: str
    value: float
    unit: str
    error: float | None
    protocol: dict


def run(paths: Sequence[str | os.PathLike]) -> None:
    """Print the cards in `paths` as a table, the best first.

    Raises:
        Refusal: fewer than two cards, files that are none, or unlike protocols.
    """
    names = [str(path) for path in paths]
    if len(names) < 2:
        given = names[0] if names else "none"
        raise errors.Refusal(
            f"one number alone is no comparison: give two or more cards, such as "
            f"runs/*/evaluation/fid_*.json ({given} was given)"
        )
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise errors.Refusal(f"{twice[0]} is given twice: name each card once")
    cards = [read(name) for name in names]
    for card in cards[1:]:
        check_alike(cards[0], card)
    for line in lines(cards):
        say(line)


def read(name: str) -> Card:
    """Return the card in a file.

    Raises:
        Refusal: no file, or no card in it.
    """
    path = pathlib.Path(name)
    try:
        content = json.loads(path.read_bytes())
    except IsADirectoryError as error:
        there = sorted(path.glob("**/evaluation/*.json")) or sorted(path.glob("*.json"))
        hint = ", ".join(map(str, there)) or "none"
        raise errors.Refusal(
            f"{name} is a folder: give the cards in it, {hint}"
        ) from error
    except OSError as error:
        raise errors.Refusal(
            f"{name} cannot be read ({error.strerror}): give an evaluation card, which "
            "--mode=evaluate writes into evaluation/ of a run"
        ) from error
    except ValueError as error:
        raise errors.Refusal(
            f"{name} is damaged or no JSON ({error}): score again with --mode=evaluate"
        ) from error
    missing = _missing(content)
    if missing:
        raise errors.Refusal(
            f"{name} is no evaluation card: {missing}; --mode=evaluate writes them "
            "into evaluation/ of a run"
        )
    protocol = history.leaves(content["protocol"])
    return Card(
        name=name,
        metric=content["metric"],
        value=float(content["value"]),
        unit=str(content.get("unit") or ""),
        error=_error(content),
        protocol=protocol,
    )


def _missing(content) -> str:
    """Return what a file lacks to be a card, in words; "" for a card."""
    if not isinstance(content, dict):
        return "it holds no object"
    if not isinstance(content.get("metric"), str):
        return "it names no metric"
    if not history.is_number(content.get("value")):
        return f"its value is {content.get('value')!r}, not a number"
    if not isinstance(content.get("protocol"), dict):
        return "it does not say how the value was measured (protocol)"
    return ""


def _error(content):
    """Return the standard error, from a 95 % interval if need be."""
    error, interval = content.get("standard_error"), content.get("interval")
    if history.is_number(error) and error >= 0:
        return float(error)
    if history.is_numbers(interval) and len(interval) == 2:
        return abs(interval[1] - interval[0]) / (2 * SURE)
    return None


# ---- whether cards may be compared ---------------------------------------------------


def check_alike(one: Card, other: Card) -> None:
    """Refuse two cards whose numbers mean different things.

    Raises:
        Refusal: names every difference, with both values.
    """
    if (one.metric, one.unit) != (other.metric, other.unit):
        raise errors.Refusal(
            f"{one.name} is {_metric(one)} and {other.name} is {_metric(other)}: "
            "compare cards of one metric"
        )
    differing = [name for name in unlike(one.protocol, other.protocol)]
    if not differing:
        return
    ours, theirs = (_made(card.protocol, differing) for card in (one, other))
    raise errors.Refusal(
        f"{one.name} was made with {ours} and {other.name} with {theirs}: such numbers "
        "cannot be compared; score both alike with --mode=evaluate"
    )


def unlike(one: dict, other: dict) -> list[str]:
    """Return the names of what differs between two protocols and must not."""
    names = [*one, *(name for name in other if name not in one)]
    return [
        name
        for name in names
        if name.partition(".")[0] not in COMPARED
        and one.get(name) != other.get(name)
        and not _same_by_hash(name, one, other)
    ]


def _same_by_hash(name, one, other):
    proof = NAMES_ONLY.get(name)
    return bool(one.get(proof)) and one.get(proof) == other.get(proof)


def _metric(card):
    return f"{card.metric} in {card.unit}" if card.unit else card.metric


def _made(protocol, names):
    parts = (
        f"{name}={_short(protocol[name])}" if name in protocol else f"no {name}"
        for name in names
    )
    return ", ".join(parts)


def _short(value):
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    is_hash = len(text) > SHOWN and all(c in "0123456789abcdef" for c in text)
    return f"{text[:SHOWN]}…" if is_hash else text or "none"


# ---- the table -----------------------------------------------------------------------


def lines(cards: Sequence[Card]) -> list[str]:
    """Return the table of like cards, the best first."""
    lower = lower_is_better(cards[0].metric)
    ordered = sorted(cards, key=lambda card: card.value, reverse=lower is False)
    best, places = ordered[0], decimals(ordered)
    columns = shown(ordered)
    head = ["value", "from the first", "", *columns, "card"]
    rows = [
        [
            _measured(card.value, card.error, places),
            *_from_first(best, card, places),
            *(_short(card.protocol.get(name, "")) for name in columns),
            card.name,
        ]
        for card in ordered
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    better = {True: "lower is better", False: "higher is better", None: "by value"}
    return [
        f"{_metric(best)}, {better[lower]}",
        *(
            "  " + "  ".join(map(str.ljust, row, widths)).rstrip()
            for row in [head, *rows]
        ),
        "errors count as independent; on the same test images and noise a difference "
        "is surer than that",
    ]


def lower_is_better(metric: str) -> bool | None:
    """Return which values of a metric are good, None where that is not known."""
    if metric in table.OF_NETWORKS:
        return table.OF_NETWORKS[metric]
    for known in table.METRICS.values():
        if metric in known.cards:
            return known.lower_is_better
    return None


def decimals(cards: Sequence[Card]) -> int:
    """Return the places that show two digits of the smallest error, 4 without any."""
    known = [card.error for card in cards if card.error]
    return max(0, 1 - math.floor(math.log10(min(known)))) if known else 4


def shown(cards: Sequence[Card]) -> list[str]:
    """Return the names of what is compared and is not the same for all cards."""
    return [
        name
        for name in COMPARED
        if name not in UNSHOWN and len({_key(c.protocol.get(name)) for c in cards}) > 1
    ]


def _key(value):
    return json.dumps(value, sort_keys=True)


def _measured(value, error, places):
    text = f"{value:.{places}f}"
    return text if error is None else f"{text} ± {error:.{places}f}"


def _from_first(best, card, places):
    """Return the distance from the best card, and whether it is more than chance."""
    if card is best:
        return "", ""
    distance = card.value - best.value
    if best.error is None or card.error is None:
        return f"{distance:+.{places}f}", "uncertainty unknown"
    error = math.hypot(best.error, card.error)
    sure = abs(distance) > SURE * error
    said = "more than chance" if sure else "within the uncertainty"
    return f"{distance:+.{places}f} ± {error:.{places}f}", said
