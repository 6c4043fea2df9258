"""Captions that lie in files: a text beside each image, or a table.

They are read once, when the images are listed. Whatever names of files stand in it, a
table is trusted with none outside the folder.
"""

import collections
import dataclasses
import functools
import os
import pathlib
import posixpath
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ddpm_jax.core import errors, wording
from ddpm_jax.data import captions as captions_lib
from ddpm_jax.data import captions_tables, decoding, files, reading, tables

WORDS = ("auto", "none", "files")
BESIDE = f"the {files.TEXT} files beside the images"
NAMED = 3  # images that a refusal names
WITHOUT = "or train without captions, with model.text_layers=0"


@dataclasses.dataclass(frozen=True)
class Found:
    """The captions of all images of a folder or zip file.

    Attributes:
        captions: of `images.entries`, in that order; an image may have none.
        origin: where they stand, in words.
        images: the listing, without the files of captions among those that are ignored.
        remarks: what was found, in a line each.
    """

    captions: captions_lib.Captions
    origin: str
    images: files.Images
    remarks: tuple[str, ...]

    def without(self, chosen: Sequence[int] | None = None) -> list[str]:
        """Return the names of the images that have no caption, or an empty one.

        Args:
            chosen: indices of the images that count; None for all.
        """
        counts = self.captions.counts
        chosen = range(len(counts)) if chosen is None else chosen
        return [self.images.entries[i].name for i in chosen if not counts[i]]

    def check(self, chosen: Sequence[int]) -> None:
        """Refuse images without captions.

        Args:
            chosen: indices of the images that are to have one.

        Raises:
            Refusal: names the first of them.
        """
        missing = self.without(chosen)
        if missing:
            listed = wording.few(missing)
            first = f"{os.path.splitext(missing[0])[0]}{files.TEXT}"
            add = f"into {first}" if self.origin == BESIDE else f"into {self.origin}"
            raise errors.Refusal(
                f"{len(missing):,} of {len(chosen):,} images of {self.images.root} "
                f"have no caption, or an empty one ({listed}): write it {add}, move "
                f"these images away, {WITHOUT}"
            )


def find(images: files.Images, how: str, say: Callable[[str], None]) -> Found | None:
    """Return the captions of images, which may be incomplete; None if there are none.

    Args:
        images: the listing.
        how: "files" (a .txt file beside each image, a caption a line), the path of a
            table, "none", or "auto": the tables `files.TABLES` of any folder, else
            "files" if there is one such file, else "none".
        say: called once with what was found, in a line or two.

    Raises:
        Refusal: captions that cannot be read as such, or a value that means nothing.
    """
    if how == "none":
        return None
    stamp = None
    if how not in WORDS:
        if not pathlib.Path(how).is_file():
            raise errors.Refusal(
                f"data.captions={how!r} is neither {', '.join(WORDS)}, classes, a "
                "sentence with {class} in it, nor a .jsonl or .csv file that exists"
            )
        stamp = os.stat(how).st_mtime_ns
    found = _find(images, images.texts, how, stamp)
    if found:
        _say(found, say)
    return found


@functools.lru_cache(maxsize=4)  # both splits ask
def _say(found, say):
    for line in found.remarks:
        say(line)


# The config, both splits and --mode=data ask; the texts' times tell a changed one.
@functools.lru_cache(maxsize=2)
def _find(images, texts, how, stamp):
    if how not in WORDS:
        found = _outside(images, how)
        used, origin = [], how
    else:
        found, used = _in_tables(images, texts) if how == "auto" else (None, [])
        origin = " and ".join(text.name for text in used[:NAMED])
    beside = _beside(images, texts)
    if found is None:
        if not beside and how == "auto":
            return None
        found, used, origin = _read_beside(images, beside), [*beside.values()], ""
    captions = captions_lib.Captions(
        found.get(entry.name, ()) for entry in images.entries
    )
    origin, captioned = origin or BESIDE, int(np.count_nonzero(captions.counts))
    lines = [
        f"captions: {captions.counts.sum():,} for {captioned:,} of {len(images):,} "
        f"images, from {origin}"
    ]
    if origin != BESIDE and beside:
        lines.append(
            f"{len(set(beside.values())):,} {files.TEXT} files beside images are not "
            "read: data.captions=files reads them instead"
        )
    return Found(captions, origin, _without_ignored(images, used), tuple(lines))


def _without_ignored(images, used):
    """Return the listing with files that are read no longer counted as ignored."""
    left = collections.Counter(dict(images.ignored))
    left -= collections.Counter(os.path.splitext(t.name)[1].lower() for t in set(used))
    return dataclasses.replace(images, ignored=tuple(left.most_common()))


# ---- a text beside each image --------------------------------------------------------


def _beside(images, texts) -> dict:
    """Return {image: the text file of the same name}."""
    by_stem = {
        os.path.splitext(text.name)[0].removeprefix(images.inside): text
        for text in texts
        if text.name.lower().endswith(files.TEXT)
    }
    stems = ((entry.name, os.path.splitext(entry.name)[0]) for entry in images.entries)
    return {name: by_stem[stem] for name, stem in stems if stem in by_stem}


def _read_beside(images, beside: Mapping) -> dict:
    def read(item):
        name, text = item
        if text.size > captions_lib.MAX_BYTES:
            raise errors.Refusal(
                f"{text.name} of {images.root} has {text.size:,} bytes, and more than "
                f"{captions_lib.MAX_BYTES:,} are no caption: shorten it, or remove it"
            )
        return name, captions_lib.lines(_content(images, text), _where(images, text))

    return dict(reading.in_threads(read, list(beside.items())))


def _where(images, text):
    return f"{images.root}/{text.name}"


def _content(images, text):
    try:
        return images.read_text(text.name)
    except decoding.Unreadable as error:
        raise errors.Refusal(
            f"the captions in {_where(images, text)} cannot be read: the file {error}; "
            "restore it, or remove it"
        ) from error


# ---- tables --------------------------------------------------------------------------


def _in_tables(images, texts):
    """Return the captions by name, and the tables that hold them; None without any."""
    finder = tables.Finder(entry.name for entry in images.entries)
    found, used = None, []
    for text in texts:
        if posixpath.basename(text.name).lower() not in files.TABLES:
            continue
        where = _where(images, text)
        rows = captions_tables.read(_content(images, text), where)
        if rows is None:
            continue
        folder = posixpath.dirname(text.name)

        def place(file, folder=folder):
            path = posixpath.normpath(posixpath.join(folder, file))
            return path.removeprefix(images.inside)

        more = captions_tables.assign(
            rows, finder, path=where, root=images.root, place=place
        )
        twice = next((name for name in more if name in (found or {})), None)
        if twice:
            raise errors.Refusal(
                f"{where} has captions of {twice}, and so has {used[0].name} or "
                "another table: keep one of them"
            )
        found = {**(found or {}), **more}
        used.append(text)
    return found, used


def _outside(images, path):
    rows = captions_tables.read(pathlib.Path(path).read_bytes(), path)
    if rows is None:
        raise errors.Refusal(
            f"{path} has no column of captions: call it text, and that of the files "
            "file_name"
        )
    finder = tables.Finder(entry.name for entry in images.entries)
    return captions_tables.assign(
        rows, finder, path=path, root=images.root, base="the folder of the images"
    )
