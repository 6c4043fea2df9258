"""Pictures of restorations: what was measured, draws, their mean and deviation."""

from collections.abc import Sequence

import numpy as np

from ddpm_jax.data import images as images_lib
from ddpm_jax.report import sheets

MOST_DRAWS = 4  # that are shown of one measurement


def measured_picture(measured: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Return a measurement as uint8 of the size of the images, each value a block.

    Args:
        measured: float [h, w, c], sides that divide those of the images; values beyond
            −1 … 1 are shown as black and white.
        shape: (H, W, C) of the images.
    """
    height, width, channels = shape
    grey = images_lib.to_uint8(np.clip(measured, -1, 1))
    large = grey.repeat(height // len(grey), axis=0)
    large = large.repeat(width // grey.shape[1], axis=1)
    return np.broadcast_to(large, shape) if large.shape[2] != channels else large


def deviation_pictures(deviation: np.ndarray, largest: float) -> np.ndarray:
    """Return deviations [n, H, W, C] as uint8: black is 0, white is `largest`."""
    return np.rint(255 * np.clip(deviation / largest, 0, 1)).astype(np.uint8)


def preview(
    measured: Sequence[np.ndarray],
    draws: np.ndarray,
    mean: np.ndarray,
    deviation: np.ndarray | None,
    truth: np.ndarray | None,
    *,
    largest: float,
) -> np.ndarray:
    """Return a sheet with a row for each measurement.

    Args:
        measured: float [h, w, c] of each of n.
        draws: as stored, [n, k, H, W, C].
        mean: float [n, H, W, C].
        deviation: likewise; None for a single draw.
        truth: as stored, [n, H, W, C]; None where it is not known.
        largest: deviation that is shown white.
    """
    shape, shown = draws.shape[2:], min(draws.shape[1], MOST_DRAWS)
    columns = [np.stack([measured_picture(one, shape) for one in measured])]
    columns += [images_lib.shown(draws[:, k]) for k in range(shown)]
    columns.append(images_lib.to_uint8(mean))
    captions = ["measured", *(f"draw {k}" for k in range(shown))]
    captions.append(f"mean of {draws.shape[1]}")
    if deviation is not None:
        columns.append(deviation_pictures(deviation, largest))
        captions.append(f"deviation,\nwhite {largest:.2g}")
    if truth is not None:
        columns.append(images_lib.shown(truth))
        captions.append("truth")
    return sheets.sheet(list(zip(*columns, strict=True)), captions)
