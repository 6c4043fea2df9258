"""What the U-Net and the noisy classifier are assembled from, and at which widths."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import jax.numpy as jnp
from flax import nnx

from ddpm_jax.core import errors
from ddpm_jax.models import attention, checks, layers, text

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
CHOICES = {
    "sinusoid": tuple(layers.SINUSOIDS),
    "sinusoid_shift": (0, 1),
    "downsample_padding": tuple(layers.PADDINGS),
    "resample": ("conv", "pool"),
    "qkv_order": tuple(attention.QKV_ORDERS),
    "attention_scale": attention.ATTENTION_SCALES,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The levels of a network, from the image's own size to the coarsest.

    Attributes:
        widths: channels of each level.
        attended: whether each level has attention.
        sizes: (H, W) of each level's maps.
    """

    widths: tuple[int, ...]
    attended: tuple[bool, ...]
    sizes: tuple[tuple[int, int], ...]

    @classmethod
    def of(
        cls,
        *,
        image_size: tuple[int, int],
        channels: int,
        channel_mult: Sequence[float],
        attention_resolutions: Sequence[int],
    ) -> "Plan":
        """Return the levels that arguments of `unet.unet` ask for.

        Raises:
            Refusal: the sizes do not fit together.
        """
        checks.check_counts(channels=channels)
        checks.check_channel_mult(channel_mult, channels)
        checks.check_image_size(image_size, len(channel_mult))
        height, width = image_size
        sizes = [(height // 2**i, width // 2**i) for i in range(len(channel_mult))]
        sides = [min(size) for size in sizes]
        checks.check_attention_resolutions(attention_resolutions, sides)
        return cls(
            widths=tuple(int(mult * channels) for mult in channel_mult),
            attended=tuple(side in attention_resolutions for side in sides),
            sizes=tuple(sizes),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
    """What one network's blocks have in common; makes them to measure.

    The fields are arguments of `unet.unet`, with the defaults of Improved DDPM and ADM;
    `rngs` is for the layers, and set by `dataclasses.replace` once it is known.
    `text_width` is the width of `unet.unet`'s text, None without one.

    Raises:
        Refusal: a name or a number that is no choice.
    """

    channels: int
    num_heads: int
    head_channels: int | None
    dropout: float
    scale_shift: bool
    resblock_updown: bool
    norm_groups: int
    dtype: str
    qkv_order: str = "legacy"
    attention_scale: str = "split"
    attention_positions: bool = False
    sinusoid: str = "cos_sin"
    sinusoid_shift: int = 0
    norm_epsilon: float = 1e-5
    downsample_padding: str = "both"
    resample: str = "conv"
    text_width: int | None = None
    rngs: nnx.Rngs | None = None
    _dropout_indices: Iterator[int] = dataclasses.field(
        default_factory=itertools.count, init=False, repr=False
    )

    def __post_init__(self):
        if self.dtype == "float16":
            raise errors.Refusal(
                "dtype 'float16' overflows above 65,504 and loses small gradients: "
                "use bfloat16, which is as fast and has float32's range"
            )
        errors.choose("dtype", DTYPES, self.dtype)
        for name, choices in CHOICES.items():
            errors.choose(name, dict.fromkeys(choices), getattr(self, name))
        checks.check_counts(norm_groups=self.norm_groups)
        checks.check_norm_epsilon(self.norm_epsilon)
        checks.check_dropout(self.dropout)
        checks.check_sinusoid(self.channels, self.sinusoid_shift)

    def check_widths(self, plan: Plan, *, middle: bool):
        """Refuse groups or heads that do not share the channels evenly.

        Args:
            plan: the levels.
            middle: whether there is attention in the middle.
        """
        widths = {f"level {level}": width for level, width in enumerate(plan.widths)}
        checks.check_norm_groups(self.norm_groups, widths)
        checks.check_heads(
            self.num_heads, self.head_channels, plan.widths, plan.attended, middle
        )

    @property
    def trunk_dtype(self):
        """The dtype that the convolutions compute in."""
        return DTYPES[self.dtype]

    def time_embedding(self):
        """Return the way of the timestep to its embedding, 4·channels wide."""
        return layers.TimeEmbedding(
            self.channels,
            4 * self.channels,
            order=self.sinusoid,
            shift=self.sinusoid_shift,
            rngs=self.rngs,
        )

    def embedding(self, rows):
        """Return a label embedding, as wide as that of the timestep."""
        return nnx.Embed(rows, 4 * self.channels, rngs=self.rngs)

    def text_encoder(self, sizes):
        """Return the encoder of a text, see `text.TextEncoder`."""
        return text.TextEncoder(
            sizes, 4 * self.channels, dtype=self.trunk_dtype, rngs=self.rngs
        )

    def conv(self, width_in, width_out):
        """Return a 3×3 convolution of the trunk."""
        return layers.conv(width_in, width_out, dtype=self.trunk_dtype, rngs=self.rngs)

    def conv_out(self, width_in, width_out):
        """Return the last convolution, in float32."""
        return layers.conv(width_in, width_out, dtype=jnp.float32, rngs=self.rngs)

    def norm(self, width):
        """Return a group norm."""
        return layers.GroupNorm(
            width, self.norm_groups, epsilon=self.norm_epsilon, rngs=self.rngs
        )

    def res_block(self, width_in, width_out, resample=None):
        """Return a residual block; those of a network count up their dropout index."""
        return layers.ResBlock(
            width_in,
            width_out,
            embedding_channels=4 * self.channels,
            norm=self.norm,
            scale_shift=self.scale_shift,
            dropout=self.dropout,
            dropout_index=next(self._dropout_indices),
            resample=resample,
            dtype=self.trunk_dtype,
            rngs=self.rngs,
        )

    def attention(self, width, *, normed=True):
        """Return a self-attention over the pixels, and over a text if there is one."""
        return attention.Attention(
            width,
            heads=self.heads(width),
            norm=self.norm(width) if normed else None,
            qkv_order=self.qkv_order,
            scale=self.attention_scale,
            text_width=self.text_width,
            positions=self.attention_positions,
            dtype=self.trunk_dtype,
            rngs=self.rngs,
        )

    def heads(self, width):
        """Return the number of attention heads at a width."""
        if self.head_channels is None:
            return self.num_heads
        return width // self.head_channels

    def halve(self, width):
        """Return the way from a level down to the next."""
        if self.resblock_updown:
            return self.res_block(width, width, layers.downsample)
        if self.resample == "pool":
            return layers.Resample(layers.downsample)
        return layers.Downsample(
            width,
            padding=self.downsample_padding,
            dtype=self.trunk_dtype,
            rngs=self.rngs,
        )

    def double(self, width):
        """Return the way from a level up to the next."""
        if self.resblock_updown:
            return self.res_block(width, width, layers.upsample)
        if self.resample == "pool":
            return layers.Resample(layers.upsample)
        return layers.Upsample(width, dtype=self.trunk_dtype, rngs=self.rngs)


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
    """The bottom of the U: residual block, attention or None, residual block."""

    def __init__(self, block_1, attention, block_2):
        self.block_1 = block_1
        self.attention = attention
        self.block_2 = block_2

    def stage(self):
        """Return the modules to run."""
        modules = (self.block_1, self.attention, self.block_2)
        return [module for module in modules if module is not None]
