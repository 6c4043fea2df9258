"""Between the values of the networks and those on disk, and which states are images."""

from collections.abc import Iterable, Sequence

import numpy as np

from ddpm_jax.core import errors

IMAGE_RANK = 3  # (height, width, channels)
MOST_LEVELS = 2**16
DEEP = 257  # 65,535 / 255: steps of 16 bits in one of 8
MOST_COMMON_CHANNELS = 4  # colours and opacity


def is_image(shape: Sequence[int]) -> bool:
    """Return whether one example of this shape is an image (H, W, C).

    Points [2] and sequences [20, 1] are none: no picture is made of them.
    """
    return len(shape) == IMAGE_RANK


def looks_like_planes(height: int, width: int, channels: int) -> bool:
    """Return whether [H, W, C] of this shape is likelier [C, H, W] or a volume.

    There the last two axes are as alike as height and width are in an image.
    """
    if channels <= MOST_COMMON_CHANNELS:
        return False
    sides, rest = sorted((height, width)), sorted((width, channels))
    return sides[1] * rest[0] >= rest[1] * sides[0]  # ratios, without division


def stored_type(levels: int | None) -> np.dtype:
    """Return how examples are kept on disk: uint8, uint16 or float32.

    Args:
        levels: number of grey values of the data; None if they are continuous.

    Raises:
        Refusal: more levels than 16 bits hold.
    """
    if levels is None:
        return np.dtype(np.float32)
    if levels > MOST_LEVELS:
        raise errors.Refusal(
            f"{levels:,} grey levels: samples are kept with 8 or 16 bits a value; give "
            f"data of at most {MOST_LEVELS:,} levels, or of continuous values"
        )
    return np.dtype(np.uint8 if levels <= 2**8 else np.uint16)


def to_stored(images, levels: int | None, dtype=None) -> np.ndarray:
    """Return values of the network as they are kept on disk; `from_stored` goes back.

    Grey values x in [-1, 1] become round((x + 1)·M/2), clipped to 0 … M, where M is 255
    for at most 256 levels (17 levels are spread over 0 … 255 too), else 65,535.
    Continuous values stay what they are.

    Args:
        images: floats of any shape.
        levels: number of grey values of the data; None if they are continuous.
        dtype: of an archive that is continued; None for `stored_type(levels)`.

    Returns:
        uint8, uint16 or float32, of the same shape.

    Raises:
        Refusal: a value is NaN or infinite, or there are too many levels.
    """
    dtype = stored_type(levels) if dtype is None else np.dtype(dtype)
    images = np.asarray(images, np.float32)
    bad = np.count_nonzero(~np.isfinite(images))
    if bad:
        what, lost = "pixels are NaN or infinite", "picture"
        if levels is None:
            what, lost = "values are NaN or infinite", "sample"
        raise errors.Refusal(
            f"{bad} of {images.size} {what}, so there is no {lost} to write: the "
            "weights have diverged, use an earlier checkpoint"
        )
    if dtype.kind == "f":
        return images
    largest = np.iinfo(dtype).max
    return np.clip(np.round((images + 1.0) * (largest / 2)), 0, largest).astype(dtype)


def from_stored(stored: np.ndarray) -> np.ndarray:
    """Return what `to_stored` made as float32: grey values in [-1, 1], others as is."""
    if stored.dtype.kind == "f":
        return stored.astype(np.float32)
    half = np.float32(np.iinfo(stored.dtype).max / 2)
    return stored / half - np.float32(1.0)


def to_uint8(image) -> np.ndarray:
    """Return round((x + 1)·127.5), clipped to 0 … 255, whatever the data: for pictures.

    Args:
        image: float array of any shape, [-1, 1] being black to white.

    Returns:
        uint8 array of the same shape.

    Raises:
        Refusal: a value is NaN or infinite, so there is no image to write.
    """
    return to_stored(image, 2**8)


def saturated_share(parts: Iterable[np.ndarray]) -> float | None:
    """Return the share of stored values that are the darkest or the brightest there is.

    Guidance of a large scale drives values there; the data have a share of their own.

    Args:
        parts: from `to_stored`, any number of arrays.

    Returns:
        0 … 1; None for continuous values and for no value at all.
    """
    found = total = 0
    for part in parts:
        if part.dtype.kind == "f":
            return None
        ends = (part == 0) | (part == np.iinfo(part.dtype).max)
        found, total = found + np.count_nonzero(ends), total + part.size
    return found / total if total else None


def shown(stored: np.ndarray) -> np.ndarray:
    """Return stored images as the uint8 that a screen shows, of the same shape."""
    if stored.dtype == np.uint16:
        return ((stored.astype(np.uint32) + DEEP // 2) // DEEP).astype(np.uint8)
    return stored if stored.dtype == np.uint8 else to_uint8(stored)
