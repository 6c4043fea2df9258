"""What tells one file's content from another's: cheap marks, kept from run to run.

A mark is made of blocks of the file, or of the checksum that a zip file keeps. A file
whose size, number on the disk and times are those of its last mark is not read again.
"""

import dataclasses
import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Mapping

from ddpm_jax.core import errors, wording
from ddpm_jax.data import disks

WHOLE = 2**16  # bytes; smaller files are read whole
BLOCK = 2**12  # bytes of a block of larger ones
BLOCKS = 16  # of a file: the first, the last, and some between
UNREADABLE = "unreadable"


@dataclasses.dataclass(frozen=True)
class Mark:
    """One file.

    Attributes:
        size: in bytes.
        label: number of its class.
        digest: of its content, as far as that is read.
        stamp: changes when the file on this disk is written; "" where none is needed.
        captions: digest of its captions; "" where these are not read.
    """

    size: int
    label: int
    digest: str
    stamp: str = dataclasses.field(default="", compare=False)
    captions: str = ""


def of_file(path: str, known: Mark | None) -> tuple[str, str]:
    """Return the digest and the stamp of a file, read unless `known` is of the same.

    Raises:
        Unreadable: the file is gone, or not for this user.
        OSError: the disk fails.
    """
    status = disks.read(lambda: os.stat(path), path)
    # The time of the change of the entry too: unlike the other one no program sets it.
    stamp = f"{status.st_ino}.{status.st_mtime_ns}.{status.st_ctime_ns}"
    if known and (known.size, known.stamp) == (status.st_size, stamp):
        return known.digest, stamp
    return disks.read(lambda: _digest(path, status.st_size), path), stamp


def _digest(path, size):
    found = hashlib.blake2b(digest_size=12)
    with open(path, "rb") as file:
        if size <= WHOLE:
            found.update(file.read())
            return found.hexdigest()
        for number in range(BLOCKS):
            file.seek((size - BLOCK) * number // (BLOCKS - 1))
            found.update(file.read(BLOCK))
    return found.hexdigest()


def digest(marks: Mapping[str, Mark]) -> str:
    """Return what changes with the content of any file, wherever the files lie."""
    found = hashlib.sha256()
    for name, mark in sorted(marks.items()):
        facts = [name, mark.size, mark.label, mark.digest, mark.captions]
        found.update(json.dumps(facts).encode())
    return found.hexdigest()


def differences(before: Mapping[str, Mark], now: Mapping[str, Mark]) -> list[str]:
    """Return what changed, in words: the files, and how; [] if nothing did."""
    both = [name for name in now if name in before]
    sizes = [name for name in both if before[name].size != now[name].size]
    contents = [name for name in both if before[name].digest != now[name].digest]
    labels = [name for name in both if before[name].label != now[name].label]
    captions = [name for name in both if before[name].captions != now[name].captions]
    kinds = {
        "gone": [name for name in before if name not in now],
        "new": [name for name in now if name not in before],
        "of another size": sizes,
        "of the same size and another content": sorted({*contents} - {*sizes}),
        "of another class": labels,
        "of another caption": captions,
    }
    return [
        f"{wording.files(names)} {'are' if len(names) > 1 else 'is'} {how}"
        for how, names in kinds.items()
        if names
    ]


def to_bytes(marks: Mapping[str, Mark]) -> bytes:
    """Return the content of the file that keeps marks."""
    lines = [
        json.dumps([name, *dataclasses.astuple(mark)]) for name, mark in marks.items()
    ]
    return gzip.compress("\n".join(lines).encode(), mtime=0)


def from_bytes(data: bytes) -> dict[str, Mark]:
    """Return what `to_bytes` kept.

    Raises:
        Refusal: it is damaged.
    """
    try:
        if not data:
            raise EOFError("it is empty")
        lines = gzip.decompress(data).decode().split("\n")
        rows = [json.loads(line) for line in lines if line]
        return {name: Mark(*fields) for name, *fields in rows}
    except (OSError, EOFError, ValueError, TypeError, zlib.error) as error:
        raise errors.Refusal(
            f"the list of the data's files is damaged ({error})"
        ) from error
