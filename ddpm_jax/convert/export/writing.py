"""Weights as files of other programs: written beside, renamed, read back, compared."""

import dataclasses
import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ddpm_jax.convert import families, mapping
from ddpm_jax.convert import open as open_lib
from ddpm_jax.convert.export import diffusers_config, diffusers_scheduler
from ddpm_jax.convert.formats import native, openai
from ddpm_jax.core import errors
from ddpm_jax.runtime import files

Params = Mapping[str, np.ndarray]
"""Parameters by path, e.g. "down/0/blocks/1/conv_1/kernel"."""

Fields = Mapping[str, Any]
"""Values by dotted config name, and "facts.num_classes"."""


@dataclasses.dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        paths: of the files.
        sentences: what to know to use them.
    """

    paths: tuple[Path, ...]
    sentences: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Content:
    """What one output is made of; see the arguments of `write`."""

    tensors: dict[str, np.ndarray]
    fields: Fields
    image_shape: tuple[int, int, int]
    provenance: Mapping[str, Any]


def write(
    format_name: str,
    output: str | os.PathLike,
    *,
    params: Params,
    fields: Fields,
    image_shape: tuple[int, int, int],
    provenance: Mapping[str, Any],
) -> Exported:
    """Write parameters in a format of `FORMATS`; nothing is overwritten.

    The output appears under its name when it is whole.

    Args:
        format_name: a key of `FORMATS`.
        output: the file or folder to make.
        params: float32 arrays by path.
        fields: the config that they belong to.
        image_shape: (H, W, C).
        provenance: where the weights come from; kept where the format has a place.

    Raises:
        Refusal: an unknown format, an output that exists or has another suffix, or a
            field that the format cannot express.
    """
    kind = errors.choose("format", FORMATS, format_name)
    output = Path(output)
    if kind.suffix and output.suffix != kind.suffix:
        raise errors.Refusal(
            f"--output={output} does not end in {kind.suffix}, by which other programs "
            f"know such a file: give {output.with_suffix(kind.suffix)}"
        )
    if output.exists():
        raise errors.Refusal(
            f"{output} exists already and is not overwritten: choose another --output"
        )
    kind.check(fields, image_shape)
    tensors = _to_theirs(kind, params, fields)
    content = _Content(tensors, fields, image_shape, provenance)
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.name}.{secrets.token_hex(4)}.tmp")
    try:
        sentences = kind.save(temporary, content)
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
    kind = errors.choose("format", FORMATS, format_name)
    opened = open_lib.open_source(output)
    if opened.family != kind.family:
        raise ValueError(f"{output} reads as {opened.family}, not {kind.family}")
    back = _to_ours(kind, opened.tensors, params, fields)
    for path, array in params.items():
        if not np.array_equal(back[path], array):
            raise ValueError(f"{path} came back from {output} with other values")
    return f"read back: all {len(params)} parameters are equal bit for bit"


# ---- layout --------------------------------------------------------------------------


def _to_theirs(kind, params, fields):
    tensors = {}
    for entry in _entries(kind, params, fields):
        array = np.asarray(params[entry.path], np.float32)
        if _splits_qkv(kind, entry, fields):
            array = _contiguous_qkv(array, fields)
        tensors |= mapping.to_theirs(entry, array)
    return tensors


def _to_ours(kind, tensors, params, fields):
    back = {}
    for entry in _entries(kind, params, fields):
        array = mapping.to_ours(entry, tensors)
        if _splits_qkv(kind, entry, fields):
            array = _contiguous_qkv(array, fields, inverse=True)
        back[entry.path] = array
    return back


def _entries(kind, params, fields):
    shapes = {path: array.shape for path, array in params.items()}
    return families.entries(kind.family, shapes, fields)


def _splits_qkv(kind, entry, fields):
    """Whether a legacy packing must give way to queries, keys and values apart."""
    apart = kind.family == "diffusers" and "/qkv/" in entry.path
    return apart and fields["model.qkv_order"] == "legacy"


def _contiguous_qkv(array, fields, *, inverse=False):
    """Reorder packed channels [head][q|k|v][d] to [q|k|v][head][d], or back."""
    width = array.shape[-1] // 3
    head_channels = fields["model.head_channels"]
    heads = width // head_channels if head_channels else fields["model.num_heads"]
    packed = (3, heads) if inverse else (heads, 3)
    split = array.reshape(*array.shape[:-1], *packed, width // heads)
    return split.swapaxes(-3, -2).reshape(array.shape)


# ---- formats -------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Format:
    """One kind of output.

    Attributes:
        family: a key of `families.FAMILIES`, as which it is read back.
        suffix: what the name of a file must end in, "" for a folder.
        save: writes a `_Content` to a path and returns sentences.
        check: refuses fields (and image shape) that it cannot express.
    """

    family: str
    suffix: str
    save: Callable[[Path, _Content], tuple[str, ...]]
    check: Callable[[Fields, tuple[int, int, int]], None]


def _save_native(path, content):
    metadata = native.metadata(content.fields)
    metadata["provenance"] = _json(content.provenance)
    _save_safetensors(path, content.tensors, metadata)
    return ("every parameter under its own name; the header holds the config",)


def _save_diffusers(path, content):
    fields = content.fields
    scheduler = diffusers_scheduler.config(fields)
    labels = content.tensors.get("class_embedding.weight")
    unet = diffusers_config.config(
        fields,
        content.image_shape,
        label_rows=None if labels is None else len(labels),
    )
    index = {
        "_class_name": "DDPMPipeline",
        "scheduler": ["diffusers", scheduler["_class_name"]],
        "unet": ["diffusers", unet["_class_name"]],
    }
    files.write_json(path / "model_index.json", index)
    files.write_json(path / "scheduler" / "scheduler_config.json", scheduler)
    files.write_json(path / "unet" / "config.json", unet)
    _save_safetensors(
        path / "unet" / "diffusion_pytorch_model.safetensors",
        content.tensors,
        # diffusers asks for the first.
        {"format": "pt", "provenance": _json(content.provenance)},
    )
    steps = scheduler["num_train_timesteps"]
    told = [
        f"load it with diffusers.DDPMPipeline.from_pretrained, and give it "
        f"num_inference_steps of 1 … {steps}: it takes 1000 by itself"
    ]
    if labels is not None:
        told = [
            "load it with diffusers.UNet2DModel and DDPMScheduler and give the network "
            "class_labels: DDPMPipeline does not; set_timesteps takes 1 … "
            f"{steps} of them"
        ]
    if fields["diffusion.variance"] == "learned_range":
        told.append(
            "the network returns its variance beside the mean, which DDIMScheduler and "
            "DDIMPipeline fail at: keep DDPMScheduler, or give others the first half "
            "of the channels"
        )
    return tuple(told)


def _save_openai(path, content):
    torch = _torch()
    state = {key: torch.tensor(array) for key, array in content.tensors.items()}
    torch.save(state, path)
    return ("load it with torch.load and load_state_dict of the OpenAI code",)


def _check_diffusers(fields, image_shape):
    diffusers_scheduler.config(fields)
    diffusers_config.config(fields, image_shape)


def _check_openai(fields, image_shape):
    del image_shape
    if fields["model.kind"] == "clip":
        raise errors.Refusal(
            "--format=openai of a CLIP, which is two files there: "
            "--format=safetensors keeps everything in one"
        )
    for field, value in openai.DIALECT.items():
        if field not in OPENAI_INDIFFERENT and fields[field] != value:
            raise errors.Refusal(
                f"{field}={fields[field]!r}: the OpenAI code has {value!r} alone; "
                "--format=safetensors keeps everything"
            )
    _torch()


OPENAI_INDIFFERENT = ("model.attention_scale", "model.initialisation")
"""Fields of the dialect that change no output but by rounding."""


def _no_check(fields, image_shape):
    del fields, image_shape


FORMATS = {
    "safetensors": _Format("ddpm_jax", ".safetensors", _save_native, _no_check),
    "diffusers": _Format("diffusers", "", _save_diffusers, _check_diffusers),
    "openai": _Format("openai", ".pt", _save_openai, _check_openai),
}


def _torch():
    try:
        import torch
    except ImportError as error:
        raise errors.Refusal(
            "--format=openai writes a PyTorch file, and PyTorch is not installed: "
            "pip install 'ddpm-jax[convert]'"
        ) from error
    return torch


def _save_safetensors(path, tensors, metadata):
    from safetensors import numpy as safetensors

    safetensors.save_file(tensors, path, metadata)


def _json(values):
    return json.dumps(dict(values), default=files.to_plain, sort_keys=True)
