"""Attention over the pixels of an image, and over the positions of a text beside them.

The softmax is float32, and so are the logits; `dtype` is what the products take. On
some GPUs a kernel of cuDNN computes all of it, see `attention_routes`.
"""

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx

from ddpm_jax.models import attention_routes, layers

QKV_ORDERS = {
    # Position of the axis of length 3 among [heads, d] in the packed channels.
    "legacy": -2,  # [head][q|k|v][d]: Improved DDPM, and ADM except its 64×64 model
    "new": -3,  # [q|k|v][head][d]: ADM 64×64; DDPM, whose q, k, v are separate layers
}

ATTENTION_SCALES = ("split", "product")
"""Where 1/√d enters: d^(−1/4) on q and on k (OpenAI), or d^(−1/2) on q·k (DDPM)."""


WAVES = (0.5, 1.0)
"""Half periods of a position's sines and cosines from the middle to an edge."""


class Attention(nnx.Module):
    """Multi-head self-attention over all pixels, with a residual connection.

    Args:
        channels: width C of the image, split over the heads.
        heads: number of heads; d = C / heads.
        norm: in front, or None.
        qkv_order: a key of `QKV_ORDERS`, the layout of the packed 3C channels.
        scale: one of `ATTENTION_SCALES`.
        text_width: channels of a text whose positions are attended to as well, or
            None. Their keys and values stand in front of those of the pixels (GLIDE).
        positions: whether keys, queries and values are also told where their pixel is:
            a learned sum of `waves`. The papers' networks have nothing of the kind and
            find places by the zeros around an image, which takes much training.
        dtype: of the matrix products; the softmax is float32.
    """

    def __init__(
        self,
        channels: int,
        *,
        heads: int,
        norm: layers.GroupNorm | None,
        qkv_order: str,
        scale: str,
        text_width: int | None = None,
        positions: bool = False,
        dtype,
        rngs: nnx.Rngs,
    ):
        self.heads = heads
        self.qkv_order = qkv_order
        self.scale = scale
        self.norm = norm
        self.qkv = layers.dense(channels, 3 * channels, dtype=dtype, rngs=rngs)
        self.proj_out = layers.dense(channels, channels, dtype=dtype, rngs=rngs)
        if positions:
            waves_told = 4 * len(WAVES)
            self.position = layers.dense(waves_told, channels, dtype=dtype, rngs=rngs)
        else:
            self.position = None
        if text_width is None:
            self.encoder_kv = None
        else:
            self.encoder_kv = layers.dense(
                text_width, 2 * channels, dtype=dtype, rngs=rngs
            )

    def __call__(self, x, embedding, dropout_keys, text=None):
        del embedding, dropout_keys
        B, H, W, C = x.shape
        h = x if self.norm is None else self.norm(x)
        if self.position is not None:
            h = h + self.position(waves(H, W))
        # With all pixels along one axis: between two, the CPU transposes for gradients.
        qkv = self.qkv(h.reshape(B * H * W, C)).reshape(B, H * W, 3 * C)
        q, k, v = split_qkv(qkv, heads=self.heads, order=self.qkv_order)
        if self.encoder_kv is not None:
            pairs = zip(self.text_keys_and_values(text), (k, v), strict=True)
            k, v = (jnp.concatenate(pair, axis=1) for pair in pairs)
        h = attend(q, k, v, scale=self.scale)
        return x + self.proj_out(h.reshape(B * H * W, C)).reshape(x.shape)

    def text_keys_and_values(self, text):
        """Return keys and values of a text: [B, L, width] → two [B, L, heads, d]."""
        B, L, width = text.shape
        packed = self.encoder_kv(text.reshape(B * L, width)).reshape(B, L, -1)
        return split_qkv(packed, heads=self.heads, order=self.qkv_order, parts=2)


def waves(height: int, width: int) -> jax.Array:
    """Return where each pixel is, as sines and cosines: float32 [H, W, 4·len(WAVES)].

    They depend on the share of the height and of the width, and so does what is learned
    of them at one size hold at another.
    """
    rows, columns = (2 * (jnp.arange(n) + 0.5) / n - 1 for n in (height, width))
    places = jnp.stack(
        jnp.meshgrid(rows, columns, indexing="ij"), axis=-1
    )  # in (−1, 1)
    angles = [math.pi * wave * places for wave in WAVES]
    return jnp.concatenate([f(a) for a in angles for f in (jnp.sin, jnp.cos)], axis=-1)


def split_qkv(
    qkv: jax.Array, *, heads: int, order: str, parts: int = 3
) -> tuple[jax.Array, ...]:
    """Return queries, keys, values: packed [B, N, 3·heads·d] → three [B, N, heads, d].

    Args:
        qkv: the packed channels.
        heads: number of heads.
        order: a key of `QKV_ORDERS`.
        parts: 3, or 2 for keys and values alone.
    """
    B, N, packed = qkv.shape
    d = packed // (parts * heads)
    axis = QKV_ORDERS[order]
    qkv = qkv.reshape(B, N, *((heads, parts, d) if axis == -2 else (parts, heads, d)))
    return tuple(jnp.moveaxis(qkv, axis, 0))


def attend(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    scale: str,
    mask: jax.Array | None = None,
    bias: jax.Array | None = None,
) -> jax.Array:
    """Let every query attend to the keys: [B, N, heads, d] → [B, N, heads·d].

    Args:
        q: [B, N, heads, d] queries.
        k, v: [B, M, heads, d] keys and their values.
        scale: one of `ATTENTION_SCALES`.
        mask: bool [B, M], the keys that count; a query without any gets zeros.
        bias: float32 [heads, N, M], added to q·k before the softmax.
    """
    B, N, heads, d = q.shape
    # Scaling q and k by d^(−1/4) each keeps their product within range at half
    # precision, where scaling the product by d^(−1/2) could come too late.
    factor = d**-0.5
    if scale == "split":
        q, k, factor = q * d**-0.25, k * d**-0.25, None
    products = functools.partial(einsum, factor=factor, mask=mask, bias=bias)
    if mask is None and bias is None:
        h = attention_routes.attend(q, k, v, factor=factor, einsum=products)
    else:
        h = products(q, k, v)
    return h.reshape(B, N, heads * d)


def einsum(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    factor: float | None,
    mask: jax.Array | None = None,
    bias: jax.Array | None = None,
) -> jax.Array:
    """Return softmax(factor · q·k + bias) v, [B, N, heads, d]: `attend` in products.

    Args:
        q, k, v, mask, bias: see `attend`.
        factor: of q·k before the softmax; None for 1.
    """
    logits = jnp.einsum("bqhd,bkhd->bhqk", q, k, preferred_element_type=jnp.float32)
    if factor is not None:
        logits = logits * factor
    if bias is not None:
        logits = logits + bias
    if mask is None:
        weights = jax.nn.softmax(logits, axis=-1)
    else:
        counts = mask[:, None, None, :]  # [B, 1, 1, M]
        # Finite, and set to 0 below: a row of −∞ would have NaN for its softmax.
        logits = jnp.where(counts, logits, jnp.finfo(jnp.float32).min)
        weights = jnp.where(counts, jax.nn.softmax(logits, axis=-1), 0.0)
    return jnp.einsum("bhqk,bkhd->bqhd", weights.astype(v.dtype), v)
