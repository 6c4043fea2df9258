"""From the bytes of one file to an array: what is in it, and its pixels.

PNG, JPEG, WebP, BMP, TIFF and GIF are read by Pillow, recognised by content, not by the
file's name; .npy files hold [H, W] or [H, W, C] arrays of uint8, uint16, or floats
from 0 (black) to 1 (white), which become 16 bits. An image is uint8 or uint16 [H, W, C]
with C = 1 grey, 2 grey and opacity, 3 colours, 4 colours and opacity, or any number
from .npy.
"""

import contextlib
import dataclasses
import io
import struct
import tokenize
import zipfile
import zlib

import numpy as np

EXTENSIONS = (
    *(".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"),
    ".npy",
)
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
GREY_16_BITS = ("I;16", "I;16L", "I;16B", "I;16N", "I")
ALPHA_MODES = ("LA", "PA", "RGBA", "La", "RGBa")
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


class Unreadable(ValueError):
    """The content of one file is no image; the message says why, without its name."""


@contextlib.contextmanager
def _blaming_content():
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


def describe(source) -> Description:
    """Return what the header of an image says; the pixels are not decoded.

    Args:
        source: the file's bytes, its path, or a binary file open at its beginning.

    Raises:
        Unreadable: the content is no image that can be decoded.
        OSError: the file itself cannot be read.
    """
    if isinstance(source, bytes):
        return _describe(io.BytesIO(source))
    if hasattr(source, "read"):
        return _describe(source)
    with open(source, "rb") as file:
        return _describe(file)


def decode(data: bytes, channels: int = 0) -> np.ndarray:
    """Return the pixels of an image file.

    Args:
        data: the whole content of the file.
        channels: number of channels to convert to, see `convert`; 0 for the image's.

    Returns:
        uint8 or uint16 [H, W, C], upright as its EXIF orientation says.

    Raises:
        Unreadable: the content is damaged or no image.
    """
    if data.startswith(np.lib.format.MAGIC_PREFIX):
        image, alpha = _decode_npy(data), False
    else:
        image, alpha = _decode_picture(data)
    if not channels or channels == image.shape[2]:
        return image
    return convert(image, channels, alpha=alpha)


