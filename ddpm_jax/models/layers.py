"""The parts of the OpenAI U-Net: embedding, norm, residual blocks, attention.

Images are [B, H, W, C]. Parameters are float32; `dtype` is what the trunk computes in.
Norms, the softmax and everything on the way of the timestep stay in float32.
Blocks share one signature, block(x, embedding, dropout_keys) → x, so that the network
can run any of them in turn, with or without rematerialisation.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

QKV_ORDERS = {
    # Position of the axis of length 3 among [heads, d] in the packed channels.
    "legacy": -2,  # [head][q|k|v][d]: Improved DDPM, and ADM except its 64×64 model
    "new": -3,  # [q|k|v][head][d]: ADM 64×64
}


def timestep_embedding(t: jax.Array, dim: int) -> jax.Array:
    """Return the sinusoidal embedding of timesteps, [B] → float32 [B, dim].

    The first half are cosines and the second sines, of t·10000^(−i/half) for i = 0 …
    half−1, half = dim // 2; an odd `dim` ends in a zero.

    Reference: Improved DDPM, published code (the DDPM code has sines first and divides
    by half−1).
    """
    half = dim // 2
    frequencies = np.exp(-math.log(10000.0) * np.arange(half) / half)
    angles = t.astype(jnp.float32)[:, None] * frequencies.astype(np.float32)
    embedding = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
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
        kept = jax.random.bernoulli(layer_key, 1.0 - rate, (example.size,))
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


def conv(
    in_channels: int, out_channels: int, *, size=3, stride=1, dtype, rngs
) -> nnx.Conv:
    """Return a convolution padded by size // 2 on every side.

    The padding is explicit because "SAME" with stride 2 pads an even image on the right
    and bottom only, which shifts the features of imported weights.
    """
    return nnx.Conv(
        in_channels,
        out_channels,
        (size, size),
        strides=stride,
        padding=((size // 2, size // 2),) * 2,
        dtype=dtype,
        rngs=rngs,
    )


def dense(in_channels: int, out_channels: int, *, dtype=jnp.float32, rngs):
    """Return a dense layer over the last axis."""
    return nnx.Linear(in_channels, out_channels, dtype=dtype, rngs=rngs)


class GroupNorm(nnx.GroupNorm):
    """Group norm in float32, ε = 1e-5, returned in the dtype of its input."""

    def __init__(self, channels: int, groups: int, *, rngs: nnx.Rngs):
        super().__init__(
            channels,
            num_groups=groups,
            epsilon=1e-5,
            # E[x²] − E[x]² cancels where the mean is large.
            use_fast_variance=False,
            rngs=rngs,
        )

    def __call__(self, x):
        return super().__call__(x.astype(jnp.float32)).astype(x.dtype)


class TimeEmbedding(nnx.Module):
    """Sinusoid → dense → SiLU → dense, in float32: t [B] → [B, embedding_channels]."""

    def __init__(self, channels: int, embedding_channels: int, *, rngs: nnx.Rngs):
        self.channels = channels
        self.dense_1 = dense(channels, embedding_channels, rngs=rngs)
        self.dense_2 = dense(embedding_channels, embedding_channels, rngs=rngs)

    def __call__(self, t):
        sinusoid = timestep_embedding(t, self.channels)
        return self.dense_2(nnx.silu(self.dense_1(sinusoid)))


class ResBlock(nnx.Module):
    """Pre-activation residual block that the timestep embedding modulates.

    Args:
        in_channels, out_channels: widths; where they differ, a 1×1 convolution carries
            the shortcut.
        embedding_channels: width of the timestep embedding.
        norm_groups: groups of both norms.
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
        norm_groups: int,
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
        self.norm_1 = GroupNorm(in_channels, norm_groups, rngs=rngs)
        self.conv_1 = conv(in_channels, out_channels, dtype=dtype, rngs=rngs)
        self.embed = dense(embedding_channels, modulation, rngs=rngs)
        self.norm_2 = GroupNorm(out_channels, norm_groups, rngs=rngs)
        self.conv_2 = conv(out_channels, out_channels, dtype=dtype, rngs=rngs)
        if in_channels == out_channels:
            self.shortcut = None
        else:
            self.shortcut = conv(
                in_channels, out_channels, size=1, dtype=dtype, rngs=rngs
            )

    def __call__(self, x, embedding, dropout_keys):
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
    """Halve the image by a 3×3 convolution of stride 2."""

    def __init__(self, channels: int, *, dtype, rngs: nnx.Rngs):
        self.conv = conv(channels, channels, stride=2, dtype=dtype, rngs=rngs)

    def __call__(self, x, embedding, dropout_keys):
        del embedding, dropout_keys
        return self.conv(x)


class Upsample(nnx.Module):
    """Double the image by repeating pixels, then convolve 3×3."""

    def __init__(self, channels: int, *, dtype, rngs: nnx.Rngs):
        self.conv = conv(channels, channels, dtype=dtype, rngs=rngs)

    def __call__(self, x, embedding, dropout_keys):
        del embedding, dropout_keys
        return self.conv(upsample(x))


class Attention(nnx.Module):
    """Multi-head self-attention over all pixels, with a residual connection.

    Args:
        channels: width C of the image, split over the heads.
        heads: number of heads; d = C / heads.
        norm_groups: groups of the norm in front.
        qkv_order: a key of `QKV_ORDERS`, the layout of the packed 3C channels.
        dtype: of the matrix products; the softmax is float32.
    """

    def __init__(
        self,
        channels: int,
        *,
        heads: int,
        norm_groups: int,
        qkv_order: str,
        dtype,
        rngs: nnx.Rngs,
    ):
        self.heads = heads
        self.qkv_order = qkv_order
        self.norm = GroupNorm(channels, norm_groups, rngs=rngs)
        self.qkv = dense(channels, 3 * channels, dtype=dtype, rngs=rngs)
        self.proj_out = dense(channels, channels, dtype=dtype, rngs=rngs)

    def __call__(self, x, embedding, dropout_keys):
        del embedding, dropout_keys
        B, H, W, C = x.shape
        d = C // self.heads
        qkv = self.qkv(self.norm(x).reshape(B, H * W, C))  # [B, HW, 3C]
        q, k, v = self._unpack(qkv, d)  # each [B, HW, heads, d]

        # Scaling q and k by d^(−1/4) each keeps their product within range at half
        # precision, where scaling the product by d^(−1/2) could come too late.
        scale = d**-0.25
        logits = jnp.einsum(
            "bqhd,bkhd->bhqk",
            q * scale,
            k * scale,
            preferred_element_type=jnp.float32,
        )
        weights = jax.nn.softmax(logits, axis=-1).astype(x.dtype)
        h = jnp.einsum("bhqk,bkhd->bqhd", weights, v)  # [B, HW, heads, d]
        return x + self.proj_out(h.reshape(B, H * W, C)).reshape(x.shape)

    def _unpack(self, qkv, d):
        axis = QKV_ORDERS[self.qkv_order]
        packed = (self.heads, 3, d) if axis == -2 else (3, self.heads, d)
        qkv = qkv.reshape(*qkv.shape[:2], *packed)
        return tuple(jnp.moveaxis(qkv, axis, 0))
