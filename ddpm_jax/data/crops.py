"""Cutting images to size as the ADM code does, for any shape, depth and channels.

Images are uint8 or uint16 [H, W, C]. One of 8 bits with 1 or 3 channels goes through
the very operations of guided-diffusion (Pillow's resize with BOX, then BICUBIC), so the
result is equal to the bit; other numbers of channels are resized one by one, and 16
bits in float32, which holds them exactly.
"""

import math

import numpy as np

LARGEST_ZOOM = 1 / 0.8  # of a random crop (guided-diffusion's min_crop_frac 0.8)
WHITE = np.float32(65535)  # of 16 bits


def center(image: np.ndarray, size: tuple[int, int], *, alpha: bool = False):
    """Return the central part of the smallest version of an image that covers `size`.

    The sides are halved by averaging while both stay at least twice the target, then
    scaled bicubically until one of them is the target, then cropped at
    ((H - h) // 2, (W - w) // 2). An image of the size asked for is returned as it is.

    Args:
        image: uint8 or uint16 [H, W, C].
        size: target (h, w).
        alpha: the last channel is opacity: transparent pixels lend no colour.

    Returns:
        An array [h, w, C] of the same type.
    """
    height, width = size
    if image.shape[:2] == (height, width):
        return image
    weighted = _is_weighted(image, alpha)
    bands = _covering(_bands(image, alpha, weighted), height, width)
    top, left = (bands[0].height - height) // 2, (bands[0].width - width) // 2
    scaled = _joined(bands, image.dtype, weighted)
    return scaled[top : top + height, left : left + width]


def prepare_random(image: np.ndarray, size: tuple[int, int], *, alpha: bool = False):
    """Do the part of `random` that is the same for every draw; returns [H', W', C]."""
    largest = math.ceil(min(size) * LARGEST_ZOOM)
    weighted = _is_weighted(image, alpha)
    bands = _halved(_bands(image, alpha, weighted), *_zoomed(size, largest))
    return _joined(bands, image.dtype, weighted)


def random(
    image: np.ndarray, size: tuple[int, int], draws: np.ndarray, *, alpha: bool = False
):
    """Return a random part of an image, between 1 and 1.25 times `size` around it.

    The image is scaled as in `center` until its smaller side is a uniform integer
    between the target and 1.25 times it, then cropped at a uniform place. For targets
    that are not square, "smaller side" is relative to the target's sides.

    Args:
        image: uint8 or uint16 [H, W, C], or what `prepare_random` made of it.
        size: target (h, w).
        draws: three numbers in [0, 1): for the scale, the row and the column.
        alpha: the last channel is opacity: transparent pixels lend no colour.

    Returns:
        An array [h, w, C] of the same type.
    """
    height, width = size
    shorter = min(size)
    side = _integer(draws[0], shorter, math.ceil(shorter * LARGEST_ZOOM))
    weighted = _is_weighted(image, alpha)
    bands = _covering(_bands(image, alpha, weighted), *_zoomed(size, side))
    scaled = _joined(bands, image.dtype, weighted)
    top = _integer(draws[1], 0, scaled.shape[0] - height)
    left = _integer(draws[2], 0, scaled.shape[1] - width)
    return scaled[top : top + height, left : left + width]


def _integer(draw, lowest, highest):
    return lowest + int(draw * (highest - lowest + 1))


def _zoomed(size, side):
    """Return `size` scaled until its shorter side is `side`."""
    return tuple(length * side / min(size) for length in size)


def _covering(bands, height, width):
    bands = _halved(bands, height, width)
    scale = max(height / bands[0].height, width / bands[0].width)
    target = round(bands[0].width * scale), round(bands[0].height * scale)
    from PIL import Image

    return [band.resize(target, Image.Resampling.BICUBIC) for band in bands]


def _halved(bands, height, width):
    from PIL import Image

    while bands[0].height >= 2 * height and bands[0].width >= 2 * width:
        half = bands[0].width // 2, bands[0].height // 2
        bands = [band.resize(half, Image.Resampling.BOX) for band in bands]
    return bands


def _is_weighted(image, alpha):
    """Return whether 16-bit colours are to be weighted with their opacity.

    Pillow does so itself for 8 bits. Opaque images are left alone: weights that are
    rounded would change their values.
    """
    return alpha and image.dtype == np.uint16 and bool((image[..., -1] < WHITE).any())


def _bands(image, alpha, weighted):
    """Return Pillow images of all channels at once where it has such a mode."""
    from PIL import Image

    channels = image.shape[2]
    if image.dtype != np.uint8:
        image = image.astype(np.float32)
        if weighted:
            image[..., :-1] *= image[..., -1:] / WHITE
    elif channels == 3 or (alpha and channels in (2, 4)):
        return [Image.fromarray(np.ascontiguousarray(image))]
    return [
        Image.fromarray(np.ascontiguousarray(image[..., channel]))
        for channel in range(channels)
    ]


def _joined(bands, dtype, weighted):
    arrays = [np.asarray(band) for band in bands]
    image = arrays[0] if arrays[0].ndim == 3 else np.stack(arrays, axis=-1)
    if weighted:
        opacity = image[..., -1:]
        seen = opacity >= 0.5  # else it is rounded to nothing
        image[..., :-1] *= np.where(seen, WHITE / np.where(seen, opacity, 1), 0)
    if image.dtype != dtype:  # bicubic weights overshoot at edges
        image = np.clip(np.rint(image), 0, np.iinfo(dtype).max).astype(dtype)
    return image
