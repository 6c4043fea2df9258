"""Files of this package: safetensors with our own paths, and what they mean beside.

The tensors are the parameters by path, in our layout. The metadata of the file holds,
under one key, JSON with the version of the format and the config fields by dotted name.
"""

import json
from collections.abc import Mapping

from ddpm_jax.convert import mapping
from ddpm_jax.core import errors

METADATA = "ddpm_jax"
VERSION = 1

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
            f"{VERSION}: update ddpm-jax"
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
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in content["fields"].items()
    }
