"""Files that are either the old ones or the new ones, whatever kills the process.

Of several processes, which share the disk, process 0 alone writes.
"""

import contextlib
import hashlib
import json
import os
import secrets
import tempfile
from pathlib import Path

from ddpm_jax.core import errors
from ddpm_jax.runtime import distributed


def sha256(path: str | os.PathLike) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Replace the file `path` by `data`, missing parent directories included.

    The data goes to a hidden file beside it, to the disk, and then takes the name, so
    that a reader or a kill at any moment finds all of the old or all of the new. In
    processes other than 0 this does nothing.

    Raises:
        OSError: the directory cannot be written.
    """
    if not distributed.is_first():
        return
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with naming(path), open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


@contextlib.contextmanager
def naming(path: str | os.PathLike):
    """Put a file's name into errors of writing it: that of a full disk has none."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def check_writable(directory: str | os.PathLike) -> None:
    """Make a file in `directory` and drop it; only that tells.

    Modes say little to root or on network disks.

    Raises:
        OSError: it cannot be written.
    """
    with tempfile.TemporaryFile(dir=directory, prefix="."):
        pass


def sync_directory(directory: str | os.PathLike) -> None:
    """Make renames inside `directory` survive a loss of power."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: str | os.PathLike, value) -> None:
    """Replace the file `path` by `value` as sorted, indented JSON.

    Arrays and array scalars become lists and numbers.

    Raises:
        Refusal: `value` holds NaN or an infinity, which JSON cannot express.
        OSError: the directory cannot be written.
    """
    try:
        text = json.dumps(
            value, indent=2, sort_keys=True, allow_nan=False, default=to_plain
        )
    except ValueError as error:
        raise errors.Refusal(
            f"{path} cannot hold NaN or infinity: every number in it must be finite"
        ) from error
    write_bytes(path, (text + "\n").encode())


def to_plain(value):
    """Return an array as nested lists and an array scalar as a number, for JSON."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
