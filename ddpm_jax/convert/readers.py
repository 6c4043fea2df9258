"""Readers of files of weights: PyTorch, safetensors, TensorFlow.

Nothing of a file is executed: PyTorch files are read as weights only.
"""

import dataclasses
import json
import pathlib
import pickle
import re
import zipfile
from collections.abc import Callable, Iterable

import numpy as np

from ddpm_jax.convert import networks
from ddpm_jax.convert.formats import ddpm, native
from ddpm_jax.core import errors

Shape = tuple[int, ...]
Read = Callable[[str], np.ndarray]

EXTRA = "pip install 'ddpm-jax[convert]'"
EXTRA_TENSORFLOW = "pip install 'ddpm-jax[tensorflow]'"
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")


@dataclasses.dataclass
class Opened:
    """A file's tensors under the names they have there.

    Attributes:
        shapes, dtypes: of every tensor by name.
        read: name → array.
        files: what the tensors lie in.
        notes: what was taken and what was left.
        configs: JSON beside the tensors, by its name.
        others: names of what the files hold beside tensors.
    """

    shapes: dict[str, Shape]
    dtypes: dict[str, str]
    read: Read
    files: list[pathlib.Path]
    notes: list[str] = dataclasses.field(default_factory=list)
    configs: dict[str, dict] = dataclasses.field(default_factory=dict)
    others: list[str] = dataclasses.field(default_factory=list)


# ---- one file ------------------------------------------------------------------------


def open_file(path: pathlib.Path) -> Opened:
    """Open a file of PyTorch or safetensors.

    Raises:
        Refusal: it is damaged, no checkpoint, holds more than tensors, or a library to
            read it is missing.
    """
    with path.open("rb") as file:
        head = file.read(512)
    _check_is_checkpoint(path, head)
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        return _open_safetensors(path)
    return _open_torch(path)


def _check_is_checkpoint(path, head):
    """Refuse what downloads and mistakes leave in place of a checkpoint."""
    start = head.lstrip().lower()
    what = None
    if not head:
        what = "is empty: fetch it again"
    elif start.startswith((b"<!doctype", b"<html", b"<?xml")):
        what = "is a web page and no checkpoint: fetch the file itself"
    elif start.startswith(b"version https://git-lfs"):
        what = "is a pointer of Git LFS: run `git lfs pull` where it comes from"
    elif head.startswith(b"PK\x03\x04"):
        what = _of_zip(path)
    elif path.suffix not in SUFFIXES:
        what = f"ends in none of {', '.join(SUFFIXES)}: rename it or give another file"
    if what:
        raise errors.Refusal(f"{path} {what}")


FOREIGN = (
    # Parts of keys → what holds them.
    ("attn2.", "a text-conditioned model (cross attention, as in Stable Diffusion)"),
    ("first_stage_model.", "a latent diffusion model (Stable Diffusion)"),
    ("model.diffusion_model.", "a latent diffusion model (Stable Diffusion)"),
    ("x_embedder.", "a diffusion transformer (DiT)"),
    ("quant_conv.", "an autoencoder (VAE)"),
    ("layer1.0.conv1", "a ResNet classifier"),
    ("visual.", "a CLIP model"),
)


def check_not_foreign(path: pathlib.Path, names: Iterable[str]) -> None:
    """Refuse tensors whose names tell a model of another kind, and say which.

    Raises:
        Refusal: they do.
    """
    names = list(names)
    for part, what in FOREIGN:
        if any(part in name for name in names):
            raise errors.Refusal(
                f"{path} is {what}: give a U-Net of DDPM, Improved DDPM, ADM or GLIDE"
            )


def _of_zip(path):
    """Return what is wrong with a zip as a PyTorch file, or None."""
    if not zipfile.is_zipfile(path):
        return (
            f"is cut short after {path.stat().st_size:,} bytes (its end is missing): "
            "fetch it again"
        )
    with zipfile.ZipFile(path) as archive:
        members = archive.namelist()
    if not any(name.endswith("data.pkl") for name in members):
        return (
            f"is a zip of {len(members)} files ({', '.join(members[:3])} …) and no "
            "checkpoint: give a file of weights"
        )
    return None


def _open_safetensors(path):
    try:
        # Registers bfloat16 with NumPy, which safetensors asks for by name.
        import ml_dtypes  # noqa: F401
        import safetensors
    except ImportError as error:
        raise errors.Refusal(
            f"reading {path.name} needs the safetensors library: {EXTRA}"
        ) from error
    try:
        file = safetensors.safe_open(path, framework="numpy")
    except safetensors.SafetensorError as error:
        raise errors.Refusal(
            f"{path} cannot be read as safetensors ({error}), it has "
            f"{path.stat().st_size:,} bytes: fetch it again"
        ) from error
    slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
    opened = Opened(
        shapes={name: tuple(s.get_shape()) for name, s in slices.items()},
        dtypes={
            name: SAFETENSORS.get(s.get_dtype(), s.get_dtype())
            for name, s in slices.items()
        },
        read=file.get_tensor,
        files=[path],
    )
    metadata = native.read_metadata(file.metadata(), path)
    if metadata is not None:
        opened.configs[native.METADATA] = metadata
    return opened


SAFETENSORS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}


