"""The stored numbers: one JSON file for each arm and seed, and what they were made of.

A file holds the config of the run and, for every measurement, its settings and values.
What was made of another config, or measured with other settings, is refused: numbers of
two experiments never meet in one table.
"""

import hashlib
import json
import math
import pathlib

from ddpm_jax.core import errors
from ddpm_jax.runtime import files

RESULTS = pathlib.Path(__file__).parent / "results"
DIGITS = 6  # significant ones that are kept


class Store:
    """The results below one folder."""

    def __init__(self, folder: pathlib.Path = RESULTS):
        self._folder = folder

    def path(self, arm: str, seed: int) -> pathlib.Path:
        """Return where the numbers of an arm and a seed lie."""
        return self._folder / f"{arm}-{seed}.json"

    def read(self, arm: str, seed: int) -> dict | None:
        """Return what is stored, None where nothing is.

        Raises:
            Refusal: the file was changed after it was written.
        """
        path = self.path(arm, seed)
        if not path.exists():
            return None
        kept = json.loads(path.read_text())
        if kept["fingerprint"] != fingerprint(kept["config"]):
            raise errors.Refusal(
                f"{path}: the config in it is not the one that its fingerprint "
                f"{kept['fingerprint']} is of: restore the file, or remove it and "
                "measure again"
            )
        return kept

    def values(self, arm: str, seed: int, measure: str, settings: dict):
        """Return the values of a measurement by name, None where they are missing.

        Raises:
            Refusal: they were measured with other settings.
        """
        kept = self.read(arm, seed)
        found = kept and kept["measures"].get(measure)
        if not found:
            return None
        if found["settings"] != settings:
            changed = _differences(found["settings"], settings)
            raise errors.Refusal(
                f"{self.path(arm, seed)}: {measure} was measured with {changed}: "
                "restore the settings, or remove the entry and measure again"
            )
        return found["values"]

    def check_config(self, arm: str, seed: int, config: dict) -> None:
        """Refuse a config that the stored numbers are not of.

        Args:
            arm, seed: of the run.
            config: from `arms.record`.
        """
        kept = self.read(arm, seed)
        if kept and kept["config"] != config:
            changed = _differences(kept["config"], config)
            raise errors.Refusal(
                f"{self.path(arm, seed)} was made with another config, {changed}: "
                "restore the config, or remove the file to run anew"
            )

    def add(self, arm, seed, config, *, measure="", settings=None, values, seconds):
        """Keep the values of a measurement, or those of the training itself.

        Args:
            arm, seed: of the run.
            config: from `arms.record`.
            measure: its name; "" for the training.
            settings: of the measurement.
            values: numbers or lists of numbers by name.
            seconds: that it took.
        """
        self.check_config(arm, seed, config)
        kept = self.read(arm, seed) or {
            "arm": arm,
            "seed": seed,
            "fingerprint": fingerprint(config),
            "config": config,
            "training": {},
            "measures": {},
        }
        entry = {"values": rounded(values), "seconds": round(seconds, 1)}
        if measure:
            kept["measures"][measure] = {"settings": settings, **entry}
        else:
            kept["training"] = entry
        self._folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(kept, indent=1, ensure_ascii=False)
        files.write_bytes(self.path(arm, seed), _short_lists(text).encode())


def fingerprint(config: dict) -> str:
    """Return eight hexadecimal digits that change with any field or value."""
    text = json.dumps(config, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def rounded(values):
    """Return numbers, or lists or dictionaries of them, to `DIGITS` digits.

    Raises:
        ValueError: NaN or infinity, which is no result.
    """
    if isinstance(values, dict):
        return {name: rounded(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [rounded(value) for value in values]
    if not math.isfinite(values):
        raise ValueError(f"a measurement gave {values}")
    return float(f"{values:.{DIGITS}g}")


def _differences(stored: dict, now: dict) -> str:
    """Return which values differ, in words."""
    names = sorted(name for name in stored | now if stored.get(name) != now.get(name))
    told = [
        f"{name}={stored.get(name, 'the usual')!r} instead of "
        f"{now.get(name, 'the usual')!r}"
        for name in names
    ]
    return ", ".join(told)


def _short_lists(text: str) -> str:
    """Return JSON with each list of numbers on one line."""
    lines, open_list = [], False
    for line in text.split("\n"):
        if open_list:
            lines[-1] += line.strip() if line.strip()[0] == "]" else line.strip() + " "
            open_list = line.strip()[0] != "]"
            continue
        lines.append(line)
        open_list = line.endswith("[")
    return "\n".join(line.replace(", ]", "]").replace(" ]", "]") for line in lines)
