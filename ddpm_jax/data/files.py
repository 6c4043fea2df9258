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
from typing import BinaryIO, NamedTuple

from ddpm_jax.core import errors, wording
from ddpm_jax.data import decoding, disks, marks, zip_files

LABELS_FILE = "labels.csv"
TEXT = ".txt"  # of captions beside an image of the same name
TABLES = ("metadata.jsonl", "metadata.csv", "captions.csv")  # of captions
BAD_MEMBERS_NAMED = 3
EXTENSIONS_NAMED = 5
OF_SYSTEMS = {  # folders that Synology, Windows, QNAP and others make, in small letters
    *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot"),
    *("$recycle.bin", "recycler", "system volume information", "lost+found"),
}
RUN_CONFIG = "config.json"
RUN_CONTENT = {"checkpoints", "metrics.jsonl"}  # one of them lies beside it
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".xz", ".bz2", ".zst")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One image file: its path below the root, with slashes, and its size in bytes."""

    name: str
    size: int


class Text(NamedTuple):
    """A file that may hold captions.

    Attributes:
        name: its path, with slashes: below the root, or in all of the zip file.
        size: in bytes.
        stamp: changes with its content.
    """

    name: str
    size: int
    stamp: int


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
        runs: the folders that are skipped, as they hold the results of a run.
        dangling: links to files that are not there, and to themselves.
        texts: files that may hold captions, sorted by name.
        open_text: name of one of these → binary file.
        mark: (name, its last mark or None) → digest of the content and stamp.
        reopen: called before a file is read again after an error of the disk.
    """

    root: str
    entries: tuple[Entry, ...]
    ignored: tuple[tuple[str, int], ...]
    has_labels: bool
    open: Callable[[str], BinaryIO] = dataclasses.field(compare=False, repr=False)
    inside: str = dataclasses.field(default="", compare=False)
    runs: tuple[str, ...] = dataclasses.field(default=(), compare=False)
    dangling: tuple[str, ...] = dataclasses.field(default=(), compare=False)
    texts: tuple[Text, ...] = dataclasses.field(default=(), compare=False, repr=False)
    open_text: Callable[[str], BinaryIO] | None = dataclasses.field(
        default=None, compare=False, repr=False
    )
    mark: Callable = dataclasses.field(
        default=lambda name, known: ("", ""), compare=False, repr=False
    )
    reopen: Callable[[], None] = dataclasses.field(
        default=lambda: None, compare=False, repr=False
    )

    def __len__(self) -> int:
        return len(self.entries)

    def how_to_open(self, folder: str) -> str:
        """Return the advice that makes a folder below the root the root."""
        if pathlib.Path(self.root).is_dir():
            return f"set data.path to {self.root}/{folder}"
        return f"unpack it and set data.path to its folder {self.inside}{folder}"

    def read(self, name: str) -> bytes:
        """Return the content of a file; see `use`."""
        return self.use(name, lambda file: file.read())

    def read_text(self, name: str) -> bytes:
        """Return the content of one of the `texts`; see `use`."""
        return self.use(name, lambda file: file.read(), self.open_text)

    def use(self, name: str, look: Callable[[BinaryIO], object], opened=None):
        """Return `look(file)` of an open file, tried again where the disk errs.

        Raises:
            Unreadable: it is damaged inside its zip file, gone, or not for this user.
            OSError: the disk fails; it names a file.
        """

        def attempt():
            with (opened or self.open)(name) as file:
                try:
                    return look(file)
                except (zipfile.BadZipFile, zlib.error) as error:
                    raise decoding.Unreadable(f"is damaged ({error})") from error

        return disks.read(attempt, os.path.join(self.root, name), self.reopen)


