"""From PNG, JPEG, WebP, BMP, TIFF and GIF files to arrays, with Pillow."""

import dataclasses
import io
import re

import numpy as np

from ddpm_jax.data import content, profiles, tiff

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
GREY_16_BITS = ("I;16", "I;16L", "I;16B", "I;16N", "I")
ALPHA_MODES = ("LA", "PA", "RGBA", "La", "RGBa")


def describe(file) -> content.Description:
    """Return what the header of a picture says; the pixels are not decoded."""
    image, orientation = _open(file)
    is_tiff = image.format == "TIFF"
    # Whether Pillow has turned the size of a TIFF image yet depends on its version.
    width, height = tiff.stored_size(image) if is_tiff else image.size
    if orientation >= 5:  # a quarter turn
        width, height = height, width
    layout = _layout(image)
    with content.blaming():
        stored_bits = 16 if layout.bits == 16 else _stored_bits(image)
    return content.Description(
        format=image.format,
        mode=image.mode,
        height=height,
        width=width,
        channels=layout.channels,
        bits=layout.bits,
        stored_bits=stored_bits,
        orientation=orientation,
        alpha=layout.alpha,
        profile=profiles.named(image.info.get("icc_profile")),
    )


@dataclasses.dataclass(frozen=True)
class _Layout:
    """What an open picture is decoded to; header and decoder both go by it."""

    mode: str  # of Pillow, to convert to
    channels: int
    bits: int
    alpha: bool


def _layout(image):
    """Return the layout of a picture whose pixels are not read yet."""
    alpha = image.mode in ALPHA_MODES or "transparency" in image.info
    if image.mode in GREY_16_BITS:
        return _Layout(image.mode, 1 + alpha, 16, alpha)
    is_grey = image.mode in ("1", "L", "LA", "La")
    mode = ("L" if is_grey else "RGB") + ("A" if alpha else "")
    return _Layout(mode, len(mode), 8, alpha)


def _open(file):
    """Return a Pillow image whose pixels are not read yet, and its orientation."""
    from PIL import Image

    try:
        with content.blaming():
            image = Image.open(file, formats=FORMATS)
            # Phones store a second picture beside the first as MPO.
            several = image.format != "MPO" and getattr(image, "is_animated", False)
            # Pillow decodes a whole PNG to look for EXIF behind its pixels.
            has_exif = image.format != "PNG" or "exif" in image.info
            orientation = image.getexif().get(0x0112, 1) if has_exif else 1
            is_tiff = image.format == "TIFF"
            has_signed_bytes = is_tiff and tiff.has_signed_bytes(image)
    except content.Unreadable as error:
        if isinstance(error.__cause__, Image.UnidentifiedImageError):
            raise content.Unreadable(_what_else(file)) from error
        if isinstance(error.__cause__, Image.DecompressionBombError):
            raise content.Unreadable(_too_large(error.__cause__)) from error
        raise
    if several:
        raise content.Unreadable("holds several frames or pages, not one image")
    if image.mode == "F":
        raise content.Unreadable(
            f"holds floats: save .npy arrays of values 0 … 1, {content.RESCALED}"
        )
    if has_signed_bytes:
        raise content.Unreadable(
            "holds signed numbers of 8 bits: save them as unsigned ones, "
            "(a.astype(np.int16) + 128).astype(np.uint8)"
        )
    return image, orientation if orientation in range(1, 9) else 1


def _too_large(error):
    """Return why a picture is not read that Pillow refuses for its size.

    Pillow tells the size in its message alone.
    """
    from PIL import Image

    pixels = re.search(r"\d+", str(error))
    size = f"has {int(pixels[0]) / 1e6:,.0f} million pixels" if pixels else "is large"
    return (
        f"{size}, and Pillow reads {2 * Image.MAX_IMAGE_PIXELS / 1e6:,.0f} million at "
        "most: scale it down or cut it into pieces"
    )


def _what_else(file):
    file.seek(0)
    start = file.read(512)
    if not start:
        return "is empty"
    if content.looks_like_html(start):
        return "is an HTML page, not an image"
    is_text = b"\0" not in start and all(c >= 32 or c in b"\t\n\r\f" for c in start)
    if is_text:
        return "is text, not an image"
    return _unread_tiff(file, start) or "is no image that Pillow can read"


def _unread_tiff(file, start):
    """Return why a TIFF file is not read; "" for other files."""
    if not start.startswith(tiff.STARTS):
        return ""
    try:
        with content.blaming():
            kind = tiff.kind(file)
    except content.Unreadable:
        return "is a damaged TIFF"
    return (
        f"is a TIFF of a kind that Pillow does not read ({kind or 'BigTIFF'}): save it "
        "as PNG or as a .npy array of uint8, uint16 or floats 0 … 1"
    )


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


def decode(data: bytes) -> tuple[np.ndarray, bool]:
    """Return the pixels [H, W, C] of a picture, and whether it has opacity."""
    image, orientation = _open(io.BytesIO(data))
    layout = _layout(image)
    turn = 1 if image.format == "TIFF" else orientation  # Pillow's load turns those
    with content.blaming():
        image.load()
    if image.format == "PNG" and layout.mode == "LA":
        _spread_transparency(image, data[24])
    if layout.bits == 16:
        pixels = _deep_pixels(image, layout)
    else:
        pixels = np.asarray(_converted(image, layout.mode))
        pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    return _turned(pixels, turn), layout.alpha


def _spread_transparency(image, depth):
    """Give a PNG's transparent grey value the range of the pixels.

    Pillow spreads pixels of 2 and 4 bits over 0 … 255, but not that value.
    """
    value = image.info.get("transparency")
    if depth in (2, 4) and isinstance(value, int) and value < 2**depth:
        image.info["transparency"] = value * 255 // (2**depth - 1)


def _converted(image, mode):
    if image.mode == mode:
        return image
    try:
        return image.convert(mode)
    except content.CONTENT_ERRORS as error:
        raise content.Unreadable(
            f"is of mode {image.mode}, which Pillow cannot convert to {mode} "
            f"({error}): save it as PNG, grey or RGB"
        ) from error


def _deep_pixels(image, layout):
    """Return a loaded grey picture of 16 bits as uint16 [H, W, 1 or 2]."""
    pixels = np.asarray(image)
    if pixels.min() < 0 or pixels.max() > 65535:
        raise content.Unreadable(
            f"holds values from {pixels.min()} to {pixels.max()}, which do not fit "
            f"16 bits: save .npy arrays of {content.RESCALED}"
        )
    pixels = pixels.astype(np.uint16)
    if image.format == "TIFF" and tiff.is_negative(image):
        pixels = tiff.inverted(pixels)
    if not layout.alpha:
        return pixels[..., None]
    # Pillow tells the one grey value that is transparent, and knows no such mode.
    opaque = pixels != image.info["transparency"]
    return np.stack([pixels, np.uint16(65535) * opaque], axis=-1)


def _turned(pixels, orientation):
    """Return pixels [H, W, C] as EXIF says that they are upright."""
    if orientation >= 5:  # stored by columns
        pixels = pixels.swapaxes(0, 1)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(pixels[::rows, ::columns])
