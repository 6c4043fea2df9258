"""Evaluation cards: a number and everything that it depends on."""

import hashlib
import json
import pathlib
import shutil
import subprocess

from ddpm_jax.runtime import distributed, files, versions
from ddpm_jax.runtime.console import say

PACKAGE = pathlib.Path(__file__).parent.parent


def write(
    path: pathlib.Path,
    *,
    metric: str,
    value: float,
    unit: str,
    standard_error: float | None,
    details: dict,
    protocol: dict,
    notes,
) -> None:
    """Write a card.

    Args:
        path: evaluation/<metric>_<tag>.json.
        metric, value, unit: the number.
        standard_error: None where it is not known.
        details: other numbers.
        protocol: what the number depends on; versions and commit are added.
        notes: what a reader should know.
    """
    card = {
        "metric": metric,
        "value": value,
        "unit": unit,
        "standard_error": standard_error,
        **details,
        "protocol": {**protocol, **_software(), "notes": list(dict.fromkeys(notes))},
    }
    files.write_json(path, card)


def exist(*paths: pathlib.Path) -> bool:
    """Return whether cards are there already, and print their numbers if so.

    Every process calls it.
    """
    if not distributed.from_first(all(path.exists() for path in paths)):
        return False
    for path in paths:
        card = json.loads(path.read_text())
        number = f"{card['metric']} {card['value']:.4f} {card['unit']}".rstrip()
        say(f"scored already: {number}, card: {path}")
    return True


def _software() -> dict:
    """Return the versions, and the commit where the package lies in a checkout."""
    found = {"versions": versions.versions()}
    if (PACKAGE.parent / ".git").exists() and shutil.which("git"):
        command = "git --no-optional-locks describe --always --dirty --abbrev=40"
        result = subprocess.run(
            [*command.split(), "--exclude=*"],
            cwd=PACKAGE,
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode == 0:
            found["commit"] = result.stdout.strip()
    return found


def measured(value: float, error: float | None) -> str:
    """Return "2.3120 ± 0.0151" for a line on the terminal."""
    return f"{value:.4f}" + ("" if error is None else f" ± {error:.4f}")


def short_hash(*parts: str) -> str:
    """Return eight hexadecimal digits that change with any of some strings."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]
