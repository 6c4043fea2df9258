"""The U-Net of Improved DDPM and of ADM, from top to bottom.

    conv_in → down/0 … down/L−1 → middle → up/L−1 … up/0 → norm_out, conv_out

Level 0 is the image's own size and every further level halves it. The encoder pushes
each of its feature maps on a stack; every block of the decoder pops one and sees it
beside its own input. Parameter paths follow the attributes: down/0/blocks/1/conv_1,
down/2/attentions/0/qkv, down/0/resample/conv, middle/block_1, up/3/blocks/0/shortcut.

References: Improved DDPM (Nichol & Dhariwal 2021); "ADM", Diffusion Models Beat GANs
(Dhariwal & Nichol 2021).
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from ddpm_jax.core import errors
from ddpm_jax.models import checks, initialisation, layers, network

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def unet(
    *,
    image_size: tuple[int, int],
    in_channels: int,
    out_channels: int,
    channels: int,
    channel_mult: Sequence[float],
    num_res_blocks: int,
    attention_resolutions: Sequence[int],
    num_heads: int = 4,
    head_channels: int | None = None,
    num_classes: int | None = None,
    dropout: float = 0.0,
    scale_shift: bool = True,
    resblock_updown: bool = False,
    qkv_order: str = "legacy",
    norm_groups: int = 32,
    dtype: str = "float32",
    remat: bool = False,
) -> network.Network:
    """Return the OpenAI U-Net as a pair of functions, see `network.Network`.

    Args:
        image_size: (H, W) in pixels, divisible by 2 ** (levels − 1).
        in_channels: of the images.
        out_channels: of the output; twice `in_channels` where the variance is learned.
        channels: base width; the timestep embedding is 4 times as wide.
        channel_mult: width of each level as a multiple of `channels`; its length is the
            number of levels. Fractions are rounded down.
        num_res_blocks: residual blocks per encoder level; decoder levels have one more.
        attention_resolutions: sizes of the feature maps, in pixels of the shorter side,
            whose levels have attention. The middle always has.
        num_heads: attention heads, unless `head_channels` is given.
        head_channels: channels per head; the number of heads then grows with the width.
        num_classes: rows of the label embedding, the null class included; None for a
            network without labels.
        dropout: rate inside the residual blocks.
        scale_shift: modulate by (1 + scale, shift) instead of adding the embedding.
        resblock_updown: change resolution inside residual blocks (ADM) instead of by
            convolutions (Improved DDPM).
        qkv_order: "legacy" or "new", see `layers.QKV_ORDERS`.
        norm_groups: groups of every norm.
        dtype: "float32" or "bfloat16", what the trunk computes in. Parameters, norms,
            softmax, embeddings and the output layer are float32 in any case.
        remat: recompute every block in the backward pass to save memory.

    Raises:
        Refusal: the sizes do not fit together.
    """
    trunk_dtype = errors.choose("dtype", DTYPES, dtype)
    errors.choose("qkv_order", layers.QKV_ORDERS, qkv_order)
    checks.check_counts(
        in_channels=in_channels,
        out_channels=out_channels,
        channels=channels,
        num_res_blocks=num_res_blocks,
        norm_groups=norm_groups,
        num_classes=num_classes,
    )
    checks.check_dropout(dropout)
    checks.check_channel_mult(channel_mult, channels)
    checks.check_image_size(image_size, len(channel_mult))
    widths = [int(mult * channels) for mult in channel_mult]
    resolutions = [min(image_size) // 2**level for level in range(len(widths))]
    checks.check_norm_groups(norm_groups, widths)
    checks.check_attention_resolutions(attention_resolutions, resolutions)
    attended = [resolution in attention_resolutions for resolution in resolutions]
    checks.check_heads(num_heads, head_channels, widths, attended)

    def build(rngs):
        parts = Parts(
            embedding_channels=4 * channels,
            num_heads=num_heads,
            head_channels=head_channels,
            dropout=dropout,
            scale_shift=scale_shift,
            resblock_updown=resblock_updown,
            qkv_order=qkv_order,
            norm_groups=norm_groups,
            dtype=trunk_dtype,
            rngs=rngs,
        )
        return UNet(
            parts,
            image_shape=(*image_size, in_channels),
            out_channels=out_channels,
            channels=channels,
            widths=widths,
            attended=attended,
            num_res_blocks=num_res_blocks,
            num_classes=num_classes,
            remat=remat,
        )

    return network.functional(build, initialisation.RULES["openai"])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
    """What one network's blocks have in common; makes them to measure.

    The fields are arguments of `unet`, but for `embedding_channels`, the width of the
    timestep embedding, and `dtype`, a JAX dtype.
    """

    embedding_channels: int
    num_heads: int
    head_channels: int | None
    dropout: float
    scale_shift: bool
    resblock_updown: bool
    qkv_order: str
    norm_groups: int
    dtype: jnp.dtype
    rngs: nnx.Rngs
    dropout_indices: Iterator[int] = dataclasses.field(default_factory=itertools.count)

    def res_block(self, width_in, width_out, resample=None):
        """Return a residual block; those of a network count up their dropout index."""
        return layers.ResBlock(
            width_in,
            width_out,
            embedding_channels=self.embedding_channels,
            norm_groups=self.norm_groups,
            scale_shift=self.scale_shift,
            dropout=self.dropout,
            dropout_index=next(self.dropout_indices),
            resample=resample,
            dtype=self.dtype,
            rngs=self.rngs,
        )

    def attention(self, width):
        """Return a self-attention over the pixels."""
        by_width = self.head_channels is not None
        return layers.Attention(
            width,
            heads=width // self.head_channels if by_width else self.num_heads,
            norm_groups=self.norm_groups,
            qkv_order=self.qkv_order,
            dtype=self.dtype,
            rngs=self.rngs,
        )

    def halve(self, width):
        """Return the way from a level down to the next."""
        if self.resblock_updown:
            return self.res_block(width, width, layers.downsample)
        return layers.Downsample(width, dtype=self.dtype, rngs=self.rngs)

    def double(self, width):
        """Return the way from a level up to the next."""
        if self.resblock_updown:
            return self.res_block(width, width, layers.upsample)
        return layers.Upsample(width, dtype=self.dtype, rngs=self.rngs)


class Level(nnx.Module):
    """What happens at one resolution: blocks, each with its attention, then a resample.

    Args:
        blocks: residual blocks.
        attentions: as many attentions, or none.
        resample: the way to the next level, None at the last.
    """

    def __init__(self, blocks, attentions, resample):
        self.blocks = nnx.List(blocks)
        self.attentions = nnx.List(attentions)
        self.resample = resample

    def stages(self):
        """Return for each residual block the modules to run: itself, its attention."""
        if not self.attentions:
            return [(block,) for block in self.blocks]
        return list(zip(self.blocks, self.attentions, strict=True))


class Middle(nnx.Module):
    """The bottom of the U: residual block, attention, residual block."""

    def __init__(self, block_1, attention, block_2):
        self.block_1 = block_1
        self.attention = attention
        self.block_2 = block_2


class UNet(nnx.Module):
    """The layers behind `unet`, which checks and documents the arguments.

    Those that differ: `parts` makes the blocks, `image_shape` is (H, W, C), `widths`
    are the channels of each level, `attended` tells whether a level has attention.
    """

    def __init__(
        self,
        parts,
        *,
        image_shape,
        out_channels,
        channels,
        widths,
        attended,
        num_res_blocks,
        num_classes,
        remat,
    ):
        self.image_shape = image_shape
        self.dtype = parts.dtype
        self.remat = remat
        rngs, embedding_channels = parts.rngs, parts.embedding_channels

        self.time_embedding = layers.TimeEmbedding(
            channels, embedding_channels, rngs=rngs
        )
        if num_classes is None:
            self.label_embedding = None
        else:
            self.label_embedding = nnx.Embed(num_classes, embedding_channels, rngs=rngs)

        self.conv_in = layers.conv(
            image_shape[-1], widths[0], dtype=parts.dtype, rngs=rngs
        )
        down, skips = _encoder(parts, widths, attended, num_res_blocks)
        self.down = nnx.List(down)
        bottom = widths[-1]
        self.middle = Middle(
            parts.res_block(bottom, bottom),
            parts.attention(bottom),
            parts.res_block(bottom, bottom),
        )
        self.up = nnx.List(_decoder(parts, widths, attended, num_res_blocks, skips))

        self.norm_out = layers.GroupNorm(widths[0], parts.norm_groups, rngs=rngs)
        self.conv_out = layers.conv(
            widths[0], out_channels, dtype=jnp.float32, rngs=rngs
        )

    def __call__(self, x, t, labels, *, dropout_keys):
        checks.check_call(x, t, labels, self.image_shape, self.label_embedding)

        embedding = self.time_embedding(t)  # [B, 4·channels]
        if self.label_embedding is not None:
            embedding = embedding + self.label_embedding(labels)

        def run(modules, h):
            for module in modules:
                block = functools.partial(_run_block, module)
                block = jax.checkpoint(block) if self.remat else block
                h = block(h, embedding, dropout_keys)
            return h

        h = self.conv_in(x.astype(self.dtype))
        skips = [h]
        for level in self.down:
            for stage in level.stages():
                h = run(stage, h)
                skips.append(h)
            if level.resample is not None:
                h = run([level.resample], h)
                skips.append(h)

        middle = self.middle
        h = run([middle.block_1, middle.attention, middle.block_2], h)

        for level in reversed(self.up):
            for stage in level.stages():
                h = run(stage, jnp.concatenate([h, skips.pop()], axis=-1))
            if level.resample is not None:
                h = run([level.resample], h)

        return self.conv_out(nnx.silu(self.norm_out(h.astype(jnp.float32))))


def _encoder(parts, widths, attended, num_res_blocks):
    """Return the levels on the way down, and the widths of the maps they leave."""
    levels, skips = [], [widths[0]]  # conv_in leaves the first
    width = widths[0]
    for level, level_width in enumerate(widths):
        blocks, attentions, resample = [], [], None
        for _ in range(num_res_blocks):
            blocks.append(parts.res_block(width, level_width))
            width = level_width
            if attended[level]:
                attentions.append(parts.attention(width))
            skips.append(width)
        if level < len(widths) - 1:
            resample = parts.halve(width)
            skips.append(width)
        levels.append(Level(blocks, attentions, resample))
    return levels, skips


def _decoder(parts, widths, attended, num_res_blocks, skips):
    """Return the levels on the way up, finest first; their blocks use up `skips`."""
    levels = []
    width = widths[-1]
    for level, level_width in reversed(list(enumerate(widths))):
        blocks, attentions, resample = [], [], None
        for _ in range(num_res_blocks + 1):
            blocks.append(parts.res_block(width + skips.pop(), level_width))
            width = level_width
            if attended[level]:
                attentions.append(parts.attention(width))
        if level > 0:
            resample = parts.double(width)
        levels.insert(0, Level(blocks, attentions, resample))
    return levels


def _run_block(module, h, embedding, dropout_keys):
    # A plain function: jax.checkpoint is not to see the module as an argument.
    return module(h, embedding, dropout_keys)
