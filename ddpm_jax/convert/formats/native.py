"""Files of this package: safetensors with our own paths, and what they mean beside.

The tensors are the parameters by path, in our layout. The metadata of the file holds,
under one key, JSON with the version of the format and the config fields by dotted name.
"""

import json
from collections.abc import Mapping

from ddpm_jax.convert import mapping
from ddpm_jax.convert.format import Content, Export, Format
from ddpm_jax.core import errors
from ddpm_jax.runtime import files

METADATA = "ddpm_jax"
VERSION = 1
RENAMED_VALUES = {("model.initialisation", "ho"): "ddpm"}
"""(Field, value of an earlier version of this package) → the present value."""

Shape = tuple[int, ...]


def metadata(fields: Mapping[str, object]) -> dict[str, str]:
    """Return the metadata of a file whose network and process `fields` describe."""
    content = {"version": VERSION, "fields": dict(fields)}
    return {METADATA: json.dumps(content, sort_keys=True, allow_nan=False)}


def read_metadata(found: Mapping[str, str] | None, path) -> dict | None:
    """Return what the metadata of a file says, None where it is not one of ours.

    Raises:
        Refusal: it is of a later version of this package, or damaged.
    """
    text = (found or {}).get(METADATA)
    if text is None:
        return None
    try:
        content = json.loads(text)
        version, _ = content["version"], content["fields"]
    except (ValueError, KeyError, TypeError) as error:
        raise errors.Refusal(
            f"{path}: its metadata {METADATA!r} is damaged ({error}); export it again"
        ) from error
    if version != VERSION:
        raise errors.Refusal(
            f"{path} has version {version} of the format and this package reads "
            f"{VERSION}: update ddpm-jax, or export it again with this version"
        )
    return content


def entries(
    our_shapes: Mapping[str, Shape], fields: Mapping[str, object]
) -> list[mapping.Entry]:
    """Return the map of a file of ours: every parameter under its own path."""
    del fields
    return [mapping.Entry(path, (path,), "copy") for path in our_shapes]


def recognise(content: Mapping[str, object]) -> dict[str, object]:
    """Return the fields that the metadata holds, lists as tuples."""
    fields = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in content["fields"].items()
    }
    old = {(n, v) for n, v in fields.items() if isinstance(v, str)}
    return fields | {n: RENAMED_VALUES[n, v] for n, v in old & RENAMED_VALUES.keys()}


# ---- written -------------------------------------------------------------------------


def save(path, content: Content) -> tuple[str, ...]:
    """Write a file of this package; return what to know to use it."""
    header = {**metadata(content.fields), "provenance": to_json(content.provenance)}
    save_safetensors(path, content.tensors, header)
    return ("every parameter under its own name; the header holds the config",)


def save_safetensors(path, tensors, metadata: Mapping[str, str]) -> None:
    """Write a safetensors file."""
    from safetensors import numpy as safetensors

    safetensors.save_file(tensors, path, metadata)


def to_json(values: Mapping[str, object]) -> str:
    """Return JSON that the metadata of a file can hold."""
    return json.dumps(dict(values), default=files.to_plain, sort_keys=True)


FORMAT = Format(
    name="ddpm_jax",
    about="an export of this package",
    header=METADATA,
    recognise=recognise,
    entries=entries,
    export=Export("safetensors", ".safetensors", save),
)
