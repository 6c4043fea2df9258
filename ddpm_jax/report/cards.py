"""Evaluation cards on a page: a table, and the bound by timestep of the newest."""

import dataclasses
import json
import os

import numpy as np

from ddpm_jax.report import charts, html
from ddpm_jax.report import history as history_lib

MAX_TIMESTEPS = 1000  # drawn one by one
MAX_ITEMS = 16  # of a list that is written out
SHOWN = (
    "checkpoint",
    "weights",
    "steps",
    "num_images",
    "num_samples",
    "split",
    "seed",
)


@dataclasses.dataclass(frozen=True)
class Cards:
    """The cards of a run, newest first, by file name; and files that are none."""

    by_name: dict[str, dict]
    unreadable: tuple[str, ...]

    @classmethod
    def read(cls, run_dir) -> "Cards":
        """Return the cards in evaluation/, by time of writing."""
        by_name, unreadable = {}, []
        paths = run_dir.evaluation.glob("*.json")
        for path in sorted(paths, key=os.path.getmtime, reverse=True):
            try:
                card = json.loads(path.read_bytes())
            except ValueError:
                card = None
            if isinstance(card, dict) and "metric" in card:
                by_name[path.name] = card
            else:
                unreadable.append(path.name)
        return cls(by_name, tuple(unreadable))

    def newest(self, metric: str) -> dict | None:
        """Return the newest card of a metric."""
        found = (c for c in self.by_name.values() if c["metric"] == metric)
        return next(found, None)


def table(cards: Cards) -> html.Html:
    """Return one row a card: its value with its error, and how it was measured."""
    parts = []
    if cards.by_name:
        head = ["metric", "value", *(name.replace("_", " ") for name in SHOWN), "card"]
        rows = [_row(name, card) for name, card in cards.by_name.items()]
        parts.append(html.table(head, rows, caption="Newest first"))
    if cards.unreadable:
        names = ", ".join(cards.unreadable)
        parts.append(html.note(f"No evaluation cards, though they lie there: {names}."))
    return html.join(parts)


def _row(name, card):
    protocol = card.get("protocol")
    protocol = protocol if isinstance(protocol, dict) else {}
    rest = {
        key: value
        for key, value in history_lib.leaves(
            {**card, "protocol": protocol} | {"by_t": None}
        ).items()
        if key not in ("metric", "value", "unit", "standard_error", "interval", "by_t")
        and key.removeprefix("protocol.") not in SHOWN
    }
    more = html.details(
        name, html.table(["field", "value"], ((k, cell(v)) for k, v in rest.items()))
    )
    return [card["metric"], _value(card), *(cell(protocol.get(n)) for n in SHOWN), more]


def _value(card):
    """Return "2.312 ± 0.015 bits/dim", with an interval where the card has one."""
    value, unit = card.get("value"), card.get("unit") or ""
    if not history_lib.is_number(value):
        return cell(value)
    error, interval = card.get("standard_error"), card.get("interval")
    if history_lib.is_number(error):
        return html.measured(value, error, unit)
    parts = [html.number(value)]
    if history_lib.is_numbers(interval) and len(interval) == 2:
        parts += [" (", html.number(interval[0]), " … ", html.number(interval[1]), ")"]
    return html.join([*parts, f" {unit}"])


def cell(value):
    """Return any value of a file as a cell of `html.table`."""
    if history_lib.is_number(value):
        return value
    if isinstance(value, list) and len(value) > MAX_ITEMS:
        return f"{len(value):,} values"
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return None if value in (None, "") else str(value)


def accuracy(cards: Cards) -> html.Html:
    """Return the newest accuracy of a classifier by timestep, beside clean images."""
    card = cards.newest("accuracy") or {}
    by_t, clean = card.get("by_t"), card.get("clean")
    if not (isinstance(by_t, dict) and isinstance(clean, dict)):
        return html.Html("")
    t, shares = by_t.get("timestep"), by_t.get("accuracy")
    if not (history_lib.is_numbers(t) and history_lib.is_numbers(shares)):
        return html.Html("")
    names = {"accuracy": "label first", "top5_accuracy": "in the first 5"}
    lines = [
        charts.Line(label, t, [100 * v for v in by_t[name]], colour=colour)
        for colour, (name, label) in enumerate(names.items())
        if history_lib.is_numbers(by_t.get(name))
    ]
    noiseless = clean.get("accuracy")
    if history_lib.is_number(noiseless):
        level = [100 * noiseless] * 2
        lines.append(
            charts.Line("without noise", [t[0], t[-1]], level, colour=2, dashed=True)
        )
    figure = charts.chart(
        lines,
        title="Test images named right",
        x_label="timestep t",
        unit="%",
        zero=True,
    )
    note = html.note("The newest accuracy, the mean over t: ", _value(card), ".")
    return html.join([note, html.figures([figure])])


def bound(cards: Cards) -> html.Html:
    """Return where the newest bits per dimension come from, by timestep."""
    card = cards.newest("bits_per_dim")
    by_t = (card or {}).get("by_t")
    if not isinstance(by_t, dict):
        return html.Html("")
    t, terms = by_t.get("timestep"), by_t.get("bits_per_dim")
    if not (history_lib.is_numbers(t) and history_lib.is_numbers(terms)):
        return html.Html("")
    prior = card.get("prior")
    spent = np.cumsum(terms[::-1])[::-1]
    spent = spent + (prior if history_lib.is_number(prior) else 0)
    lines = [
        charts.chart(
            [charts.Line("", t, terms)],
            title="Term of the bound",
            x_label="timestep t",
            unit="bits/dim",
            log=True,
            max_points=MAX_TIMESTEPS,
        ),
        charts.chart(
            [charts.Line("", t, spent)],
            title="Spent from T down to t",
            x_label="timestep t",
            unit="bits/dim",
            zero=True,
            max_points=MAX_TIMESTEPS,
        ),
        charts.chart(
            [charts.Line("", t, by_t.get("noise_mse") or [None] * len(t))],
            title="Squared error of the noise",
            x_label="timestep t",
            log=True,
            max_points=MAX_TIMESTEPS,
        ),
    ]
    shares = [
        (name, html.number(card.get(key), "bits/dim"))
        for name, key in (("x_T (prior)", "prior"), ("decoder, t = 0", "decoder"))
        if history_lib.is_number(card.get(key))
    ]
    note = html.note(
        "The newest bits per dimension, ",
        _value(card),
        ", split by timestep.",
    )
    return html.join([note, html.facts(shares), html.figures(lines)])
