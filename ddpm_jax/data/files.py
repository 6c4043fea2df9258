"""The image files below a folder or inside a zip file, in sorted order.

`open_images(path)` lists them without looking inside; `decoding` says what they hold.
"""

import collections
import dataclasses
import json
import os
import pathlib
import zipfile
import zlib
from collections.abc import Callable
from typing import BinaryIO

import numpy as np

from ddpm_jax.core import errors
from ddpm_jax.data import decoding

LABELS_FILE = "labels.csv"
BAD_MEMBERS_NAMED = 3
EXTENSIONS_NAMED = 5
RUNS_NAMED = 3
RUN_CONFIG = "config.json"
RUN_CONTENT = {"checkpoints", "metrics.jsonl"}  # one of them lies beside it
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".xz", ".bz2", ".zst")
DEFLATE64 = 9  # number of the method in a zip file
READABLE_METHODS = (
    *(zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA),
    getattr(zipfile, "ZIP_ZSTANDARD", zipfile.ZIP_STORED),  # from Python 3.14 on
)
UNPACK = "unpack it and give the folder"
WRITE_IMAGES = (
    "read its images with the library that wrote it and save them as .png files in a "
    "folder, or with np.savez(..., images=array) as .npz"
)
# (first bytes, what a file that begins with them is and what to do), not zip files.
OTHERS = (
    ((b"7z\xbc\xaf\x27\x1c",), f"is a 7z archive, not a zip file: {UNPACK}"),
    ((b"Rar!\x1a\x07",), f"is a RAR archive, not a zip file: {UNPACK}"),
    (
        (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"),
        f"is compressed by gzip, bzip2, xz or zstd, as .tar.gz is: {UNPACK}",
    ),
    (
        (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*"),
        "is a single image: give the folder that holds the images",
    ),
    (
        (np.lib.format.MAGIC_PREFIX,),
        "is one .npy array: save its images [N, H, W, C] as an .npz file, with "
        "np.savez('images.npz', images=np.load(...)), and give that",
    ),
    ((b"\x89HDF",), f"is an HDF5 file: {WRITE_IMAGES}"),
    ((b"PAR1",), f"is a Parquet file: {WRITE_IMAGES}"),
    (
        (b"version https://git-lfs",),
        "is the pointer of Git LFS, not the file that it stands for: fetch that with "
        "git lfs pull",
    ),
)
TAR_MAGIC = slice(257, 262)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One image file: its path below the root, with slashes, and its size in bytes."""

    name: str
    size: int


@dataclasses.dataclass(frozen=True)
class Images:
    """The image files of a folder or zip file.

    Two listings are equal if root, names and sizes are.

    Attributes:
        root: the path that was opened.
        entries: sorted by name.
        ignored: (extension, number) of the files that are no images, commonest first.
        open: name → binary file, or `Unreadable` raised; of `labels.csv` too.
        has_labels: whether there is a `labels.csv` in the root.
        inside: "photos/" where names start below that folder of a zip file, else "".
        runs: the folders that are passed over, as they hold the results of a run.
    """

    root: str
    entries: tuple[Entry, ...]
    ignored: tuple[tuple[str, int], ...]
    has_labels: bool
    open: Callable[[str], BinaryIO] = dataclasses.field(compare=False, repr=False)
    inside: str = dataclasses.field(default="", compare=False)
    runs: tuple[str, ...] = dataclasses.field(default=(), compare=False)

    def __len__(self) -> int:
        return len(self.entries)

    def how_to_open(self, folder: str) -> str:
        """Return the advice that makes a folder below the root the root."""
        if pathlib.Path(self.root).is_dir():
            return f"set data.path to {self.root}/{folder}"
        return f"unpack it and set data.path to its folder {self.inside}{folder}"

    def read(self, name: str) -> bytes:
        """Return the content of a file.

        Raises:
            Unreadable: it is damaged inside its zip file.
            OSError: it cannot be read.
        """
        with self.open(name) as file:
            try:
                return file.read()
            except (zipfile.BadZipFile, zlib.error) as error:
                raise decoding.Unreadable(f"is damaged ({error})") from error


def open_images(path) -> Images:
    """List the image files of a folder or of a .zip file.

    Folders are searched recursively, links included; hidden files and folders (and the
    __MACOSX of zip files) are passed over, and below a folder the directories of runs,
    whose pictures would make a run on the folder around it change its own data. Where
    no image of a zip file lies outside of one folder, nor labels.csv, names start below
    that folder, so that a zipped folder reads as the folder.

    Raises:
        Refusal: nothing there, no images in it, or a file that is no sound zip file.
    """
    if not path:
        raise errors.Refusal(
            "data.path is empty: give the folder or zip file that holds the images"
        )
    path = pathlib.Path(path)
    if path.is_dir():
        images = _in_folder(path)
    elif path.is_file():
        images = _in_zip(path)
    else:
        raise errors.Refusal(
            f"data.path {str(path)!r} does not exist (seen from {os.getcwd()}): give "
            "the folder or zip file that holds the images"
        )
    if not images.entries:
        others = sum(count for _, count in images.ignored)
        results = describe_runs(images)
        raise errors.Refusal(
            f"{path} holds no images ({others} other files{_listed(images.ignored)}): "
            f"{_packed(images.ignored)}it needs files ending in "
            f"{', '.join(decoding.EXTENSIONS)}{results and f'; {results}'}"
        )
    return images


def describe_ignored(images: Images) -> str:
    """Return "ignored 12 other files (10 .txt, 2 .json)", or "" without any."""
    count = sum(number for _, number in images.ignored)
    noun = "file" if count == 1 else "files"
    return f"ignored {count:,} other {noun}{_listed(images.ignored)}" if count else ""


def describe_runs(images: Images) -> str:
    """Return "passed over the directory of a run (runs/a): …", or "" without any."""
    if not images.runs:
        return ""
    named = ", ".join(images.runs[:RUNS_NAMED])
    named += ", …" if len(images.runs) > RUNS_NAMED else ""
    count = len(images.runs)
    what = (
        "the directory of a run" if count == 1 else f"the directories of {count} runs"
    )
    return f"passed over {what} ({named}): the pictures there are results, not data"


def _listed(ignored):
    if not ignored:
        return ""
    first = ignored[:EXTENSIONS_NAMED]
    named = [f"{count:,} {name or 'without extension'}" for name, count in first]
    return f" ({', '.join(named)}{', …' if len(ignored) > len(first) else ''})"


def _packed(ignored):
    inner = [name for name, _ in ignored if name in ARCHIVES]
    return f"unpack the {' and '.join(inner)} files in it first; " if inner else ""


def _is_hidden(name):
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _is_image(name):
    return os.path.splitext(name)[1].lower() in decoding.EXTENSIONS


def _sorted_out(sizes: dict[str, int]):
    """Split {name: bytes} into the entries of `Images` that depend on names alone."""
    entries, others, has_labels = [], collections.Counter(), False
    for name, size in sorted(sizes.items()):
        if _is_hidden(name):
            continue
        if _is_image(name):
            entries.append(Entry(name, size))
        elif name == LABELS_FILE:
            has_labels = True
        else:
            others[os.path.splitext(name)[1].lower()] += 1
    return {
        "entries": tuple(entries),
        "ignored": tuple(others.most_common()),
        "has_labels": has_labels,
    }


def _in_folder(root):
    sizes, runs = {}, []

    def search(folder, prefix, above):
        status = os.stat(folder)
        identity = (status.st_dev, status.st_ino)
        if identity in above:  # a link to a folder that contains it
            return
        with os.scandir(folder) as listed:
            found = [entry for entry in listed if not entry.name.startswith(".")]
        if prefix and _is_run(folder, {entry.name for entry in found}):
            runs.append(prefix.removesuffix("/"))
            return
        for entry in found:
            if entry.is_dir():
                search(entry.path, f"{prefix}{entry.name}/", {*above, identity})
            elif entry.is_file():
                sizes[prefix + entry.name] = entry.stat().st_size

    search(root, "", set())
    return Images(
        root=str(root),
        open=lambda name: open(root / name, "rb"),
        runs=tuple(sorted(runs)),
        **_sorted_out(sizes),
    )


def _is_run(folder, names):
    """Return whether a folder of these names is the directory of a run of ours."""
    if RUN_CONFIG not in names or not names & RUN_CONTENT:
        return False
    try:  # by content too: others call their files so as well
        stored = json.loads(pathlib.Path(folder, RUN_CONFIG).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(stored, dict) and {"config", "data"} <= stored.keys()


# ---- zip files -----------------------------------------------------------------------


def open_zip(path) -> zipfile.ZipFile:
    """Open a zip file for reading.

    Raises:
        Refusal: it is none, for example a web page saved under its name, or one whose
            files cannot be read: encrypted, or packed by a method Python lacks.
    """
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        with open(path, "rb") as file:
            start = file.read(512)
        raise errors.Refusal(f"{path} {_what_else(start, error)}") from error
    _check_readable(path, archive.infolist())
    return archive


def _what_else(start, error):
    """Return what a file is that is no sound zip file, and what to do."""
    if start[TAR_MAGIC] == b"ustar":
        return f"is a tar archive, not a zip file: {UNPACK}"
    for beginnings, told in OTHERS:
        if start.startswith(beginnings):
            return told
    again = "; download it again, and check that it opens"
    if not start:
        return f"is empty{again}"
    if decoding.looks_like_html(start):
        return f"is an HTML page, not a zip file: the site answered with a page{again}"
    if start.startswith(b"PK"):
        return f"is a damaged zip file ({error}){again}"
    return f"is no zip file{again}"


def _in_zip(path):
    archive = open_zip(path)
    members = [member for member in archive.infolist() if not member.is_dir()]
    _check_inside(path, members)
    names = {member.filename.replace("\\", "/"): member for member in members}
    prefix = _common_folder(names)
    members = {name.removeprefix(prefix): member for name, member in names.items()}
    sizes = {name: member.file_size for name, member in members.items()}

    def open_member(name):
        try:
            return archive.open(members[name])
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise decoding.Unreadable(f"is damaged ({error})") from error

    return Images(root=str(path), open=open_member, inside=prefix, **_sorted_out(sizes))


def _check_inside(path, members):
    outside = [m.filename for m in members if not _is_inside(m.filename)]
    if outside:
        first = ", ".join(repr(name) for name in outside[:BAD_MEMBERS_NAMED])
        raise errors.Refusal(
            f"{path} holds files outside of itself ({first}): pack it again with "
            "relative paths and without '..'"
        )


def _check_readable(path, members):
    encrypted = [m.filename for m in members if m.flag_bits & 1]
    if encrypted:
        raise errors.Refusal(
            f"{path} is encrypted ({encrypted[0]!r}): unpack it with its password and "
            "give the folder"
        )
    packed = [
        member
        for member in members
        if member.compress_type not in READABLE_METHODS
        and (_is_image(member.filename) or member.filename.endswith(LABELS_FILE))
    ]
    if packed:
        method = packed[0].compress_type
        named = "Deflate64" if method == DEFLATE64 else f"method {method}"
        raise errors.Refusal(
            f"{path} is packed by {named} ({packed[0].filename!r}), which Python does "
            "not read: unpack it and give the folder, or pack it again by Deflate"
        )


def _is_inside(name):
    parts = name.replace("\\", "/").split("/")
    return parts[0] != "" and not parts[0].endswith(":") and ".." not in parts


def _common_folder(names):
    """Return "folder/" if every image lies in one, and labels.csv does too, else "".

    What else lies beside it, such as Thumbs.db or a README, does not count.
    """
    seen = [n for n in names if not _is_hidden(n) and _is_image(n)]
    tops = {name.partition("/")[0] for name in seen}
    if len(tops) == 1 and all("/" in name for name in seen):
        return "" if LABELS_FILE in names else f"{tops.pop()}/"
    return ""
