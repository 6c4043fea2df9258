"""Which class an image file belongs to: by folder, by file name, or by a table."""

import dataclasses
import pathlib
import posixpath

import numpy as np

from ddpm_jax.core import errors, wording
from ddpm_jax.data import files, tables

SPLIT_FOLDERS = {"train", "training", "val", "valid", "validation", "test", "testing"}


@dataclasses.dataclass(frozen=True)
class Labels:
    """Class ids int32 [n], and the name of each class; None and () without classes."""

    ids: np.ndarray
    names: tuple[str, ...]

    @property
    def num_classes(self) -> int | None:
        """Number of classes, or None without classes."""
        return len(self.names) or None


def none(count: int) -> Labels:
    """Return the labels of images without classes: 0 for all."""
    return Labels(np.zeros(count, np.int32), ())


def assign(images: files.Images, how: str) -> Labels:
    """Return the class of each file.

    Class ids are indices in the sorted names of the classes; names that are all numbers
    are sorted as numbers.

    Args:
        images: the files.
        how: "folders" (the first folder below the root), "prefix" (the file's name up
            to its first underscore, as in OpenAI's data sets), "none", the path of a
            CSV file with the columns file and label, or "auto": labels.csv in the root
            if there is one, else "folders" if every image lies in one, else "none".

    Raises:
        Refusal: a file without class, a table that does not fit the files, or about
            as many classes as files.
    """
    names = [entry.name for entry in images.entries]
    if how == "auto":
        how = _found(images, names)
    if how == "none":
        return none(len(names))
    if how == "folders":
        classes = _by_folder(images, names)
    elif how == "prefix":
        classes = _by_prefix(images, names)
    else:
        classes = _by_table(images, names, how)
    labels = _numbered(classes)
    if len(labels.names) > 1 and 2 * len(labels.names) > len(names):
        raise errors.Refusal(
            f"found {len(labels.names)} classes for {len(names)} images of "
            f"{images.root}: labels look like file names; set data.labels=none to "
            "train without classes"
        )
    return labels


def remark(images: files.Images, labels: Labels) -> str:
    """Return what is odd about classes by folder, "" for nothing: there is only one.

    The folders below it are named where they can be classes.
    """
    names = [entry.name for entry in images.entries]
    if len(labels.names) != 1 or not all(
        name.startswith(f"{labels.names[0]}/") for name in names
    ):
        return ""
    message = f"one class, {labels.names[0]!r}: every image lies in that folder"
    common = posixpath.commonpath([posixpath.dirname(name) for name in names])
    below = [name.removeprefix(f"{common}/").partition("/") for name in names]
    folders = sorted({folder for folder, slash, _ in below if slash})
    if not all(slash for _, slash, _ in below) or 2 * len(folders) > len(names):
        return message
    listed = wording.few(folders)
    if {folder.lower() for folder in folders} <= SPLIT_FOLDERS:
        advice = images.how_to_open(f"{common}/{folders[-1]}")
        return f"{message}, and below it are the splits {listed}: for one, {advice}"
    advice = images.how_to_open(common)
    return f"{message}; for classes by the folders below ({listed}), {advice}"


def check_integers(ids, what: str) -> None:
    """Refuse class numbers that are not 0, 1, … without a gap.

    Raises:
        Refusal: names the first numbers that never occur.
    """
    present = {int(number) for number in ids}
    expected = range(max(present) + 1 if max(present) >= 0 else 0)
    missing = [number for number in expected if number not in present]
    if missing or min(present) < 0:
        fault = (
            f"leave out {', '.join(map(str, missing[:5]))}"
            f"{', …' if missing[5:] else ''}"
            if missing
            else f"hold {min(present)} too"
        )
        raise errors.Refusal(
            f"the labels of {what} go up to {max(present)} but {fault}: number "
            "the classes 0, 1, 2, … without gaps, or set data.labels=none"
        )


def _found(images, names):
    if images.has_labels:
        return files.LABELS_FILE
    return "folders" if all("/" in name for name in names) else "none"


def _by_folder(images, names):
    outside = [name for name in names if "/" not in name]
    if outside:
        raise errors.Refusal(
            f"data.labels=folders: {wording.files(outside)} of {images.root} in no "
            "sub-folder: put every image into the folder of its class, or set "
            "data.labels=none"
        )
    classes = [name.partition("/")[0] for name in names]
    if {name.lower() for name in classes} <= SPLIT_FOLDERS:
        folders = sorted(set(classes))
        raise errors.Refusal(
            f"the sub-folders of {images.root} are splits, not classes "
            f"({', '.join(folders)}): {images.how_to_open(folders[-1])} or another of "
            "them, or set data.labels=none to join them"
        )
    return classes


def _by_prefix(images, names):
    without = [name for name in names if "_" not in posixpath.basename(name)]
    if without:
        raise errors.Refusal(
            f"data.labels=prefix: {wording.files(without)} of {images.root} without "
            "underscore in the name: name files <class>_<anything>, or set "
            "data.labels=none"
        )
    return [posixpath.basename(name).partition("_")[0] for name in names]


def _by_table(images, names, path):
    table = _read_table(images, names, path)
    known = set(names)
    unknown = [name for name in table if name not in known]
    if unknown:
        raise errors.Refusal(
            f"{path} gives labels to files that are not in {images.root}: "
            f"{wording.files(unknown)}; paths in it are relative to that folder, with "
            "slashes"
        )
    missing = [name for name in names if name not in table]
    if missing:
        raise errors.Refusal(
            f"{path} has no label for {wording.files(missing)} of {images.root}: add "
            "them, or take the files out of the folder"
        )
    classes = [table[name] for name in names]
    if all(name.isdecimal() for name in classes):
        check_integers(classes, path)
    return classes


def _read_table(images, names, path):
    """Return {file: label} of a CSV file in the root or elsewhere."""
    if path == files.LABELS_FILE and images.has_labels:
        data = images.read(path)
    elif pathlib.Path(path).is_file():
        data = pathlib.Path(path).read_bytes()
    else:
        raise errors.Refusal(
            f"data.labels={path!r} is neither auto, folders, prefix or none nor a CSV "
            "file that exists"
        )
    return tables.read(data, path, names)


def _numbered(classes):
    are_numbers = all(name.isdecimal() for name in classes)
    names = sorted(set(classes), key=int if are_numbers else None)
    index = {name: number for number, name in enumerate(names)}
    return Labels(np.array([index[name] for name in classes], np.int32), tuple(names))
