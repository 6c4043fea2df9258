"""The classifier of noisy images: the U-Net's way down, then one vector of logits.

    conv_in → down/0 … down/L−1 → middle → pool

Parameter paths are the U-Net's (see `unet`) and pool/….

Reference: "ADM", Diffusion Models Beat GANs (Dhariwal & Nichol 2021), and its code.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx

from ddpm_jax.core import errors
from ddpm_jax.models import attention, checks, functional, initialisation, layers, unet
from ddpm_jax.models import parts as parts_lib

HIDDEN = 2048  # width of the hidden layer of the spatial pools


def classifier(
    *,
    image_size: tuple[int, int],
    in_channels: int,
    num_classes: int,
    channels: int,
    channel_mult: Sequence[float],
    num_res_blocks: int,
    attention_resolutions: Sequence[int],
    num_heads: int = 1,
    head_channels: int | None = 64,
    pool: str = "attention",
    scale_shift: bool = True,
    resblock_updown: bool = True,
    qkv_order: str = "legacy",
    norm_groups: int = 32,
    dropout: float = 0.0,
    dtype: str = "float32",
    remat: str | bool = "none",
) -> functional.Network:
    """Return a classifier whose `apply(params, x, t)` gives logits [B, num_classes].

    Args:
        num_classes: number of logits.
        pool: how the features become logits, a key of `POOLS`.
        dtype: of the trunk; the pool is float32 in any case.

    The other arguments are those of `unet.unet`.

    Raises:
        Refusal: a name is no choice, or the sizes do not fit together.
    """
    plan = parts_lib.Plan.of(
        image_size=image_size,
        channels=channels,
        channel_mult=channel_mult,
        attention_resolutions=attention_resolutions,
    )
    parts = parts_lib.Parts(
        channels=channels,
        num_heads=num_heads,
        head_channels=head_channels,
        dropout=dropout,
        scale_shift=scale_shift,
        resblock_updown=resblock_updown,
        qkv_order=qkv_order,
        norm_groups=norm_groups,
        dtype=dtype,
    )
    parts.check_widths(plan, middle=True)
    checks.check_counts(
        in_channels=in_channels, num_classes=num_classes, num_res_blocks=num_res_blocks
    )
    make_pool = errors.choose("pool", POOLS, pool)
    if make_pool is SpatialNormPool:
        checks.check_norm_groups(norm_groups, {"the pool": HIDDEN})
    remat = unet.remat_kind(remat)

    def build(rngs):
        return Classifier(
            plan,
            dataclasses.replace(parts, rngs=rngs),
            in_channels=in_channels,
            num_res_blocks=num_res_blocks,
            num_classes=num_classes,
            make_pool=make_pool,
            remat=remat,
        )

    return functional.functional(build, initialisation.RULES["openai"])


class Classifier(unet.Encoder):
    """The layers behind `classifier`, which checks and documents the arguments."""

    def __init__(self, plan, parts, *, num_classes, make_pool, **encoder):
        super().__init__(plan, parts, **encoder)
        self.pool = make_pool(
            parts,
            widths=unet.skip_widths(plan, encoder["num_res_blocks"]),
            pixels=plan.sizes[-1][0] * plan.sizes[-1][1],
            num_classes=num_classes,
        )

    def __call__(self, x, t, condition, *, dropout_keys):
        self.check_call(x, t, condition)
        run = functools.partial(
            self.run, embedding=self.embed(t, condition), dropout_keys=dropout_keys
        )
        h, skips = self.encode(x, condition, run)
        return self.pool([map_.astype(jnp.float32) for map_ in (*skips, h)])


# ---- pools: the encoder's maps, each [B, h, w, C], to logits [B, num_classes] --------
#
# One signature for all: `widths` are those of the maps before the middle's, whose own
# width is that of the last; `pixels` is h·w of the coarsest level.


class AttentionPool(nnx.Module):
    """Let the mean pixel attend to all pixels, each with its position embedded."""

    def __init__(self, parts, *, widths, pixels, num_classes):
        width = widths[-1]
        self.heads = parts.heads(width)
        self.norm = parts.norm(width)
        self.positional_embedding = nnx.Param(jnp.zeros((1 + pixels, width)))
        self.qkv = layers.dense(width, 3 * width, rngs=parts.rngs)
        self.proj_out = layers.dense(width, num_classes, rngs=parts.rngs)

    def __call__(self, maps):
        h = nnx.silu(self.norm(maps[-1]))
        h = h.reshape(h.shape[0], -1, h.shape[-1])  # [B, hw, C]
        tokens = jnp.concatenate([h.mean(axis=1, keepdims=True), h], axis=1)
        qkv = self.qkv(tokens + self.positional_embedding[...])
        q, k, v = attention.split_qkv(qkv, heads=self.heads, order="new")
        h = attention.attend(q, k, v, scale="split")
        return self.proj_out(h[:, 0])


class AdaptivePool(nnx.Module):
    """Average the pixels and project."""

    def __init__(self, parts, *, widths, pixels, num_classes):
        del pixels
        self.norm = parts.norm(widths[-1])
        self.proj_out = layers.dense(widths[-1], num_classes, rngs=parts.rngs)

    def __call__(self, maps):
        return self.proj_out(_mean(nnx.silu(self.norm(maps[-1]))))


class SpatialPool(nnx.Module):
    """Join the means of all maps; one hidden layer."""

    def __init__(self, parts, *, widths, pixels, num_classes):
        del pixels
        self.dense_1 = layers.dense(sum(widths) + widths[-1], HIDDEN, rngs=parts.rngs)
        self.dense_2 = layers.dense(HIDDEN, num_classes, rngs=parts.rngs)

    def __call__(self, maps):
        h = self.dense_1(jnp.concatenate([_mean(h) for h in maps], axis=-1))
        return self.dense_2(self.activate(h))

    def activate(self, h):
        """Return the hidden layer's features."""
        return nnx.relu(h)


class SpatialNormPool(SpatialPool):
    """Join the means of all maps; one hidden layer with a group norm."""

    def __init__(self, parts, **shape):
        super().__init__(parts, **shape)
        self.norm = parts.norm(HIDDEN)

    def activate(self, h):
        return nnx.silu(self.norm(h))


POOLS = {
    "attention": AttentionPool,
    "adaptive": AdaptivePool,
    "spatial": SpatialPool,
    "spatial_v2": SpatialNormPool,
}


def _mean(h):
    return h.mean(axis=(1, 2))  # [B, h, w, C] → [B, C]
