"""The records of a run by name, as the page reads them."""

import math


class History:
    """The records of metrics.jsonl in order, and their values by name.

    A name stands in some records only; its value is a number, a list of numbers, or
    None where it was not finite.
    """

    def __init__(self, records: list[dict]):
        self.records = [r for r in records if is_number(r.get("step"))]
        self._columns = {}
        for record in self.records:
            step = record["step"]
            for name, value in record.items():
                steps, values = self._columns.setdefault(name, ([], []))
                steps.append(step)
                values.append(value)
        self._numbers = {}

    @property
    def step(self) -> int:
        """The newest step of any record; 0 without records."""
        return int(max(self.column("step")[1], default=0))

    def names(self) -> list[str]:
        """Return every name but the step, in the order of first appearance."""
        return [name for name in self._columns if name != "step"]

    def column(self, name: str) -> tuple[list, list]:
        """Return steps and values of the records that hold `name`, None among them."""
        return self._columns.get(name, ([], []))

    def numbers(self, name: str) -> tuple[list, list]:
        """Return steps and values of the records where `name` is a finite number."""
        if name not in self._numbers:
            steps, values = self.column(name)
            kept = [place for place, value in enumerate(values) if is_number(value)]
            self._numbers[name] = tuple([c[i] for i in kept] for c in (steps, values))
        return self._numbers[name]

    def newest(self, name: str):
        """Return the newest finite number of `name`, or None."""
        _, values = self.numbers(name)
        return values[-1] if values else None

    def newest_record(self, name: str) -> dict | None:
        """Return the newest record that holds `name`."""
        return next((r for r in reversed(self.records) if name in r), None)


def is_number(value) -> bool:
    """Return whether a value of a file is a finite number."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
    )


def is_numbers(value) -> bool:
    """Return whether a value of a file is a list of finite numbers, not empty."""
    return isinstance(value, list) and bool(value) and all(map(is_number, value))


def leaves(values: dict, prefix: str = "") -> dict:
    """Return {dotted path: value} of a nested dictionary."""
    found = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= leaves(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
