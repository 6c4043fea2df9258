"""The parts of the U-Nets: embedding, norm, residual blocks.

Images are [B, H, W, C]. Parameters are float32; `dtype` is what the trunk computes in.
Norms, the softmax and everything on the way of the timestep stay in float32.
Blocks share one signature, block(x, embedding, dropout_keys, text) → x, so that the
network can run any of them in turn, with or without rematerialisation. `text` is
[B, L, width] in networks that read one, otherwise None; attention alone reads it.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ddpm_jax.core import keys as keys_lib
from ddpm_jax.models import convolution

SINUSOIDS = {
    "cos_sin": (jnp.cos, jnp.sin),  # OpenAI
    "sin_cos": (jnp.sin, jnp.cos),  # DDPM
}

PADDINGS = {
    # Of a 3×3 convolution with stride 2: (top, bottom), (left, right).
    "both": ((1, 1), (1, 1)),  # OpenAI
    "end": ((0, 1), (0, 1)),  # DDPM: what TensorFlow's "SAME" is on even sizes
}


def timestep_embedding(
    t: jax.Array, dim: int, *, order: str = "cos_sin", shift: int = 0
) -> jax.Array:
    """Return the sinusoidal embedding of timesteps, [B] → float32 [B, dim].

    Its halves are the cosines and the sines of t·10000^(−i/(half−shift)) for i = 0 …
    half−1, half = dim // 2; an odd `dim` ends in a zero.

    Args:
        t: [B] timesteps, integers or floats.
        dim: of the embedding.
        order: a key of `SINUSOIDS`, which half comes first.
        shift: 0 for the frequencies of Improved DDPM, 1 for those of DDPM.

    Reference: published codes of DDPM (Ho et al. 2020) and Improved DDPM.
    """
    half = dim // 2
    frequencies = np.exp(-math.log(10000.0) * np.arange(half) / (half - shift))
    angles = t.astype(jnp.float32)[:, None] * frequencies.astype(np.float32)
    embedding = jnp.concatenate([wave(angles) for wave in SINUSOIDS[order]], axis=-1)
    return jnp.pad(embedding, ((0, 0), (0, dim % 2)))


def dropout(
    x: jax.Array, rate: float, keys: jax.Array | None, *, index: int
) -> jax.Array:
    """Zero each entry with probability `rate` and divide the rest by 1 − rate.

    Args:
        x: [B, ...].
        rate: in [0, 1).
        keys: [B] typed keys, one per example, or None to return `x`.
        index: position of this layer in the network, folded into every key.
    """
    if keys is None or rate == 0.0:
        return x

    def drop(key, example):
        layer_key = jax.random.fold_in(key, index)
        # Drawn flat, because random bits over several axes take long to compile.
        kept = keys_lib.bernoulli(layer_key, 1.0 - rate, (example.size,))
        kept = kept.reshape(example.shape)
        return jnp.where(kept, example / (1.0 - rate), 0.0).astype(example.dtype)

    return jax.vmap(drop)(keys, x)


def upsample(x: jax.Array) -> jax.Array:
    """Repeat every pixel 2×2: [B, H, W, C] → [B, 2H, 2W, C]."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