def _open_torch(path):
    try:
        import torch
    except ImportError as error:
        raise errors.Refusal(f"reading {path.name} needs PyTorch: {EXTRA}") from error
    # Files of before 2020 are no zip and cannot be mapped.
    mapped = zipfile.is_zipfile(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise errors.Refusal(_of_torch(path, str(error))) from error
    except (KeyError, IndexError) as error:  # of an unpickler that reads no pickle
        raise errors.Refusal(
            f"{path} is no PyTorch file, or a damaged one of before 2020: give a file "
            "of weights"
        ) from error
    tensors, others = _flat(path, state, torch.Tensor)

    def read(name):
        return tensors[name].detach().to(torch.float32).numpy()

    return Opened(
        shapes={name: tuple(tensor.shape) for name, tensor in tensors.items()},
        dtypes={n: str(t.dtype).removeprefix("torch.") for n, t in tensors.items()},
        read=read,
        files=[path],
        others=others,
    )


def _of_torch(path, message):
    if "weights only load failed" in message.lower():
        named = re.search(r"GLOBAL ([\w.]+)|class (?:of type )?'?([\w.]+)'?", message)
        what = f" ({next(filter(None, named.groups()))})" if named else ""
        return (
            f"{path} holds more than tensors{what}, and reading that would run code of "
            "the file: ask its author for a plain state dict or a .safetensors file"
        )
    return (
        f"{path} cannot be read as a PyTorch file ({message.splitlines()[0][:160]}); "
        f"it has {path.stat().st_size:,} bytes: fetch it again if it was cut short"
    )


def _flat(path, state, tensor):
    """Return the tensors of a PyTorch file by dotted names, and names of the others."""
    if isinstance(state, dict) and {"state", "param_groups"} <= state.keys():
        raise errors.Refusal(
            f"{path} is the state of an optimizer and holds no network: give the "
            "weights of the same step (model….pt or ema_….pt)"
        )
    entries = state if isinstance(state, list | tuple) else [state]
    if not any(isinstance(entry, dict) for entry in entries):
        raise errors.Refusal(
            f"{path} holds a {type(state).__name__} and no tensors by name: save the "
            "network's state_dict() alone"
        )
    tensors, others = networks.flat(state, lambda value: isinstance(value, tensor))
    if not tensors:
        raise errors.Refusal(f"{path} holds no tensors: give another file")
    return tensors, others


# ---- shards --------------------------------------------------------------------------


def open_sharded(index: pathlib.Path) -> Opened:
    """Open the files that an index (`….index.json`) lists, as one.

    Raises:
        Refusal: the index is damaged, or a file or a tensor that it lists is missing.
    """
    where = _weight_map(index)
    shards = {name: _shard(index, name) for name in sorted(set(where.values()))}
    for name, shard in where.items():
        if name not in shards[shard].shapes:
            raise errors.Refusal(
                f"{index.with_name(shard)} lacks the tensor {name!r} that {index.name} "
                "says is in it: fetch both from one place"
            )
    return Opened(
        shapes={name: shards[shard].shapes[name] for name, shard in where.items()},
        dtypes={name: shards[shard].dtypes[name] for name, shard in where.items()},
        read=lambda name: shards[where[name]].read(name),
        files=[index, *(file for shard in shards.values() for file in shard.files)],
        notes=[f"in {len(shards)} parts"],
    )


def _weight_map(index):
    """Return the name of the file by tensor, which must lie beside the index."""
    try:
        where = json.loads(index.read_text())["weight_map"]
        plain = all(pathlib.PurePath(shard).name == shard for shard in where.values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise errors.Refusal(
            f"{index} is no index of shards (JSON with 'weight_map'): fetch it again"
        ) from error
    if not where or not plain:
        raise errors.Refusal(
            f"{index} lists no files that lie beside it: fetch the index and its parts "
            "into one folder"
        )
    return where


def _shard(index, name):
    path = index.with_name(name)
    if not path.is_file():
        raise errors.Refusal(
            f"{index} lists {name}, which is not beside it: fetch that part too"
        )
    return open_file(path)


# ---- TensorFlow ----------------------------------------------------------------------


def open_tensorflow(prefix: pathlib.Path) -> Opened:
    """Open the TensorFlow checkpoint of a prefix; see `ddpm.select` for what is taken.

    Raises:
        Refusal: it is damaged or in parts, or TensorFlow is missing.
    """
    parts = sorted(prefix.parent.glob(f"{prefix.name}.data-*"))
    if not parts:
        raise errors.Refusal(
            f"{prefix}.index has no {prefix.name}.data-… beside it: fetch that too"
        )
    reader, failures = _tensorflow_reader(prefix)
    shapes = {n: tuple(s) for n, s in reader.get_variable_to_shape_map().items()}
    dtypes = reader.get_variable_to_dtype_map()
    names, notes = ddpm.select(shapes)

    def read(key):
        try:
            return reader.get_tensor(names[key])
        except failures as error:
            raise errors.Refusal(_of_tensorflow(prefix, error)) from error

    return Opened(
        shapes={key: shapes[name] for key, name in names.items()},
        dtypes={key: dtypes[name].name for key, name in names.items()},
        read=read,
        files=[pathlib.Path(f"{prefix}.index"), *parts],
        notes=notes,
    )


def _tensorflow_reader(prefix):
    """Return TensorFlow's reader, and what it raises where the files are damaged."""
    try:
        import tensorflow
    except ImportError as error:
        raise errors.Refusal(
            f"reading the TensorFlow checkpoint {prefix.name} needs TensorFlow: "
            f"{EXTRA_TENSORFLOW}"
        ) from error
    failures = (tensorflow.errors.OpError, ValueError, IndexError, RuntimeError)
    try:
        return tensorflow.train.load_checkpoint(str(prefix)), failures
    except failures as error:
        raise errors.Refusal(_of_tensorflow(prefix, error)) from error


def _of_tensorflow(prefix, error):
    return (
        f"{prefix} cannot be read as a TensorFlow checkpoint ({error}): fetch its "
        ".index and .data files again"
    )
