"""Pictures that a user gives to be enlarged: a folder, a .zip or an .npz file.

All are of one size. They stay as they are: nothing is cut, scaled or converted.
"""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Callable

import numpy as np

from ddpm_jax.core import errors
from ddpm_jax.data import decoding, files, npz, reading, survey

ARCHIVE = "samples.npz"  # in the folders that samples are kept in


@dataclasses.dataclass(frozen=True, eq=False)
class GivenImages:
    """Pictures of one size in memory.

    Attributes:
        images: uint8, uint16 or float32 [N, h, w, C], as `data.images.to_stored`.
        names: the file of each; () in an archive.
        labels: integers [N], or None without any.
        class_names: of the labels, by index; () where they are numbers alone.
        fingerprint: changes with pictures and labels.
    """

    images: np.ndarray
    names: tuple[str, ...] = ()
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """What changes with pictures and labels: their SHA-256."""
        shape = f"{self.images.dtype}{self.images.shape}{self.class_names}"
        digest = hashlib.sha256(shape.encode())
        digest.update(np.ascontiguousarray(self.images).data)
        if self.labels is not None:
            digest.update(np.asarray(self.labels, np.int64).tobytes())
        return digest.hexdigest()


def is_archive(path: str) -> bool:
    """Return whether pictures lie at a path, as opposed to the directory of a run."""
    place = pathlib.Path(path)
    return place.is_file() or not (place / "config.json").is_file()


def read(path: str, say: Callable[[str], None]) -> GivenImages:
    """Return the pictures at a path.

    Args:
        path: a folder of pictures or of samples, a .zip or an .npz file.
        say: called with a line for each remark about the files.

    Raises:
        Refusal: nothing there, something that is damaged, or pictures of several
            sizes, numbers of channels or bits.
    """
    place = pathlib.Path(path)
    if not place.exists():
        raise errors.Refusal(
            f"there is no such file or folder (seen from {os.getcwd()}); give a run, a "
            "folder of images, or their archive (.npz, .zip)"
        )
    if (place / ARCHIVE).is_file():
        place = place / ARCHIVE
    if place.suffix == ".npz":
        return _of_npz(place)
    return _of_files(place, say)


def _of_npz(path) -> GivenImages:
    images, ids = npz.arrays(path)
    if ids is not None and (ids.shape != (len(images),) or ids.dtype.kind not in "iu"):
        raise errors.Refusal(
            f"the labels of {path} are {ids.dtype} {list(ids.shape)}: save one integer "
            f"for each of its {len(images)} images, or none"
        )
    return GivenImages(images, labels=ids)


def _of_files(path, say) -> GivenImages:
    listing = files.open_images(path)
    headers = survey.survey(listing, say)
    if headers.unreadable:
        name, reason = headers.unreadable[0]
        raise errors.Refusal(f"{path}: {name} {reason}; remove or replace it")
    names = tuple(listing.entries[i].name for i in headers.readable)
    _check_alike(path, names, headers.found)

    def decoded(name):
        try:
            return decoding.decode(listing.read(name))
        except decoding.Unreadable as error:
            raise errors.Refusal(
                f"{path}: {name} {error}; remove or replace it"
            ) from error

    images = np.stack(list(reading.in_threads(decoded, names)))
    labels, class_names = _by_folder(names)
    return GivenImages(images, names, labels, class_names)


def _check_alike(path, names, found):
    for name, one in zip(names, found, strict=True):
        if one.alpha:
            raise errors.Refusal(
                f"{path}: {name} has an opacity channel, which no network enlarges: "
                "save it without"
            )
    kinds = [(one.height, one.width, one.channels, one.bits) for one in found]
    for name, kind in zip(names, kinds, strict=True):
        if kind != kinds[0]:
            own, first = (_described(*k) for k in (kind, kinds[0]))
            raise errors.Refusal(
                f"{path}: {name} is {own} and {names[0]} {first}: give pictures that "
                "are alike"
            )


def _described(height, width, channels, bits):
    return f"{height}x{width} with {channels} channels of {bits} bits"


def _by_folder(names):
    """Return labels and classes by the first folder, where every file lies in one."""
    folders = [name.partition("/")[0] for name in names if "/" in name]
    if len(folders) < len(names):
        return None, ()
    classes = tuple(sorted(set(folders)))
    return np.array([classes.index(folder) for folder in folders], np.int32), classes


def described(path: str) -> str:
    """Return a short name of a path for tags: its last part."""
    return pathlib.PurePath(os.path.normpath(path)).name