def open_images(path) -> Images:
    """List the image files of a folder or of a .zip file.

    Folders are searched recursively, links included; hidden files and folders (and the
    __MACOSX of zip files) are skipped, and below a folder the directories of runs,
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
        odd = "".join(f"; {line}" for line in remarks(images))
        raise errors.Refusal(
            f"{path} holds no images ({others} other files{_listed(images.ignored)}): "
            f"{_packed(images.ignored)}it needs files ending in "
            f"{', '.join(decoding.EXTENSIONS)}{odd}"
        )
    return images


def describe_ignored(images: Images) -> str:
    """Return "ignored 12 other files (10 .txt, 2 .json)", or "" without any."""
    count = sum(number for _, number in images.ignored)
    noun = "file" if count == 1 else "files"
    return f"ignored {count:,} other {noun}{_listed(images.ignored)}" if count else ""


def remarks(images: Images) -> list[str]:
    """Return a line for everything in the folders that a user may not expect."""
    found = []
    if images.runs:
        count = len(images.runs)
        where = f"directories of {count} runs" if count > 1 else "directory of a run"
        found.append(
            f"skipped the {where} ({wording.few(images.runs)}): the pictures there "
            "are results, not data"
        )
    if images.dangling:
        found.append(
            f"skipped {len(images.dangling):,} links whose targets cannot be "
            f"reached ({wording.few(images.dangling)}): restore these, or remove "
            "the links"
        )
    made = [e.name for e in images.entries if _of_a_system(e.name)]
    if made:
        found.append(
            f"{len(made):,} images lie in folders that systems make for themselves, "
            f"such as thumbnails or waste ({wording.few(made)}), and are taken for "
            "data: move these folders away"
        )
    return found


def _of_a_system(name):
    return any(part.lower() in OF_SYSTEMS for part in name.split("/")[:-1])


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


def _may_hold_captions(name):
    base = name.rpartition("/")[2].lower()
    return not _is_hidden(name) and (base.endswith(TEXT) or base in TABLES)


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
    sizes, texts, runs, dangling = {}, [], [], []

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
            name = prefix + entry.name
            if entry.is_symlink() and not os.path.exists(entry.path):
                dangling.append(name)
            elif entry.is_dir():
                search(entry.path, f"{name}/", {*above, identity})
            elif entry.is_file():
                status = entry.stat()
                sizes[name] = status.st_size
                if _may_hold_captions(name):
                    texts.append(Text(name, status.st_size, status.st_mtime_ns))

    search(root, "", set())
    return Images(
        root=str(root),
        open=lambda name: open(root / name, "rb"),
        runs=tuple(sorted(runs)),
        dangling=tuple(sorted(dangling)),
        texts=tuple(sorted(texts)),
        open_text=lambda name: open(root / name, "rb"),
        mark=lambda name, known: marks.of_file(os.path.join(root, name), known),
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


def _in_zip(path):
    archive = zip_files.open_zip(path)
    members = [member for member in archive.infolist() if not member.is_dir()]
    _check_inside(path, members)
    names = {member.filename.replace("\\", "/"): member for member in members}
    prefix = _common_folder(names)
    members = {name.removeprefix(prefix): member for name, member in names.items()}
    sizes = {name: member.file_size for name, member in members.items()}

    def open_member(name, known=members):
        try:
            return archive.open(known[name])
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise decoding.Unreadable(f"is damaged ({error})") from error

    def reopen():
        nonlocal archive  # a handle that the server forgot never works again
        archive = zip_files.open_zip(path)

    return Images(
        root=str(path),
        open=open_member,
        inside=prefix,
        texts=tuple(
            Text(name, member.file_size, member.CRC)
            for name, member in sorted(names.items())
            if _may_hold_captions(name)
        ),
        open_text=lambda name: open_member(name, names),
        mark=lambda name, known: (f"crc32 {members[name].CRC:08x}", ""),
        reopen=reopen,
        **_sorted_out(sizes),
    )


def _check_inside(path, members):
    outside = [m.filename for m in members if not _is_inside(m.filename)]
    if outside:
        first = ", ".join(repr(name) for name in outside[:BAD_MEMBERS_NAMED])
        raise errors.Refusal(
            f"{path} holds files outside of itself ({first}): pack it again with "
            "relative paths and without '..'"
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
