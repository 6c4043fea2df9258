"""Arguments that nearly say something: what would say it."""

import difflib
from collections.abc import Collection, Sequence

from ddpm_jax.config import reading
from ddpm_jax.core import errors


def of_flag(name: str, arguments: Sequence[str]) -> errors.Refusal | None:
    """Return the refusal of a field that stands without "config.", or None.

    Args:
        name: of an unknown flag, without dashes and value.
        arguments: all of them.
    """
    meant = [f"--config.{field}" for field in _fields_like(name)]
    if not meant:
        return None
    given = next(
        (a for a in arguments if a.lstrip("-").partition("=")[0] == name), f"--{name}"
    )
    value = given.partition("=")[2] or "…"
    *others, last = [f"{field}={value}" for field in meant]
    listed = f"{', '.join(others)} or {last}" if others else last
    return errors.Refusal(
        f"{given} is no flag: say {listed} for that field of the config"
    )


def _fields_like(name):
    """Return the fields of this dotted or last name; of a misspelt one, the closest."""
    if "." in name:
        return difflib.get_close_matches(name, reading.fields(), n=1, cutoff=0.8)
    found = [f for f in reading.fields() if f.rpartition(".")[2] == name]
    return sorted(found, key=lambda field: (field.count("."), field[:6] != "train."))


def of_argument(argument: str, modes: Collection[str]) -> errors.Refusal:
    """Return the refusal of an argument that is no flag."""
    if argument in modes:
        return errors.Refusal(
            f"unexpected argument {argument!r}: a mode is given as --mode={argument}"
        )
    return errors.Refusal(
        f"unexpected argument {argument!r}: every argument is --name=value"
    )
