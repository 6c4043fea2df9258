"""Zip files: opened if they are sound, else refused by what they are instead."""

import os
import zipfile

import numpy as np

from ddpm_jax.core import errors
from ddpm_jax.data import decoding

WANTED = (*decoding.EXTENSIONS, ".csv", ".jsonl", ".txt")  # only these members are read
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
    for beginnings, what in OTHERS:
        if start.startswith(beginnings):
            return what
    again = "; download it again, and check that it opens"
    if not start:
        return f"is empty{again}"
    if decoding.looks_like_html(start):
        return f"is an HTML page, not a zip file: the site answered with a page{again}"
    if start.startswith(b"PK"):
        return f"is a damaged zip file ({error}){again}"
    return f"is no zip file{again}"


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
        and os.path.splitext(member.filename)[1].lower() in WANTED
    ]
    if packed:
        method = packed[0].compress_type
        named = "Deflate64" if method == DEFLATE64 else f"method {method}"
        raise errors.Refusal(
            f"{path} is packed by {named} ({packed[0].filename!r}), which Python does "
            "not read: unpack it and give the folder, or pack it again by Deflate"
        )
