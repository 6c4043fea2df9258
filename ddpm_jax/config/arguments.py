"""Arguments of the Python interface, and the fields that they stand for."""

import contextlib
import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ddpm_jax.core import errors

# Arguments of `Run` and what they may be, besides NumPy's kinds of the same.
WHOLE, REAL, NAME = "a whole number", "a number", "a name"
KINDS = {WHOLE: (int,), REAL: (int, float), NAME: (str,)}
ARGUMENTS = {
    "num": WHOLE,
    "seed": WHOLE,
    "steps": WHOLE,
    "batch_size": WHOLE,
    "eta": REAL,
    "guidance_scale": REAL,
    "method": NAME,
    "weights": NAME,
    "variants": WHOLE,
    "draws": WHOLE,
    "noise": REAL,
    "frames": WHOLE,
    "strength": REAL,
}
OF_FIELDS = {"num_samples": "num", "labels": "labels"} | {n: n for n in ARGUMENTS}
FIELD = re.compile(r"(?:--config\.)?\bsampling\.(\w+)")


@contextlib.contextmanager
def naming():
    """Return a context in which refusals name arguments where they name fields."""

    def argument(found):
        return OF_FIELDS.get(found[1], found[0])

    try:
        yield
    except errors.Refusal as refusal:
        raise errors.Refusal(FIELD.sub(argument, str(refusal))) from refusal


def plain(name, value):
    """Return an argument as Python's own number or name; None stays.

    Args:
        name: of the argument, a key of `ARGUMENTS`.
        value: as it was given.

    Raises:
        Refusal: it is of another kind.
    """
    if value is None:
        return None
    if getattr(value, "shape", None) == ():
        value = value.item()  # of NumPy or JAX
    good = ARGUMENTS[name]
    if isinstance(value, bool) or not isinstance(value, KINDS[good]):
        raise errors.Refusal(f"{name}={value!r}: give {good}")
    return float(value) if good == REAL else value


def plain_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields, and those that are arguments too as `plain` gives them."""
    return {n: plain(n, v) if n in ARGUMENTS else v for n, v in fields.items()}


def by_name(name: str, fields) -> Mapping[str, Any]:
    """Return fields that were given by name; None is none.

    Raises:
        Refusal: something else than a mapping from names.
    """
    fields = {} if fields is None else fields
    if not isinstance(fields, Mapping) or not all(isinstance(n, str) for n in fields):
        raise errors.Refusal(
            f'{name}={fields!r}: give fields by name, such as {{"method": "guided"}}'
        )
    return fields


def labels_tuple(labels) -> tuple | None:
    """Return labels as a tuple of Python's numbers and names; None stays."""
    if labels is None:
        return None
    if hasattr(labels, "tolist"):
        labels = labels.tolist()
    if isinstance(labels, str) or not hasattr(labels, "__iter__"):
        labels = (labels,)
    return tuple(one.item() if hasattr(one, "item") else one for one in labels)


def paths_of(low_res) -> tuple[str, ...] | None:
    """Return one or several paths as a tuple of texts; arrays and None give None."""
    if low_res is None or hasattr(low_res, "dtype"):
        return None
    several = low_res if isinstance(low_res, list | tuple) else (low_res,)
    return tuple(map(os.fspath, several))


def of_settings(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return other fields of config.sampling, without those that Python gives apart.

    Raises:
        Refusal: a field that has no effect here, with what to do instead.
    """
    for name, instead in INSTEAD.items():
        if name in settings:
            raise errors.Refusal(f"{name}={settings[name]!r}: {instead}")
    if "prompts" not in settings:
        return settings
    prompts = settings["prompts"]
    texts = (prompts,) if isinstance(prompts, str) else tuple(prompts)
    for text in texts:
        if not isinstance(text, str):
            raise errors.Refusal(f"prompts={text!r}: give a text, or several")
    return {**settings, "prompts": texts}


INSTEAD = {
    "num_samples": "give the number as the first argument",
    "checkpoint": "load() opens the newest checkpoint; --mode=sample takes others",
}


def positions(trajectory) -> tuple[int, ...]:
    """Return the positions of a trajectory as a tuple, () where there is none.

    Raises:
        Refusal: they are no whole numbers.
    """
    # An array has no truth value: None alone asks for nothing.
    positions = () if trajectory is None else tuple(trajectory)
    if not all(isinstance(k, int | np.integer) for k in positions):
        raise errors.Refusal(
            f"trajectory={positions}: give whole numbers, positions on the way from 0"
        )
    return positions
