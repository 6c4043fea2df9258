"""From the bytes of one file to an array: what is in it, and its pixels.

PNG, JPEG, WebP, BMP, TIFF and GIF are read by Pillow, recognised by content, not by the
file's name; .npy files hold [H, W] or [H, W, C] arrays of uint8, uint16, or floats
from 0 (black) to 1 (white), which become 16 bits. An image is uint8 or uint16 [H, W, C]
with C = 1 grey, 2 grey and opacity, 3 colours, 4 colours and opacity, or any number
from .npy.
"""

import io

import numpy as np

from ddpm_jax.data import content, pictures

EXTENSIONS = (
    *(".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"),
    ".npy",
)
Unreadable = content.Unreadable
CONTENT_ERRORS = content.CONTENT_ERRORS
Description = content.Description
looks_like_html = content.looks_like_html


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


def _describe(file):
    with content.blaming():
        magic = file.read(len(np.lib.format.MAGIC_PREFIX))
        file.seek(0)
    if magic == np.lib.format.MAGIC_PREFIX:
        return _describe_npy(file)
    return pictures.describe(file)


def decode(data: bytes, channels: int = 0) -> np.ndarray:
    """Return the pixels of an image file.

    Args:
        data: the whole content of the file.
        channels: number of channels to convert to, see `convert`; 0 for the image's.

    Returns:
        uint8 or uint16 [H, W, C], upright as its EXIF orientation says.

    Raises:
        Unreadable: the content is damaged or no image, or has channels that cannot be
            converted.
    """
    if data.startswith(np.lib.format.MAGIC_PREFIX):
        image, alpha = _decode_npy(data), False
    else:
        image, alpha = pictures.decode(data)
    if not channels or channels == image.shape[2]:
        return image
    if not is_convertible(image.shape[2], channels, alpha=alpha):
        raise Unreadable(
            f"has {image.shape[2]} channels, which cannot become {channels}: save 1 "
            "(grey) or 3 (colours), or leave data.channels 0"
        )
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
            f"holds values of type {values.dtype}: save uint8, uint16 or floats 0 … 1, "
            f"such as {content.RESCALED}"
        )
    lowest, highest = (values.min(), values.max()) if values.size else (0, 0)
    if not 0 <= lowest <= highest <= 1:  # also NaN
        raise Unreadable(
            f"holds floats from {lowest:.4g} to {highest:.4g}: scale them to 0 (black) "
            f"… 1 (white), such as {content.RESCALED}"
        )
    return np.rint(values.astype(np.float64) * 65535).astype(np.uint16)


def _describe_npy(file):
    with content.blaming():
        shape, _, dtype = content.npy_header(file)
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
    with content.blaming():
        values = np.load(io.BytesIO(data), allow_pickle=False)
    return quantise(values.reshape(_image_shape(values.shape)))