def convert(image: np.ndarray, channels: int, *, alpha: bool) -> np.ndarray:
    """Return an image with another number of channels.

    Opacity is composited on white; colours become ITU-R 601 luminance, as in Pillow;
    grey is repeated; a missing opacity is full.

    Args:
        image: uint8 or uint16 [H, W, C].
        channels: 1, 3 or 4, or C; see `is_convertible`.
        alpha: whether the last channel is opacity.

    Raises:
        ValueError: there is no such conversion.
    """
    if channels == image.shape[2]:
        return image
    if not is_convertible(image.shape[2], channels, alpha=alpha):
        raise ValueError(f"{image.shape[2]} channels cannot become {channels}")
    white = np.iinfo(image.dtype).max
    opacity = np.full_like(image[..., :1], white)
    colours = image
    if alpha:
        colours, opacity = image[..., :-1], image[..., -1:]
    if alpha and channels != 4:
        share = opacity.astype(np.uint64)
        mixed = colours * share + white * (white - share) + white // 2
        colours = (mixed // white).astype(image.dtype)
    if channels == 1 and colours.shape[2] == 3:
        weights = np.array([19595, 38470, 7471], np.uint64)  # sum 2¹⁶
        luminance = (colours @ weights + np.uint64(2**15)) >> np.uint64(16)
        return luminance[..., None].astype(image.dtype)
    if channels in (3, 4) and colours.shape[2] == 1:
        colours = np.repeat(colours, 3, axis=2)
    return np.concatenate([colours, opacity], axis=2) if channels == 4 else colours


def is_convertible(own: int, channels: int, *, alpha: bool) -> bool:
    """Return whether an image of `own` channels can become one of `channels`."""
    kinds = (2, 4) if alpha else (1, 3)
    return own == channels or (own in kinds and channels in (1, 3, 4))


# ---- .npy ----------------------------------------------------------------------------


def quantise(values: np.ndarray) -> np.ndarray:
    """Return an array of grey values as uint8 or uint16.

    Args:
        values: uint8, uint16, or floats in [0, 1], which become round(65535·value).

    Raises:
        Unreadable: another type, or floats outside [0, 1].
    """
    if values.dtype.kind == "u" and values.dtype.itemsize <= 2:
        return np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    if values.dtype.kind != "f":
        raise Unreadable(
            f"holds values of type {values.dtype}: save uint8, uint16 or floats 0 … 1"
        )
    lowest, highest = (values.min(), values.max()) if values.size else (0, 0)
    if not 0 <= lowest <= highest <= 1:  # also NaN
        raise Unreadable(
            f"holds floats from {lowest:.4g} to {highest:.4g}: scale them to 0 (black) "
            "… 1 (white)"
        )
    return np.rint(values.astype(np.float64) * 65535).astype(np.uint16)


def _describe_npy(file):
    with _blaming_content():
        major, _ = np.lib.format.read_magic(file)
        read_header = {
            1: np.lib.format.read_array_header_1_0,
            2: np.lib.format.read_array_header_2_0,
        }[major]
        shape, _, dtype = read_header(file)
    quantise(np.empty(0, dtype))
    height, width, channels = _image_shape(shape)
    bits = 8 if dtype == np.uint8 else 16
    return Description(
        format="NPY",
        mode=str(dtype),
        height=height,
        width=width,
        channels=channels,
        bits=bits,
        stored_bits=bits,
        orientation=1,
        alpha=False,
    )


def _image_shape(shape):
    """Return (H, W, C) of a .npy array."""
    if len(shape) not in (2, 3) or 0 in shape:
        raise Unreadable(f"has the shape {shape}: save [H, W] or [H, W, C]")
    height, width, channels = (*shape, 1)[:3]
    if height <= 4 < channels and height < width:
        raise Unreadable(f"looks like [C, H, W] ({shape}): save [H, W, C]")
    return height, width, channels


def _decode_npy(data):
    with _blaming_content():
        values = np.load(io.BytesIO(data), allow_pickle=False)
    return quantise(values.reshape(_image_shape(values.shape)))


# ---- pictures ------------------------------------------------------------------------


def _describe(file):
    with _blaming_content():
        magic = file.read(len(np.lib.format.MAGIC_PREFIX))
        file.seek(0)
    if magic == np.lib.format.MAGIC_PREFIX:
        return _describe_npy(file)
    image, orientation = _open(file)
    width, height = image.size
    if orientation >= 5:  # a quarter turn
        width, height = height, width
    is_16_bits = image.mode in GREY_16_BITS
    with _blaming_content():
        stored_bits = 16 if is_16_bits else _stored_bits(image)
    return Description(
        format=image.format,
        mode=image.mode,
        height=height,
        width=width,
        channels=len(_plain_mode(image)),
        bits=16 if is_16_bits else 8,
        stored_bits=stored_bits,
        orientation=orientation,
        alpha=_has_alpha(image),
    )


def _open(file):
    """Return a Pillow image whose pixels are not read yet, and its orientation."""
    from PIL import Image

    try:
        with _blaming_content():
            image = Image.open(file, formats=FORMATS)
            # Phones store a second picture beside the first as MPO.
            several = image.format != "MPO" and getattr(image, "is_animated", False)
            # Pillow decodes a whole PNG to look for EXIF behind its pixels.
            has_exif = image.format != "PNG" or "exif" in image.info
            orientation = image.getexif().get(0x0112, 1) if has_exif else 1
    except Unreadable as error:
        if isinstance(error.__cause__, Image.UnidentifiedImageError):
            raise Unreadable(_what_else(file)) from error
        raise
    if several:
        raise Unreadable("holds several frames or pages, not one image")
    if image.mode == "F":
        raise Unreadable("holds floats: save them as .npy, 0 (black) … 1 (white)")
    return image, orientation if orientation in range(1, 9) else 1


def _what_else(file):
    file.seek(0)
    start = file.read(512)
    if not start:
        return "is empty"
    if looks_like_html(start):
        return "is an HTML page, not an image"
    is_text = b"\0" not in start and all(c >= 32 or c in b"\t\n\r\f" for c in start)
    return "is text, not an image" if is_text else "is no image that Pillow can read"


def looks_like_html(start: bytes) -> bool:
    """Return whether the first bytes of a file are those of a web page."""
    head = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return head.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml"))


def _has_alpha(image):
    return image.mode in ALPHA_MODES or "transparency" in image.info


def _plain_mode(image):
    """Return the letters of the channels that an image is decoded to."""
    is_grey = image.mode in ("1", "L", "LA", "La", *GREY_16_BITS)
    return ("L" if is_grey else "RGB") + ("A" if _has_alpha(image) else "")


def _stored_bits(image):
    if image.format == "PNG":  # IHDR follows 8 bytes of signature and 8 of its own
        position = image.fp.tell()
        image.fp.seek(24)
        depth = image.fp.read(1)[0]
        image.fp.seek(position)
        return max(depth, 8)
    if image.format == "TIFF":
        return max(8, *image.tag_v2.get(258, (8,)))
    return 8


def _decode_picture(data):
    image, orientation = _open(io.BytesIO(data))
    with _blaming_content():
        image.load()
        if image.mode not in GREY_16_BITS:
            mode = _plain_mode(image)
            image = image if image.mode == mode else image.convert(mode)
        if orientation != 1:
            image = image.transpose(_upright(orientation))
    pixels = np.asarray(image)
    if image.mode in GREY_16_BITS:
        if pixels.min() < 0 or pixels.max() > 65535:
            raise Unreadable(
                f"holds values from {pixels.min()} to {pixels.max()}, which do not fit "
                "16 bits"
            )
        pixels = pixels.astype(np.uint16)
    return (pixels if pixels.ndim == 3 else pixels[..., None]), len(image.mode) in (
        2,
        4,
    )


def _upright(orientation):
    """Return Pillow's name of what undoes an EXIF orientation of 2 … 8."""
    from PIL import Image

    move = Image.Transpose
    return {
        2: move.FLIP_LEFT_RIGHT,
        3: move.ROTATE_180,
        4: move.FLIP_TOP_BOTTOM,
        5: move.TRANSPOSE,
        6: move.ROTATE_270,
        7: move.TRANSVERSE,
        8: move.ROTATE_90,
    }[orientation]
