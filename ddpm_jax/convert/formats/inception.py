"""The published Inception weights: where they come from, how they become parameters.

The file is read, never fetched. Batch norms are folded into the convolutions before
them, in float64: at inference they are one affine map per channel.
"""

import dataclasses
import functools
import hashlib
import os
import pathlib
import zipfile
from collections.abc import Mapping

import numpy as np

from ddpm_jax.convert import differences, readers
from ddpm_jax.core import errors
from ddpm_jax.runtime import files

VARIABLE = "DDPM_JAX_INCEPTION"
PUBLISHED = "pt_inception-2015-12-05-6726825d.pth"
PUBLISHED_SHA256 = "6726825d"
WHERE = (
    f"fetch {PUBLISHED} (91 MiB, sha256 {PUBLISHED_SHA256}…) from "
    "https://github.com/mseitzer/pytorch-fid/releases/tag/fid_weights and name it by "
    f"the environment variable {VARIABLE}"
)

NORM_EPSILON = 1e-3
NORM = {
    "weight": "scale",
    "bias": "shift",
    "running_mean": "mean",
    "running_var": "var",
}
COUNTER = ".num_batches_tracked"
"""Kept by PyTorch beside a norm's statistics; of no use here."""


@dataclasses.dataclass(frozen=True, eq=False)
class Weights:
    """Parameters of the feature network and what they are.

    Attributes:
        params: float32 tree for `models.inception.apply`.
        fingerprint: SHA-256 over names and float32 values of the file's tensors: alike
            for the same weights in another kind of file.
        published: the file is the published one, byte for byte.
        notes: what a reader of the number should know.
    """

    params: dict
    fingerprint: str
    published: bool
    notes: tuple[str, ...]


def find(path: str | os.PathLike | None = None) -> pathlib.Path:
    """Return the file of weights: `path`, or what the environment names.

    Raises:
        Refusal: there is none; tells where to get it.
    """
    given = path or os.environ.get(VARIABLE, "")
    if not given:
        raise errors.Refusal(
            f"FID needs the Inception weights, which are never downloaded: {WHERE}"
        )
    found = pathlib.Path(given).expanduser()
    if not found.is_file():
        raise errors.Refusal(
            f"the Inception weights {str(given)!r} are not there: {WHERE}"
        )
    return found


def load(path: str | os.PathLike, shapes: Mapping) -> Weights:
    """Read the weights of the feature network.

    Args:
        path: .pth as published (needs PyTorch), or .safetensors or .npz with tensors of
            the same names.
        shapes: `models.inception.build().shapes`.

    Raises:
        Refusal: a damaged file, or the weights of another network.
    """
    path = pathlib.Path(path)
    digest = files.sha256(path)
    published = digest.startswith(PUBLISHED_SHA256)
    if PUBLISHED_SHA256 in path.name and path.suffix == ".pth" and not published:
        raise errors.Refusal(
            f"{path} is damaged: its sha256 begins {digest[:8]}, not "
            f"{PUBLISHED_SHA256}; {WHERE}"
        )
    tensors = _read(path)
    _check(path, tensors, _wanted(shapes))
    notes = () if published else (f"{path.name} is not the published file {PUBLISHED}",)
    return Weights(
        params=_parameters(tensors, shapes),
        fingerprint=_fingerprint(tensors),
        published=published,
        notes=notes,
    )


def _read(path):
    """Return the tensors but the counters by name, float32."""
    if path.suffix == ".npz":
        found = _read_npz(path)
    else:
        opened = readers.open_file(path)
        found = {name: opened.read(name) for name in opened.shapes}
    return {
        name: np.asarray(found[name], np.float32)
        for name in sorted(found)
        if not name.endswith(COUNTER)
    }


def _read_npz(path):
    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise errors.Refusal(
            f"{path} cannot be read as an archive of arrays ({error}): {WHERE}"
        ) from error


def _fingerprint(tensors):
    digest = hashlib.sha256()
    for name, array in tensors.items():
        digest.update(f"{name}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


# ---- the map -------------------------------------------------------------------------


def _convolutions(shapes):
    """Return the shape of every convolution's kernel, HWIO, by its published name."""
    found = {}
    for name, entry in shapes.items():
        if name == "fc":
            continue
        if "kernel" in entry:
            found[name] = tuple(entry["kernel"].shape)
        else:
            inner = _convolutions(entry)
            found |= {f"{name}.{branch}": shape for branch, shape in inner.items()}
    return found


def _wanted(shapes):
    """Return the shapes of the file's tensors."""
    features, classes = shapes["fc"]["kernel"].shape
    wanted = {"fc.weight": (classes, features), "fc.bias": (classes,)}
    for name, (*area, channels_in, channels_out) in _convolutions(shapes).items():
        wanted[f"{name}.conv.weight"] = (channels_out, channels_in, *area)
        wanted |= {f"{name}.bn.{part}": (channels_out,) for part in NORM}
    return wanted


def _check(path, tensors, wanted):
    found = {name: array.shape for name, array in tensors.items()}
    if found != wanted:
        differing = {
            name: (wanted.get(name), found.get(name))
            for name in (*wanted, *(found.keys() - wanted.keys()))
            if wanted.get(name) != found.get(name)
        }
        torchvision = found.get("fc.weight", (0,))[0] == 1000
        reason = "; torchvision's own weights give other numbers" if torchvision else ""
        raise errors.Refusal(
            f"{path} is not the Inception network of 2015{reason}: {WHERE}\n"
            f"{differences.table(differing)}"
        )
    bad = [name for name, array in tensors.items() if not np.isfinite(array).all()]
    if bad:
        raise errors.Refusal(f"{path} holds NaN or infinity in {bad[0]}: {WHERE}")


def _parameters(tensors, shapes):
    tree = {"fc": {"kernel": np.ascontiguousarray(tensors["fc.weight"].T)}}
    for name in _convolutions(shapes):
        *outer, inner = name.split(".")
        place = functools.reduce(
            lambda node, key: node.setdefault(key, {}), outer, tree
        )
        place[inner] = _folded(tensors, name)
    return tree


def _folded(tensors, name):
    """Return kernel, HWIO, and bias of a convolution with its norm in them."""
    norm = {
        ours: tensors[f"{name}.bn.{theirs}"].astype(np.float64)
        for theirs, ours in NORM.items()
    }
    gain = norm["scale"] / np.sqrt(norm["var"] + NORM_EPSILON)
    kernel = tensors[f"{name}.conv.weight"].transpose(2, 3, 1, 0) * gain
    bias = norm["shift"] - norm["mean"] * gain
    return {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}
