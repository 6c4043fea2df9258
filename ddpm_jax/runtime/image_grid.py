"""Grids of samples, and writing them as PNG."""

import io
import os

import numpy as np

from ddpm_jax.runtime import files

GAP = 1  # pixels between the images of a grid
PAIR_GAP = 16  # white pixels between the grids of raw and of EMA weights
GAP_LEVEL = 128
MIN_TILE = 32
COLUMNS = 8
MAX_LABEL_COLUMNS = 16
RGB = 3
RGBA = 4


def columns_for(labels) -> int:
    """Return the columns of a grid: about 8, and whole rounds of labels if few."""
    if labels is not None and len(labels) <= MAX_LABEL_COLUMNS:
        return len(labels) * max(1, COLUMNS // len(labels))
    return COLUMNS


def grid(images: np.ndarray, columns: int) -> np.ndarray:
    """Lay images out row by row, with grey gaps of one pixel between them.

    Small images are enlarged by a whole factor until both sides have 32 pixels. One
    channel is shown as grey, three as RGB and four as RGBA; of two channels the first
    is shown, of five and more the first three as RGB.

    Args:
        images: uint8 [N, H, W, C], N ≥ 1.
        columns: images in a row, ≥ 1; empty places of the last row are grey.

    Returns:
        uint8 [height, width, 1, 3 or 4].
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape:
        raise ValueError(
            f"a grid needs uint8 images [N, H, W, C], not {images.dtype}"
            f"{list(images.shape)}"
        )
    if columns < 1:
        raise ValueError(f"a grid needs at least 1 column, not {columns}")
    images = shown_channels(images)
    scale = -(-MIN_TILE // min(images.shape[1:3]))
    tiles = images.repeat(scale, axis=1).repeat(scale, axis=2)
    count, height, width, channels = tiles.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    canvas = np.full(
        (rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, channels),
        GAP_LEVEL,
        np.uint8,
    )
    if channels == RGBA:
        canvas[..., 3] = 255
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        top, left = row * (height + GAP), column * (width + GAP)
        canvas[top : top + height, left : left + width] = tile
    return canvas


def write_png(path: str | os.PathLike, image: np.ndarray) -> None:
    """Write one image as PNG, atomically.

    Args:
        path: the file; missing parent directories are made.
        image: uint8 [H, W] or [H, W, C]; channels as in `grid`.

    Raises:
        OSError: the file cannot be written.
    """
    from PIL import Image

    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim not in (2, 3):
        raise ValueError(
            f"a PNG needs uint8 [H, W, C], not {image.dtype}{list(image.shape)}"
        )
    if image.ndim == 3:
        image = shown_channels(image)
        image = image[..., 0] if image.shape[-1] == 1 else image
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, format="PNG")
    files.write_bytes(path, buffer.getvalue())


def shown_channels(image: np.ndarray) -> np.ndarray:
    """Return the channels of an image [..., C] that are shown, see `grid`."""
    channels = image.shape[-1]
    if channels in (1, RGB, RGBA):
        return image
    return image[..., : RGB if channels > RGB else 1]
