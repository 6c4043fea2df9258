"""What sampled images are known by: request.json, and the name of their folder.

    samples/ddim-50-ema-guidance2-seed0-step3000/request.json

Both derive from the settings of a recipe, which are the fields of config.sampling: a
field that changes images cannot be missing in them.
"""

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ddpm_jax import runtime

VERSION = 2  # of request.json; 1 had no version and wrote every setting
MAX_NAMED_VALUES = 10


class Setting(NamedTuple):
    """A setting by the name of its field, for requests, tags and cards.

    `usual` is the value that goes without saying; request.json leaves it out.
    """

    name: str
    value: Any
    usual: Any


@dataclasses.dataclass(frozen=True, eq=False)
class Weights:
    """Parameters that images are made with.

    Attributes:
        params: on their devices.
        kind: "ema", "raw" or "imported".
        why: the sentence that says which were taken, and why.
        step: optimizer steps that they have taken.
        fingerprint: changes with the weights: of the checkpoint's manifest and `kind`.
    """

    params: Any
    kind: str
    why: str
    step: int = 0
    fingerprint: str = ""


def as_dict(
    settings: Sequence[Setting],
    fingerprints: Sequence[tuple[str, str]],
    weights: Weights,
) -> dict[str, Any]:
    """Return every setting by name, and which weights.

    Args:
        settings: of the recipe.
        fingerprints: (name, fingerprint) of arrays and other networks' weights.
        weights: to make the images with.
    """
    asked = {setting.name: setting.value for setting in settings}
    used = {"weights": weights.kind, "checkpoint": weights.step}
    used |= {f"{name}_fingerprint": value for name, value in fingerprints}
    return {**asked, **used}


def request(settings, fingerprints, weights: Weights) -> dict[str, Any]:
    """Return the content of request.json: `as_dict` without what is usual."""
    usual = {s.name for s in settings if s.name not in ALWAYS and s.value == s.usual}
    whole = as_dict(settings, fingerprints, weights)
    found = {name: value for name, value in whole.items() if name not in usual}
    if runtime.NUMERICS > 1:
        found["numerics"] = runtime.NUMERICS
    return {"version": VERSION, **found}


def differences(
    saved: Mapping[str, Any], settings, fingerprints, weights: Weights
) -> list[str]:
    """Return what tells a stored request, of this version or before, from ours.

    Args:
        saved: the content of a request.json.
        settings, fingerprints, weights: of ours, see `as_dict`.
    """
    ours = as_dict(settings, fingerprints, weights) | {"numerics": runtime.NUMERICS}
    usual = {setting.name: setting.usual for setting in settings}
    theirs = {**usual, "numerics": 1, **saved}
    if theirs.pop("version", 1) > VERSION:
        return [f"its version is {saved['version']} and ours {VERSION}"]
    return compared(_plain(theirs), _plain(ours))


def compared(saved: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Return in words, by key, where two requests differ, both as JSON holds them."""
    return [
        f"{key} is {saved.get(key)!r} there and {given.get(key)!r} here"
        for key in sorted(saved.keys() | given.keys())
        if saved.get(key) != given.get(key)
    ]


def tag(settings: Sequence[Setting], weights: Weights) -> str:
    """Return the name of the folder: "ddim-50-ema-guidance2-seed0-step3000".

    Most settings at their usual value are not named; the request tells the rest.
    """
    words = {setting.name: _word(setting) for setting in settings}
    words["weights"] = weights.kind
    if words.get("respacing"):
        words["steps"] = ""
    rest = [name for name in words if name not in (*FIRST_WORDS, "seed")]
    named = [words[name] for name in (*FIRST_WORDS, *rest, "seed") if words.get(name)]
    named.append(f"step{weights.step}")
    if runtime.NUMERICS > 1:
        named.append(f"numerics{runtime.NUMERICS}")
    return shortened("-".join(named))


def shortened(name: str) -> str:
    """Return a name that file systems take, the end of a long one as a checksum."""
    data = name.encode(errors="surrogateescape")
    if len(data) <= LONGEST_NAME:
        return name
    kept = data[: LONGEST_NAME - 9].decode(errors="ignore")
    return f"{kept}-{zlib.crc32(data):08x}"


LONGEST_NAME = 160  # file names of at most 255 bytes hold it and what is added
ALWAYS = ("method", "steps", "seed")  # written to request.json at any value
FIRST_WORDS = (  # of a tag, in this order; others follow in theirs
    *(
        "edit",
        "image",
        "method",
        "steps",
        "respacing",
        "eta",
        "weights",
        "guidance_scale",
        "labels",
    ),
    *("clip", "dynamic_threshold"),
)
# How settings are named in a tag, where it is not "<name><value>" of unusual values.
WORDS = {
    "edit": lambda s: s.value,
    "image": lambda s: _short(s.value),
    "method": lambda s: s.value,
    "solver": lambda s: "" if s.value == s.usual else s.value,
    "steps": lambda s: str(s.value),
    "respacing": lambda s: s.value and "respacing" + s.value.replace(",", "."),
    "operator": lambda s: _short(s.value.replace(":", "")),
    "degrade": lambda s: "degraded" if s.value else "",
    "low_res": lambda s: s.value and f"of-{_short(s.value)}",
    "low_res_t": lambda s: s.value and f"low_res_t{s.value}",
    "guidance_scale": lambda s: f"guidance{s.value:g}",
    "classifier_scale": lambda s: "" if s.value == s.usual else f"scale{s.value:g}",
    "weaker_scale": lambda s: "" if s.value == s.usual else f"scale{s.value:g}",
    "clip": lambda s: "" if s.value else "noclip",
    "dynamic_threshold": lambda s: s.value and f"threshold{s.value:g}",
    "seed": lambda s: f"seed{s.value}",
}


def _word(setting: Setting) -> str:
    if setting.name in WORDS:
        return WORDS[setting.name](setting)
    if setting.value == setting.usual:
        return ""
    return f"{setting.name}{_short(setting.value)}"


def _short(value) -> str:
    """Return "0.5", "3.7" for a few values, a checksum for many."""
    if isinstance(value, int | float):
        return f"{value:g}"
    values = (value,) if isinstance(value, str) else value
    text = ".".join(str(part) for part in values)
    is_plain = all(c.isalnum() or c in ".-_@" for c in text)
    if len(values) > MAX_NAMED_VALUES or not is_plain:
        return f"{zlib.crc32(text.encode()):08x}"
    return text


def _plain(values):
    """Return values as JSON gives them back: tuples as lists."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
