"""Random changes of images that are pure functions of (seed, place in the order)."""

import zlib

import numpy as np


def flips(seed: int, first_position: int, count: int) -> np.ndarray:
    """Decide for consecutive images of the order whether each is mirrored.

    Args:
        seed: 0 … 2⁶⁴ - 1.
        first_position: place of the first image in the endless order, step·B + row.
        count: number of images n.

    Returns:
        bool [n], each true with probability ½; element i depends on seed and
        first_position + i alone.
    """
    # Philox is counter-based and each of its blocks holds 4 numbers: the number of any
    # position is reached without drawing those before it.
    block, lane = divmod(first_position, 4)
    generator = np.random.Philox(
        key=np.array([seed, zlib.crc32(b"data/flip")], np.uint64),
        counter=block,
    )
    return (generator.random_raw(lane + count)[lane:] & 1).astype(bool)


def crop_draws(seed: int, first_position: int, count: int) -> np.ndarray:
    """Draw what `crops.random` needs for consecutive images of the order.

    Args:
        seed: 0 … 2⁶⁴ - 1.
        first_position: place of the first image in the endless order, step·B + row.
        count: number of images n.

    Returns:
        float64 [n, 3], uniform in [0, 1); row i depends on seed and first_position + i
        alone.
    """
    generator = np.random.Philox(
        key=np.array([seed, zlib.crc32(b"data/crop")], np.uint64),
        counter=first_position,
    )
    raw = generator.random_raw(4 * count).reshape(count, 4)  # a block for each image
    return (raw[:, :3] >> np.uint64(11)) * 2.0**-53


def caption_draws(seed: int, first_position: int, count: int) -> np.ndarray:
    """Draw what chooses a caption for each of consecutive images of the order.

    Args:
        seed: 0 … 2⁶⁴ - 1.
        first_position: place of the first image in the endless order, step·B + row.
        count: number of images n.

    Returns:
        float64 [n], uniform in [0, 1); element i depends on seed and
        first_position + i alone.
    """
    block, lane = divmod(first_position, 4)
    generator = np.random.Philox(
        key=np.array([seed, zlib.crc32(b"data/caption")], np.uint64),
        counter=block,
    )
    raw = generator.random_raw(lane + count)[lane:]
    return (raw >> np.uint64(11)) * 2.0**-53


def mirror(image: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Return images [n, H, W, C] with those chosen by bool [n] mirrored left-right."""
    return np.where(where[:, None, None, None], image[:, :, ::-1], image)
