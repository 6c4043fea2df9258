"""From the range of the networks back to bytes."""

import numpy as np

from ddpm_jax.core import errors


def to_uint8(image) -> np.ndarray:
    """Return round((x + 1)·127.5), clipped to 0 … 255.

    Args:
        image: float array of any shape, [-1, 1] being black to white.

    Returns:
        uint8 array of the same shape.

    Raises:
        Refusal: a value is NaN or infinite, so there is no image to write.
    """
    image = np.asarray(image, np.float32)
    bad = np.count_nonzero(~np.isfinite(image))
    if bad:
        raise errors.Refusal(
            f"{bad} of {image.size} pixels are NaN or infinite, so there is no picture "
            "to write: the weights have diverged, use an earlier checkpoint"
        )
    return np.clip(np.round((image + 1.0) * 127.5), 0, 255).astype(np.uint8)
