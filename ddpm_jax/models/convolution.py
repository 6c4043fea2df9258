"""Convolution whose weight gradient is fast on CPUs too.

XLA takes the weight gradient of a convolution for a convolution with a kernel as large
as the image, which its CPU backend computes at a fraction of the speed of a matrix
product. Here it becomes one matrix product. Accelerators keep XLA's own: the choice
falls when a program is lowered for a platform.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

# Where the product is faster, as measured with AVX-512 on jax 0.10 and 0.12. From 96
# channels on it takes between a fifth and two thirds of the time at 32×32 pixels, half
# of it or as long at 16×16, and little less at 8×8; with few channels it takes longer.
MIN_CHANNELS = 96
MIN_PIXELS = 16 * 16


def conv_general_dilated(x, kernel, strides, padding, **options):
    """Do what `jax.lax.conv_general_dilated` does, without groups and dilation.

    Args:
        x: [B, H, W, C].
        kernel: [h, w, C, D].
        strides: (vertical, horizontal).
        padding: ((top, bottom), (left, right)).
        options: the other arguments of `jax.lax.conv_general_dilated`.

    Returns:
        [B, H', W', D], differentiable in both modes and to any order.
    """

    def convolve(x, kernel):
        return lax.conv_general_dilated(x, kernel, strides, padding, **options)

    def as_product(x, kernel):
        return _as_product(x, kernel, padding)

    if not _product_wins(x, kernel, strides):
        return convolve(x, kernel)

    # Linear in the tangent; what reverse mode runs is its transpose. Rematerialised, it
    # keeps the image alone for that and not the image's shifted copies.
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def tangent_of_kernel(x, tangent):
        return lax.platform_dependent(x, tangent, cpu=as_product, default=convolve)

    differentiable = jax.custom_jvp(convolve)

    @differentiable.defjvp
    def _(primals, tangents):
        (x, kernel), (x_tangent, kernel_tangent) = primals, tangents
        tangent = convolve(x_tangent, kernel) + tangent_of_kernel(x, kernel_tangent)
        return convolve(x, kernel), tangent

    return differentiable(x, kernel)


def _product_wins(x, kernel, strides):
    """Return whether the product is faster, going by shapes alone."""
    *area, channels_in, channels_out = kernel.shape
    pixels = x.shape[1] * x.shape[2]
    return (
        x.dtype == jnp.float32
        and tuple(strides) == (1, 1)
        and min(channels_in, channels_out) >= MIN_CHANNELS
        and (pixels >= MIN_PIXELS or tuple(area) == (1, 1))
    )


def _as_product(x, kernel, padding):
    """Return the convolution as one matrix product between shifts.

    The image is shifted along the kernel's columns before the product, and the result
    along its rows behind it. The transpose with respect to the kernel is one product
    too, of the shifted image and the shifted cotangent, three copies of each.
    """
    height, width, channels, features = kernel.shape
    rows, columns = padding
    seen = [_shift(x, 2, j, width, columns) for j in range(width)]
    seen = jnp.concatenate(seen, axis=-1)  # [B, H, W', width·C]
    matrix = kernel.transpose(1, 2, 0, 3).reshape(width * channels, height * features)
    product = seen.reshape(-1, width * channels) @ matrix
    product = product.reshape(*seen.shape[:3], height * features)
    parts = jnp.split(product, height, axis=-1)
    return sum(_shift(part, 1, i, height, rows) for i, part in enumerate(parts))


def _shift(values, axis, index, length, padding):
    """Return what the entry `index` of a kernel of this length sees, along an axis."""
    edges = [(0, 0, 0)] * values.ndim
    edges[axis] = (padding[0] - index, padding[1] - (length - 1 - index), 0)
    return lax.pad(values, jnp.zeros((), values.dtype), edges)
