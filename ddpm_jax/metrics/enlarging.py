"""How good enlarged images are: PSNR, and whether they keep what was enlarged."""

from typing import NamedTuple

import numpy as np

from ddpm_jax.data import low_res

RANGE = 2.0  # of values in [−1, 1]


def bicubic(small: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return images enlarged by Keys' cubic with a = −1/2, as Pillow does it.

    Args:
        small: floats [n, h, w, C] in [−1, 1].
        size: (H, W).

    Returns:
        float32 [n, H, W, C], clipped to [−1, 1].
    """
    from PIL import Image

    height, width = size
    result = np.empty((len(small), height, width, small.shape[-1]), np.float32)
    for number, image in enumerate(np.asarray(small, np.float32)):
        for channel in range(image.shape[-1]):
            plane = Image.fromarray(np.ascontiguousarray(image[..., channel]))
            large = plane.resize((width, height), Image.Resampling.BICUBIC)
            result[number, ..., channel] = np.asarray(large)
    return np.clip(result, -1, 1)


def squared_error(images: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the mean squared error of each image, float64 [n].

    Args:
        images, truth: [n, ...] in [−1, 1].
    """
    difference = np.asarray(images, np.float64) - truth
    return np.square(difference).reshape(len(difference), -1).mean(axis=1)


def psnr(error) -> float:
    """Return the peak signal-to-noise ratio in dB of a mean squared error."""
    return float(10 * np.log10(RANGE**2 / np.mean(error)))


def inconsistency(
    images: np.ndarray, small: np.ndarray, factor: int, levels: int
) -> np.ndarray:
    """Return by how many grey levels the area mean of each result differs.

    Args:
        images: [n, H, W, C] in [−1, 1].
        small: [n, H/factor, W/factor, C], what was enlarged.
        factor: by which.
        levels: of the data; they lie evenly on [−1, 1].

    Returns:
        float64 [n, H/factor, W/factor, C].
    """
    mean = low_res.area_mean(np.asarray(images, np.float64), factor)
    return np.abs(mean - small) * (levels - 1) / RANGE


class Errors(NamedTuple):
    """Sums over images, from which the scores are taken.

    Attributes:
        draw: squared error of every draw, [n, draws].
        mean: squared error of the mean of an image's draws, [n].
        bicubic: squared error of the bicubic enlargement, [n].
        within: share of small pixels that a draw keeps within one grey level, [n].
        deviation: largest difference of a small pixel in grey levels, [n].
    """

    draw: np.ndarray
    mean: np.ndarray
    bicubic: np.ndarray
    within: np.ndarray
    deviation: np.ndarray


def errors_of(
    draws: np.ndarray, small: np.ndarray, truth: np.ndarray, levels: int
) -> Errors:
    """Return the errors of images that were enlarged several times.

    Args:
        draws: [n, draws, H, W, C] in [−1, 1].
        small: [n, h, w, C], what was enlarged.
        truth: [n, H, W, C].
        levels: of the data.
    """
    count, times = draws.shape[:2]
    flat = draws.reshape(-1, *draws.shape[2:])
    factor = truth.shape[1] // small.shape[1]
    differing = inconsistency(flat, small.repeat(times, axis=0), factor, levels)
    each = differing.reshape(count, -1)
    return Errors(
        draw=squared_error(flat, truth.repeat(times, axis=0)).reshape(count, times),
        mean=squared_error(draws.mean(axis=1, dtype=np.float64), truth),
        bicubic=squared_error(bicubic(small, truth.shape[1:3]), truth),
        within=np.mean(each <= 1, axis=1),
        deviation=each.max(axis=1),
    )
