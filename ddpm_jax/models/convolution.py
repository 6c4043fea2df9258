"""Convolution whose weight gradient is fast on CPUs too.

XLA takes the weight gradient of a convolution for a convolution with a kernel as large
as the image, which its CPU backend computes at a third of the speed of a matrix product
or less. Here it becomes one matrix product for each row of the kernel. Accelerators
keep XLA's own: the choice falls when a program is lowered for a platform.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

MIN_CHANNELS = 32
"""With fewer channels on either side a matrix product is no gain."""


def conv_general_dilated(x, kernel, strides, padding, **options):
    """Do what `jax.lax.conv_general_dilated` does, for the layers of Flax.

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

    import os
    narrow = min(kernel.shape[-2:]) < MIN_CHANNELS or (kernel.shape[0]>1 and x.shape[1]<int(os.environ.get("MS","0")))
    if narrow or tuple(strides) != (1, 1) or x.dtype != jnp.float32:
        return convolve(x, kernel)

    def as_product(x, kernel):
        return _as_product(x, kernel, padding)

    # The tangent is linear in that of the kernel, and what reverse mode runs is its
    # transpose. Rematerialised, it keeps the image alone and not its products.
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def tangent_of_kernel(x, tangent):
        return lax.platform_dependent(x, tangent, cpu=as_product, default=convolve)

    differentiable = jax.custom_jvp(convolve)

    @differentiable.defjvp
    def jvp(primals, tangents):
        x, kernel = primals
        x_tangent, kernel_tangent = tangents
        tangent = convolve(x_tangent, kernel) + tangent_of_kernel(x, kernel_tangent)
        return convolve(x, kernel), tangent

    return differentiable(x, kernel)


def _as_product(x, kernel, padding):
    """Return the convolution as one matrix product between shifted copies.

    The image is shifted along the columns of the kernel before the product, the result
    along its rows behind it. The transpose with respect to the kernel is one product of
    the shifted image and the shifted cotangent, which holds every entry once.
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
