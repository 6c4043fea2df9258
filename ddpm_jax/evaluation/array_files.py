"""Arrays in .npz and .npy files, read row by row."""

import contextlib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ddpm_jax.core import errors
from ddpm_jax.data import content, npz

ALONE = ""  # name of the one array of an .npy file


def names(path: Path) -> list[str]:
    """Return the names of the arrays in a file.

    Raises:
        Refusal: neither an .npz nor an .npy file.
    """
    with open(path, "rb") as file:
        if file.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX:
            return [ALONE]
    if not zipfile.is_zipfile(path):
        raise errors.Refusal(
            f"{path} is no .npz or .npy file, or is cut short after "
            f"{path.stat().st_size:,} bytes: fetch it again, or give a folder of images"
        )
    with zipfile.ZipFile(path) as archive:
        members = archive.namelist()
    return [name.removesuffix(".npy") for name in members if name.endswith(".npy")]


def image_key(path: Path) -> str | None:
    """Return which array of a file holds images, or None; see `names`."""
    known = names(path)
    return next((key for key in (ALONE, *npz.IMAGE_KEYS) if key in known), None)


@contextlib.contextmanager
def opened(path: Path, name: str) -> Iterator[tuple]:
    """Open an array: a file at its first value, its shape and its type.

    Raises:
        Refusal: no plain array.
    """
    with contextlib.ExitStack() as stack:
        if name == ALONE:
            file = stack.enter_context(open(path, "rb"))
        else:
            archive = stack.enter_context(zipfile.ZipFile(path))
            file = stack.enter_context(archive.open(f"{name}.npy"))
        yield file, *_header(file, path)


def _header(file, path):
    try:
        shape, is_fortran, dtype = content.npy_header(file)
    except (ValueError, KeyError) as error:
        raise errors.Refusal(
            f"{path} holds no plain array ({error}): save it with numpy.savez"
        ) from error
    if is_fortran or dtype.hasobject:
        raise errors.Refusal(
            f"{path} holds an array of {dtype} that cannot be read row by row: save "
            "numpy.ascontiguousarray of uint8"
        )
    return shape, dtype


def rows(path: Path, name: str, count: int, at_once: int) -> Iterator[np.ndarray]:
    """Yield the first `count` rows of an array, `at_once` at a time.

    Raises:
        Refusal: the file ends before.
    """
    with opened(path, name) as (file, shape, dtype):
        size = int(np.prod(shape[1:])) * dtype.itemsize
        for start in range(0, count, at_once):
            number = min(at_once, count - start)
            data = file.read(number * size)
            if len(data) < number * size:
                raise errors.Refusal(f"{path} is cut short: fetch it again")
            yield np.frombuffer(data, dtype).reshape(number, *shape[1:])
