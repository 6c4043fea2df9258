"""The image files below a folder or inside a zip file, in sorted order.

`open_images(path)` lists them without looking inside; `decoding` says what they hold.
"""

import collections
import dataclasses
import os
import pathlib
import zipfile
import zlib
from collections.abc import Callable
from typing import BinaryIO

from ddpm_jax.core import errors
from ddpm_jax.data import decoding

LABELS_FILE = "labels.csv"
BAD_MEMBERS_NAMED = 3
EXTENSIONS_NAMED = 5


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
    """

    root: str
    entries: tuple[Entry, ...]
    ignored: tuple[tuple[str, int], ...]
    has_labels: bool
    open: Callable[[str], BinaryIO] = dataclasses.field(compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.entries)

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
    __MACOSX of zip files) are passed over. Where a zip file holds nothing outside one
    folder, names start below that folder, so that a zipped folder reads as the folder.

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
        raise errors.Refusal(
            f"{path} holds no images ({others} other files{_listed(images.ignored)}): "
            f"it needs files ending in {', '.join(decoding.EXTENSIONS)}"
        )
    return images


def describe_ignored(images: Images) -> str:
    """Return "ignored 12 other files (10 .txt, 2 .json)", or "" without any."""
    count = sum(number for _, number in images.ignored)
    noun = "file" if count == 1 else "files"
    return f"ignored {count:,} other {noun}{_listed(images.ignored)}" if count else ""


def _listed(ignored):
    if not ignored:
        return ""
    first = ignored[:EXTENSIONS_NAMED]
    named = [f"{count:,} {name or 'without extension'}" for name, count in first]
    return f" ({', '.join(named)}{', …' if len(ignored) > len(first) else ''})"


def _sorted_out(sizes: dict[str, int]):
    """Split {name: bytes} into the entries of `Images` that depend on names alone."""
    entries, others, has_labels = [], collections.Counter(), False
    for name, size in sorted(sizes.items()):
        parts = name.split("/")
        extension = os.path.splitext(name)[1].lower()
        if any(part.startswith(".") or part == "__MACOSX" for part in parts):
            continue
        if extension in decoding.EXTENSIONS:
            entries.append(Entry(name, size))
        elif name == LABELS_FILE:
            has_labels = True
        else:
            others[extension] += 1
    return {
        "entries": tuple(entries),
        "ignored": tuple(others.most_common()),
        "has_labels": has_labels,
    }


def _in_folder(root):
    sizes = {}

    def search(folder, prefix, above):
        status = os.stat(folder)
        identity = (status.st_dev, status.st_ino)
        if identity in above:  # a link to a folder that contains it
            return
        with os.scandir(folder) as found:
            for entry in found:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    search(entry.path, f"{prefix}{entry.name}/", {*above, identity})
                elif entry.is_file():
                    sizes[prefix + entry.name] = entry.stat().st_size

    search(root, "", set())
    return Images(
        root=str(root), open=lambda name: open(root / name, "rb"), **_sorted_out(sizes)
    )


# ---- zip files -----------------------------------------------------------------------


def open_zip(path) -> zipfile.ZipFile:
    """Open a zip file for reading.

    Raises:
        Refusal: it is none, for example a web page saved under its name.
    """
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        with open(path, "rb") as file:
            start = file.read(512)
        if decoding.looks_like_html(start):
            reason = "is an HTML page, not a zip file: the site answered with a page"
        elif start.startswith(b"PK"):
            reason = f"is a damaged zip file ({error})"
        else:
            reason = "is no zip file"
        raise errors.Refusal(
            f"{path} {reason}; download it again, and check that it opens"
        ) from error


def _in_zip(path):
    archive = open_zip(path)
    members = [member for member in archive.infolist() if not member.is_dir()]
    _check_members(path, members)
    names = {member.filename.replace("\\", "/"): member for member in members}
    prefix = _common_folder(names)
    members = {name.removeprefix(prefix): member for name, member in names.items()}
    sizes = {name: member.file_size for name, member in members.items()}

    def open_member(name):
        try:
            return archive.open(members[name])
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise decoding.Unreadable(f"is damaged ({error})") from error

    return Images(root=str(path), open=open_member, **_sorted_out(sizes))


def _check_members(path, members):
    outside = [m.filename for m in members if not _is_inside(m.filename)]
    if outside:
        first = ", ".join(repr(name) for name in outside[:BAD_MEMBERS_NAMED])
        raise errors.Refusal(
            f"{path} holds files outside of itself ({first}): pack it again with "
            "relative paths and without '..'"
        )
    encrypted = [m.filename for m in members if m.flag_bits & 1]
    if encrypted:
        raise errors.Refusal(
            f"{path} is encrypted ({encrypted[0]!r}): unpack it with its password and "
            "give the folder"
        )


def _is_inside(name):
    parts = name.replace("\\", "/").split("/")
    return parts[0] != "" and not parts[0].endswith(":") and ".." not in parts


def _common_folder(names):
    """Return "folder/" if everything that is not hidden lies in one, else ""."""
    tops = {
        name.partition("/")[::2]
        for name in names
        if not name.startswith((".", "__MACOSX/"))
    }
    folders = {top for top, _ in tops}
    if len(folders) == 1 and all(rest for _, rest in tops):
        return f"{folders.pop()}/"
    return ""
