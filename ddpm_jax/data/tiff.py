"""What Pillow leaves out or gets wrong about TIFF files, from their tags.

Scanners, microscopes and detectors write TIFF files in many ways. Pillow reads 16-bit
files whose zero is white as negatives, and signed 8-bit numbers as unsigned ones.
"""

import numpy as np

STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
WIDTH, HEIGHT = 256, 257  # tags
BITS, PHOTOMETRIC, SAMPLES, SAMPLE_FORMAT = 258, 262, 277, 339
WHITE_IS_ZERO = 0
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
NUMBERS = {UNSIGNED: "unsigned", SIGNED: "signed", FLOAT: "floating-point"}


def stored_size(image) -> tuple[int, int]:
    """Return (width, height) of an open TIFF image before it is turned upright."""
    return image.tag_v2[WIDTH], image.tag_v2[HEIGHT]


def has_signed_bytes(image) -> bool:
    """Return whether an open TIFF image holds numbers from −128 to 127."""
    tags = image.tag_v2
    bits, numbers = tags.get(BITS, (1,)), tags.get(SAMPLE_FORMAT, (UNSIGNED,))
    return max(bits) <= 8 and SIGNED in numbers


def is_negative(image) -> bool:
    """Return whether Pillow reads an open TIFF image of 16 bits as its negative.

    With 8 bits and fewer Pillow inverts the values itself.
    """
    return image.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO


def kind(file) -> str:
    """Return what sort of numbers a TIFF file holds, in a few words, or ""."""
    from PIL import TiffImagePlugin

    file.seek(0)
    header = file.read(8)
    if header[:4] not in STARTS[:2]:  # BigTIFF has a longer header
        return ""
    tags = TiffImagePlugin.ImageFileDirectory_v2(header)
    file.seek(tags.next)
    tags.load(file)
    numbers = NUMBERS.get(tags.get(SAMPLE_FORMAT, (UNSIGNED,))[0], "other")
    words = [
        f"{tags.get(SAMPLES, 1)} x {tags.get(BITS, (1,))[0]} bits",
        numbers,
        "big-endian" if header.startswith(b"MM") else "little-endian",
    ]
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        words.append("zero is white")
    return ", ".join(words)


def inverted(pixels: np.ndarray) -> np.ndarray:
    """Return 16-bit grey values with black and white exchanged."""
    return np.uint16(65535) - pixels
