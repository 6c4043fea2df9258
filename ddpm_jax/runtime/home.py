"""The home folder, which "~" stands for."""

import os
from pathlib import Path

from ddpm_jax.core import errors


def expanded(path: str | os.PathLike) -> Path:
    """Return a path in which "~" stands for the home folder.

    Raises:
        Refusal: nobody knows that folder; none of the name "~" is ever made.
    """
    first = str(path).split("/", 1)[0]
    if not first.startswith("~"):
        return Path(path)
    found = os.path.expanduser(path) if os.environ.get("HOME") != "" else str(path)
    if found != str(path):
        return Path(found)
    if first != "~" and os.path.lexists(first):
        return Path(path)
    raise errors.Refusal(
        f"{path}: the home folder of {first!r} is not known here (is HOME set?): give "
        f"the whole path, or ./{path} for a folder of that name"
    )
