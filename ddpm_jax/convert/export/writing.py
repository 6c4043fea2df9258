"""Weights as files of other programs: written beside, renamed, read back, compared."""

import dataclasses
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ddpm_jax.convert import formats, mapping
from ddpm_jax.convert import open as open_lib
from ddpm_jax.convert.format import Content, Fields
from ddpm_jax.core import errors
from ddpm_jax.runtime import files

Params = Mapping[str, np.ndarray]
"""Parameters by path, e.g. "down/0/blocks/1/conv_1/kernel"."""


@dataclasses.dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        paths: of the files.
        sentences: what to know to use them.
    """

    paths: tuple[Path, ...]
    sentences: tuple[str, ...]


def write(
    format_name: str,
    output: str | os.PathLike,
    *,
    params: Params,
    fields: Fields,
    image_shape: tuple[int, int, int],
    provenance: Mapping[str, Any],
) -> Exported:
    """Write parameters in a format of `formats.EXPORTS`; nothing is overwritten.

    The output appears under its name when it is whole.

    Args:
        format_name: a key of `formats.EXPORTS`.
        output: the file or folder to make.
        params: float32 arrays by path.
        fields: the config that they belong to.
        image_shape: (H, W, C).
        provenance: where the weights come from; kept where the format has a place.

    Raises:
        Refusal: an unknown format, an output that exists or has another suffix, or a
            field that the format cannot express.
    """
    record = errors.choose("format", formats.EXPORTS, format_name)
    export, output = record.export, Path(output)
    if export.suffix and output.suffix != export.suffix:
        raise errors.Refusal(
            f"--output={output} does not end in {export.suffix}, by which other "
            f"programs know such a file: give {output.with_suffix(export.suffix)}"
        )
    if output.exists():
        raise errors.Refusal(
            f"{output} exists already and is not overwritten: choose another --output"
        )
    export.check(fields, image_shape)
    tensors = _to_theirs(record, params, fields)
    content = Content(tensors, fields, image_shape, provenance)
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.name}.{secrets.token_hex(4)}.tmp")
    try:
        sentences = export.save(temporary, content)
        os.rename(temporary, output)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        temporary.unlink(missing_ok=True)
    files.sync_directory(output.parent)
    paths = sorted(output.rglob("*.*")) if output.is_dir() else [output]
    return Exported(tuple(paths), sentences)


def reload_and_compare(
    format_name: str, output: str | os.PathLike, params: Params, fields: Fields
) -> str:
    """Read what `write` wrote as an import would; return a sentence that it is equal.

    Raises:
        ValueError: a parameter came back otherwise, which is a defect of ours.
    """
    record = errors.choose("format", formats.EXPORTS, format_name)
    opened = open_lib.open_source(output)
    if opened.format != record.name:
        raise ValueError(f"{output} reads as {opened.format}, not {record.name}")
    back = _to_ours(record, opened.tensors, params, fields)
    for path, array in params.items():
        if not np.array_equal(back[path], array):
            raise ValueError(f"{path} came back from {output} with other values")
    return f"read back: all {len(params)} parameters are equal bit for bit"


# ---- layout --------------------------------------------------------------------------


def _to_theirs(record, params, fields):
    tensors = {}
    for entry in _entries(record, params, fields):
        array = np.asarray(params[entry.path], np.float32)
        if _splits_qkv(record, entry, fields):
            array = _contiguous_qkv(array, fields)
        tensors |= mapping.to_theirs(entry, array)
    return tensors


def _to_ours(record, tensors, params, fields):
    back = {}
    for entry in _entries(record, params, fields):
        array = mapping.to_ours(entry, tensors)
        if _splits_qkv(record, entry, fields):
            array = _contiguous_qkv(array, fields, inverse=True)
        back[entry.path] = array
    return back


def _entries(record, params, fields):
    shapes = {path: array.shape for path, array in params.items()}
    return record.entries(shapes, fields)


def _splits_qkv(record, entry, fields):
    """Whether a legacy packing must give way to queries, keys and values apart."""
    apart = record.export.splits_qkv and "/qkv/" in entry.path
    return apart and fields["model.qkv_order"] == "legacy"


def _contiguous_qkv(array, fields, *, inverse=False):
    """Reorder packed channels [head][q|k|v][d] to [q|k|v][head][d], or back."""
    width = array.shape[-1] // 3
    head_channels = fields["model.head_channels"]
    heads = width // head_channels if head_channels else fields["model.num_heads"]
    packed = (3, heads) if inverse else (heads, 3)
    split = array.reshape(*array.shape[:-1], *packed, width // heads)
    return split.swapaxes(-3, -2).reshape(array.shape)
