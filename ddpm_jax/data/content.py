"""What is read from image files, and the error for content that is no image."""

import contextlib
import dataclasses
import struct
import tokenize
import zipfile
import zlib

import numpy as np

# What Pillow and NumPy raise when the content is not what it claims to be.
CONTENT_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    OverflowError,
    struct.error,
    tokenize.TokenError,  # of .npy headers
    zlib.error,
    zipfile.BadZipFile,
)
# How numbers of any type and range become those that are read.
RESCALED = (
    "np.clip((a.astype(float) - low) / (high - low), 0, 1) with one low (black) and "
    "one high (white) for all files"
)


class Unreadable(ValueError):
    """The content of one file is no image; the message says why, without its name."""


def npy_header(file) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return (shape, whether it is in Fortran order, dtype); the data is read next.

    Raises:
        ValueError, KeyError: no .npy file, or of an unknown version.
    """
    major, _ = np.lib.format.read_magic(file)
    readers = {
        1: np.lib.format.read_array_header_1_0,
        2: np.lib.format.read_array_header_2_0,
    }
    return readers[major](file)


@contextlib.contextmanager
def blaming():
    """Turn what libraries raise for bad content into `Unreadable`.

    An error with a number is the disk's or the network's, not the content's: it passes.
    """
    from PIL import Image

    try:
        yield
    except (*CONTENT_ERRORS, Image.DecompressionBombError) as error:
        if getattr(error, "errno", None) is not None:
            raise
        raise Unreadable(f"is damaged ({error})") from error


@dataclasses.dataclass(frozen=True)
class Description:
    """What the header of a file says of its image.

    Attributes:
        format: "PNG", "JPEG", … or "NPY".
        mode: Pillow's mode ("RGB", "P", "CMYK", "I;16", …) or the type of a .npy array.
        height, width: in pixels, after the EXIF orientation is applied.
        channels: of the decoded image before any conversion.
        bits: 8 or 16, of the decoded image.
        stored_bits: of the file; 16-bit colour files are decoded to 8 bits.
        orientation: EXIF's, 1 … 8; 1 is upright.
        alpha: whether the last channel is opacity.
        profile: name of a colour profile that says other colours, see `profiles`.
    """

    format: str
    mode: str
    height: int
    width: int
    channels: int
    bits: int
    stored_bits: int
    orientation: int
    alpha: bool
    profile: str = ""


def looks_like_html(start: bytes) -> bool:
    """Return whether the first bytes of a file are those of a web page."""
    head = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return head.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml"))
