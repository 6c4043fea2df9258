"""From images of any size to what Inception reads, by the three rules in use.

FID moves by whole points with the rule, so that numbers of different rules are never
to be compared (Parmar et al. 2022). Every rule is separable and linear: a matrix for
the rows and one for the columns, made in float64 and applied on the device.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.core import errors
from ddpm_jax.metrics import conversion

SIZE = 299
GREY, RGB = 1, 3


def legacy_bilinear(length: int, size: int) -> np.ndarray:
    """Return TensorFlow 1's bilinear rule: pixel i reads at i·length/size.

    No half-pixel centres and no antialiasing, whether it enlarges or reduces.

    Args:
        length: pixels along the axis.
        size: pixels to make of them.

    Returns:
        float64 [size, length].
    """
    return _between_neighbours(np.arange(size) * (length / size), length)


def centred_bilinear(length: int, size: int) -> np.ndarray:
    """Return PyTorch's bilinear rule without aligned corners or antialiasing.

    Arguments and result are those of `legacy_bilinear`.
    """
    position = (np.arange(size) + 0.5) * (length / size) - 0.5
    return _between_neighbours(np.maximum(position, 0.0), length)


def antialiased_bicubic(length: int, size: int) -> np.ndarray:
    """Return Pillow's bicubic rule: where it reduces, the kernel is widened.

    Arguments and result are those of `legacy_bilinear`.
    """
    scale = length / size
    centre = (np.arange(size) + 0.5) * scale
    distance = np.arange(length) + 0.5 - centre[:, None]
    weights = _cubic(np.abs(distance) / max(scale, 1.0))
    return weights / weights.sum(axis=1, keepdims=True)


def _between_neighbours(position, length):
    """Weigh the two pixels around each position by their nearness."""
    lower = np.minimum(np.floor(position).astype(int), length - 1)
    upper = np.minimum(lower + 1, length - 1)
    rest = (position - lower)[:, None]
    pixels = np.eye(length)
    return pixels[lower] * (1 - rest) + pixels[upper] * rest


def _cubic(x, a=-0.5):
    """Keys' cubic kernel of |x|, zero from 2 on."""
    near = ((a + 2) * x - (a + 3)) * x**2 + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


class Rule(NamedTuple):
    """How images become Inception's input.

    Attributes:
        matrix: (length, size) → float64 [size, length].
        offset, scale: the input is value·scale + offset, values being 0 … 255.
        overshoots: the kernel has negative weights: values are clipped to 0 … 255.
    """

    matrix: Callable[[int, int], np.ndarray]
    scale: float
    offset: float
    overshoots: bool = False


RULES = {
    # Inside the TensorFlow graph: the original evaluators, DDPM, ADM, torch-fidelity.
    "tf-legacy": Rule(legacy_bilinear, 1 / 128, -1.0),
    "pytorch-fid": Rule(centred_bilinear, 1 / 127.5, -1.0),
    # Parmar et al. 2022; the numbers of clean-fid.
    "clean": Rule(antialiased_bicubic, 1 / 128, -1.0, overshoots=True),
}


@functools.lru_cache(maxsize=64)
def _matrix(mode, length):
    rule = errors.choose("resize rule", RULES, mode)
    return rule.matrix(length, SIZE).astype(np.float32)


def prepare(images: jax.Array, mode: str) -> jax.Array:
    """Return what Inception reads; may be traced.

    Args:
        images: uint8 [B, H, W, 1 or 3]; a single channel is repeated.
        mode: a key of `RULES`.

    Returns:
        float32 [B, 299, 299, 3].

    Raises:
        Refusal: an unknown mode, or images of another type or shape.
    """
    rule = errors.choose("resize rule", RULES, mode)
    check(images)
    rows, columns = (_matrix(mode, length) for length in images.shape[1:3])
    x = jnp.asarray(images).astype(jnp.float32)
    precision = jax.lax.Precision.HIGHEST
    x = jnp.einsum("wv,bhvc->bhwc", columns, x, precision=precision)
    x = jnp.einsum("hu,buwc->bhwc", rows, x, precision=precision)
    if rule.overshoots:
        x = jnp.clip(x, 0.0, 255.0)
    x = x * rule.scale + rule.offset
    return jnp.broadcast_to(x, (*x.shape[:3], RGB))


def check(images) -> None:
    """Refuse what is not a batch of 8-bit images with 1 or 3 channels.

    Raises:
        Refusal: says what the images are and how to make them 8-bit.
    """
    if images.dtype != np.uint8:
        is_here = isinstance(images, np.ndarray) and images.size
        found = conversion.range_of([images]) if is_here else None
        raise errors.Refusal(conversion.described(images.dtype, found))
    if images.ndim != 4 or images.shape[-1] not in (GREY, RGB) or 0 in images.shape:
        raise errors.Refusal(
            f"images of shape {list(images.shape)}: metrics read [N, H, W, C] with "
            "C = 1 or 3 and at least one image"
        )


def notes(channels: int) -> list[str]:
    """Return what a reader of the number should know of the preparation."""
    if channels == GREY:
        return ["grey images: their one channel was repeated for red, green and blue"]
    return []
