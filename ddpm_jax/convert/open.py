"""Checkpoints: what a path means, which code wrote it, its tensors one at a time."""

import dataclasses
import hashlib
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from ddpm_jax.convert import networks, places, readers
from ddpm_jax.convert.formats import FORMATS, clip
from ddpm_jax.core import errors

Shape = tuple[int, ...]

PAIR = "--source=clip_image_enc.pt --source=clip_text_enc.pt"


class Tensors(Mapping):
    """The tensors of a file by name, each read when it is asked for, as float32.

    Args:
        shapes: shape of every tensor by name.
        names: names in the file by ours.
        read: name in the file → array.
    """

    def __init__(
        self,
        shapes: dict[str, Shape],
        names: dict[str, str],
        read: Callable[[str], np.ndarray],
    ):
        self._shapes = shapes
        self._names = names
        self._read = read

    def __getitem__(self, key: str) -> np.ndarray:
        array = self._read(self._names[key])
        return np.asarray(array, np.float32).reshape(self._shapes[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """A checkpoint of some code.

    Attributes:
        path: the file, or the prefix of a TensorFlow checkpoint.
        format: a key of `formats.FORMATS`.
        tensors: float32 arrays by name, read when asked for.
        shapes: by the same names.
        dtypes: what they are in the file, by the same names.
        configs: contents of the JSON beside it, by the name of the file.
        sha256: of the file, or of the parts of a TensorFlow checkpoint in order.
        bytes: how long it is.
        notes: what a reader should know of what was taken and what was left.
    """

    path: pathlib.Path
    format: str
    tensors: Mapping[str, np.ndarray]
    shapes: dict[str, Shape]
    dtypes: dict[str, str]
    configs: dict[str, dict]
    sha256: str
    bytes: int
    notes: list[str]

    def describe(self) -> str:
        """Return in words what was opened."""
        numbers = sum(math.prod(shape) for shape in self.shapes.values())
        about = FORMATS[self.format].about
        what = (
            f"{about}, {len(self.shapes)} tensors, {numbers:,} numbers, "
            f"{self.bytes / 1e6:,.1f} MB"
        )
        return "; ".join((what, *self.notes))


def open_source(path) -> Source:
    """Open a checkpoint: a file, a diffusers folder or a TensorFlow prefix.

    Args:
        path: .pt, .pth, .bin, .ckpt (PyTorch), .safetensors, the index of shards
            (`….index.json`); a folder with `unet/` or `unet_ema/`, or such a folder
            itself; `model.ckpt-790000` beside its .index. After a `#`: the entry
            of the file whose network is meant, as `last.ckpt#ema`.

    Raises:
        Refusal: there is nothing, it is damaged, no checkpoint, one of another model,
            holds several networks and `path` names none, or a library to read it is
            missing.
    """
    path, entry = places.entry_of(path)
    prefix = places.tensorflow_prefix(path)
    if prefix is not None:
        path, opened = prefix, readers.open_tensorflow(prefix)
    else:
        path, notes = places.weights_of(path)
        sharded = places.INDEX.fullmatch(path.name)
        opened = (readers.open_sharded if sharded else readers.open_file)(path)
        opened.notes += notes
    opened.notes += places.beside(path)
    return _source(path, opened, entry)


def open_sources(paths: Sequence) -> Source:
    """Open a checkpoint of one file or folder, or the two files of GLIDE's CLIP.

    Args:
        paths: one, as `open_source` takes it, or those of the image encoder and of the
            text encoder, in any order.

    Raises:
        Refusal: as `open_source`, or two that are not those encoders.
    """
    if len(paths) == 1:
        return open_source(paths[0])
    found = {}
    for path in map(pathlib.Path, paths):
        weights, _ = places.weights_of(path.expanduser())
        opened = readers.open_file(weights)
        part = clip.part_of(opened.shapes)
        if part is None or part in found:
            what = "no encoder of GLIDE's CLIP" if part is None else f"another {part}"
            raise errors.Refusal(
                f"--source={path} is {what}: two files are taken for that CLIP alone, "
                f"{PAIR}; give one --source for anything else"
            )
        found[part] = weights, opened
    return _of_clip(found)


def _of_clip(found):
    """Return the source of both encoders; their names begin with "image.", "text."."""
    places_of, shapes, dtypes = {}, {}, {}
    for part in clip.MARKS:
        _, opened = found[part]
        for key, shape in opened.shapes.items():
            name = f"{part}.{key}"
            places_of[name], shapes[name] = (part, key), tuple(shape)
            dtypes[name] = opened.dtypes[key]

    def read(place):
        part, key = place
        return found[part][1].read(key)

    files = [file for part in clip.MARKS for file in found[part][1].files]
    return Source(
        path=found["image"][0],
        format=clip.FORMAT.name,
        tensors=Tensors(shapes, places_of, read),
        shapes=shapes,
        dtypes=dtypes,
        configs={},
        sha256=_digest(files),
        bytes=sum(file.stat().st_size for file in files),
        notes=[f"with the text encoder {found['text'][0]}"],
    )


def _source(path, opened, entry):
    names, notes = networks.choose(path, opened.shapes, entry, opened.others)
    opened.notes += notes
    record, names = _format(path, names, opened)
    shapes = {key: tuple(opened.shapes[name]) for key, name in names.items()}
    shapes = record.present_shapes(shapes)
    if record.read_configs:
        opened.configs |= places.configs(path.parent)
    dtypes = {key: opened.dtypes[name] for key, name in names.items()}
    others = sorted({dtype for dtype in dtypes.values() if dtype != "float32"})
    for dtype in others:
        count = sum(value == dtype for value in dtypes.values())
        opened.notes.append(
            f"{count} of {len(dtypes)} tensors are {dtype}: cast to float32"
        )
    return Source(
        path=path,
        format=record.name,
        tensors=Tensors(shapes, names, opened.read),
        shapes=shapes,
        dtypes=dtypes,
        configs=opened.configs,
        sha256=_digest(opened.files),
        bytes=sum(file.stat().st_size for file in opened.files),
        notes=opened.notes,
    )


def _digest(files):
    digest = hashlib.sha256()
    for path in files:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


# ---- which code ----------------------------------------------------------------------


def _format(path, names, opened):
    """Return the format of a file and its names in that format's newest form."""
    for record in FORMATS.values():
        if record.header and record.header in opened.configs:
            return record, names
    if clip.part_of(names):
        raise errors.Refusal(
            f"{path} is one encoder of GLIDE's noised CLIP, which is two files: {PAIR}"
        )
    readers.check_not_foreign(path, names.values())
    for record in FORMATS.values():
        present = {record.present_name(key): name for key, name in names.items()}
        if any(marks <= present.keys() for marks in record.marks):
            if present.keys() != names.keys():
                opened.notes.append(
                    f"tensors with old {record.name} names were renamed"
                )
            return record, present
    listed = ", ".join(list(names)[:4])
    raise errors.Refusal(
        f"{path} holds no network that is known here: its tensors are called {listed} "
        "…; give a U-Net of DDPM, Improved DDPM, ADM, GLIDE, diffusers or this package"
    )