def downsample(x: jax.Array) -> jax.Array:
    """Average every 2×2 pixels: [B, H, W, C] → [B, H/2, W/2, C]."""
    B, H, W, C = x.shape
    return jnp.mean(x.reshape(B, H // 2, 2, W // 2, 2, C), axis=(2, 4))


def stretch(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Return images enlarged bilinearly: [B, h, w, C] → float32 [B, *size, C].

    Pixels are points at the centres of their squares, and beyond the outermost centres
    the image is constant: what PyTorch's `interpolate` does without aligned corners.
    """
    shape = (x.shape[0], *size, x.shape[-1])
    return jax.image.resize(
        x.astype(jnp.float32), shape, method="bilinear", antialias=False
    )


def conv(
    in_channels: int, out_channels: int, *, size=3, stride=1, padding=None, dtype, rngs
) -> nnx.Conv:
    """Return a convolution padded by size // 2 on every side unless told otherwise.

    The padding is explicit because "SAME" with stride 2 pads an even image on the right
    and bottom only, which shifts the features of imported weights.
    """
    return nnx.Conv(
        in_channels,
        out_channels,
        (size, size),
        strides=stride,
        padding=padding or ((size // 2, size // 2),) * 2,
        dtype=dtype,
        conv_general_dilated=convolution.conv_general_dilated,
        rngs=rngs,
    )


def dense(in_channels: int, out_channels: int, *, dtype=jnp.float32, rngs):
    """Return a dense layer over the last axis."""
    return nnx.Linear(in_channels, out_channels, dtype=dtype, rngs=rngs)


class GroupNorm(nnx.GroupNorm):
    """Group norm in float32, returned in the dtype of its input."""

    def __init__(self, channels: int, groups: int, *, epsilon: float, rngs: nnx.Rngs):
        super().__init__(
            channels,
            num_groups=groups,
            epsilon=epsilon,
            # E[x²] − E[x]² cancels where the mean is large.
            use_fast_variance=False,
            rngs=rngs,
        )

    def __call__(self, x):
        return super().__call__(x.astype(jnp.float32)).astype(x.dtype)


class TimeEmbedding(nnx.Module):
    """Sinusoid → dense → SiLU → dense, in float32: t [B] → [B, embedding_channels].

    `order` and `shift` are those of `timestep_embedding`.
    """

    def __init__(
        self,
        channels: int,
        embedding_channels: int,
        *,
        order: str,
        shift: int,
        rngs: nnx.Rngs,
    ):
        self.channels = channels
        self.order = order
        self.shift = shift
        self.dense_1 = dense(channels, embedding_channels, rngs=rngs)
        self.dense_2 = dense(embedding_channels, embedding_channels, rngs=rngs)

    def __call__(self, t):
        sinusoid = timestep_embedding(
            t, self.channels, order=self.order, shift=self.shift
        )
        return self.dense_2(nnx.silu(self.dense_1(sinusoid)))


class ResBlock(nnx.Module):
    """Pre-activation residual block that the timestep embedding modulates.

    Args:
        in_channels, out_channels: widths; where they differ, a 1×1 convolution carries
            the shortcut.
        embedding_channels: width of the timestep embedding.
        norm: makes a norm of a width.
        scale_shift: modulate the second norm by (1 + scale, shift), the halves of the
            projected embedding in this order; otherwise add the projection to what
            enters that norm.
        dropout: rate, before the last convolution.
        dropout_index: position of this block among those that drop.
        resample: None, `upsample` or `downsample`, applied between the first activation
            and the first convolution and to the shortcut.
        dtype: of the convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        embedding_channels: int,
        norm: Callable[[int], nnx.Module],
        scale_shift: bool,
        dropout: float,
        dropout_index: int,
        resample=None,
        dtype,
        rngs: nnx.Rngs,
    ):
        self.scale_shift = scale_shift
        self.dropout = dropout
        self.dropout_index = dropout_index
        self.resample = resample
        modulation = 2 * out_channels if scale_shift else out_channels
        self.norm_1 = norm(in_channels)
        self.conv_1 = conv(in_channels, out_channels, dtype=dtype, rngs=rngs)
        self.embed = dense(embedding_channels, modulation, rngs=rngs)
        self.norm_2 = norm(out_channels)
        self.conv_2 = conv(out_channels, out_channels, dtype=dtype, rngs=rngs)
        if in_channels == out_channels:
            self.shortcut = None
        else:
            self.shortcut = conv(
                in_channels, out_channels, size=1, dtype=dtype, rngs=rngs
            )

    def __call__(self, x, embedding, dropout_keys, text=None):
        del text
        h = nnx.silu(self.norm_1(x))
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = self.conv_1(h)

        modulation = self.embed(nnx.silu(embedding)).astype(h.dtype)
        modulation = modulation[:, None, None, :]  # [B, 1, 1, C or 2C]
        if self.scale_shift:
            scale, shift = jnp.split(modulation, 2, axis=-1)
            h = self.norm_2(h) * (1.0 + scale) + shift
        else:
            h = self.norm_2(h + modulation)

        h = dropout(nnx.silu(h), self.dropout, dropout_keys, index=self.dropout_index)
        h = self.conv_2(h)
        return h + (x if self.shortcut is None else self.shortcut(x))


class Downsample(nnx.Module):
    """Halve the image by a 3×3 convolution of stride 2, padded as in `PADDINGS`."""

    def __init__(self, channels: int, *, padding: str, dtype, rngs: nnx.Rngs):
        self.conv = conv(
            channels,
            channels,
            stride=2,
            padding=PADDINGS[padding],
            dtype=dtype,
            rngs=rngs,
        )

    def __call__(self, x, embedding, dropout_keys, text=None):
        del embedding, dropout_keys, text
        return self.conv(x)


class Upsample(nnx.Module):
    """Double the image by repeating pixels, then convolve 3×3."""

    def __init__(self, channels: int, *, dtype, rngs: nnx.Rngs):
        self.conv = conv(channels, channels, dtype=dtype, rngs=rngs)

    def __call__(self, x, embedding, dropout_keys, text=None):
        del embedding, dropout_keys, text
        return self.conv(upsample(x))


class Resample(nnx.Module):
    """Change the image's size by `upsample` or `downsample`, without parameters."""

    def __init__(self, resample):
        self.resample = resample

    def __call__(self, x, embedding, dropout_keys, text=None):
        del embedding, dropout_keys, text
        return self.resample(x)
