"""The U-Net of DDPM, Improved DDPM and ADM, from top to bottom.

    conv_in → down/0 … down/L−1 → middle → up/L−1 … up/0 → norm_out, conv_out

Level 0 is the image's own size and every further level halves it. The encoder pushes
each of its feature maps on a stack; every block of the decoder pops one and sees it
beside its own input. Parameter paths follow the attributes: down/0/blocks/1/conv_1,
down/2/attentions/0/qkv, down/0/resample/conv, middle/block_1, up/3/blocks/0/shortcut.

References: "DDPM", Denoising Diffusion Probabilistic Models (Ho et al. 2020); Improved
DDPM (Nichol & Dhariwal 2021); "ADM", Diffusion Models Beat GANs (Dhariwal & Nichol
2021); GLIDE (Nichol et al. 2021) for text and inpainting.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from ddpm_jax.core import conditions, errors
from ddpm_jax.models import attention, checks, functional, layers
from ddpm_jax.models import initialisation as initialisation_lib
from ddpm_jax.models import parts as parts_lib
from ddpm_jax.models import text as text_lib

REMAT = {
    # What is computed again in the backward pass, and which of its results are not.
    "none": ((), None),
    "blocks": (nnx.Module, None),
    "attention": (attention.Attention, None),
    "dots": (nnx.Module, jax.checkpoint_policies.dots_saveable),
}
MIDDLE_ATTENTIONS = {
    # Arguments of `parts.Parts.attention`, or None.
    "normed": {"normed": True},
    "plain": {"normed": False},
    "none": None,
}


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
    null_label: int | None = None,
    low_res: bool | tuple[int, int] = False,
    low_res_levels: int = 0,
    inpainting: bool = False,
    text: text_lib.Text | None = None,
    dropout: float = 0.0,
    scale_shift: bool = True,
    resblock_updown: bool = False,
    resample: str = "conv",
    downsample_padding: str = "both",
    qkv_order: str = "legacy",
    attention_scale: str = "split",
    attention_positions: bool = False,
    middle_attention: str = "normed",
    sinusoid: str = "cos_sin",
    sinusoid_shift: int = 0,
    norm_groups: int = 32,
    norm_epsilon: float = 1e-5,
    initialisation: str = "openai",
    dtype: str = "float32",
    remat: str | bool = "none",
) -> functional.Network:
    """Return a U-Net as a pair of functions, see `functional.Network`.

    The defaults are the dialect of Improved DDPM and ADM. That of DDPM: sinusoid
    "sin_cos", sinusoid_shift 1, norm_epsilon 1e-6, downsample_padding "end", qkv_order
    "new", attention_scale "product", num_heads 1, scale_shift False, initialisation
    "ddpm".

    Args:
        image_size: (H, W) in pixels, divisible by 2 ** (levels − 1).
        in_channels: of the images.
        out_channels: of the output; twice `in_channels` where the variance is learned.
        channels: base width; the timestep embedding is 4 times as wide.
        channel_mult: width of each level as a multiple of `channels`; its length is the
            number of levels. Fractions are rounded down.
        num_res_blocks: residual blocks per encoder level; decoder levels have one more.
        attention_resolutions: sizes of the feature maps, in pixels of the shorter side,
            whose levels have attention.
        num_heads: attention heads, unless `head_channels` is given.
        head_channels: channels per head; the number of heads then grows with the width.
        num_classes: rows of the label embedding, the null class included; None for a
            network without labels.
        null_label: the row that means "no class", None where no such row is trained.
        low_res: for super-resolution: the network sees, beside the image, a smaller one
            that it stretches to the same size; its (h, w), or True for any.
        low_res_levels: the network is also told which of so many levels of noise the
            smaller image has, "low_res_level" int32 [B]; 0 for one without noise.
        inpainting: the network sees, beside the image, one of which a part is known:
            the conditions "known" [B, H, W, C] and "known_mask" [B, H, W, 1], 1 where
            it is known and 0 elsewhere. It reads known·mask and mask; zeros of both ask
            for a whole new image (GLIDE).
        text: sizes of a text encoder, or None for a network without text.
        dropout: rate inside the residual blocks.
        scale_shift: modulate by (1 + scale, shift) instead of adding the embedding.
        resblock_updown: change resolution inside residual blocks (ADM); otherwise
            `resample` and `downsample_padding` tell how.
        resample: "conv", or "pool" for plain averages and repetitions.
        downsample_padding: "both" or "end", see `layers.PADDINGS`.
        qkv_order: "legacy" or "new", see `attention.QKV_ORDERS`.
        attention_scale: "split" or "product", see `attention.ATTENTION_SCALES`.
        attention_positions: tell attention where a pixel is.
        middle_attention: "normed", "plain" (no norm in front) or "none".
        sinusoid, sinusoid_shift: "cos_sin" or "sin_cos", and 0 or 1: `order` and
            `shift` of `layers.timestep_embedding`.
        norm_groups, norm_epsilon: of every norm.
        initialisation: a key of `initialisation.RULES`, how the weights are drawn.
        dtype: "float32" or "bfloat16", what the trunk computes in. Parameters, norms,
            softmax, embeddings and the output layer are float32 in any case.
        remat: what to recompute in the backward pass to save memory: "none" or False,
            "blocks" or True, "attention" (ADM), or "dots", all but the results of
            convolutions and matrix products.

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
        resample=resample,
        downsample_padding=downsample_padding,
        qkv_order=qkv_order,
        attention_scale=attention_scale,
        attention_positions=attention_positions,
        sinusoid=sinusoid,
        sinusoid_shift=sinusoid_shift,
        norm_groups=norm_groups,
        norm_epsilon=norm_epsilon,
        text_width=None if text is None else text.width,
        dtype=dtype,
    )
    parts.check_widths(plan, middle=middle_attention != "none")
    checks.check_counts(
        in_channels=in_channels,
        out_channels=out_channels,
        num_res_blocks=num_res_blocks,
        num_classes=num_classes,
    )
    errors.choose("middle_attention", MIDDLE_ATTENTIONS, middle_attention)
    rules = initialisation_lib.RULES
    rule = errors.choose("initialisation", rules, initialisation)
    remat = remat_kind(remat)

    def build(rngs):
        return UNet(
            plan,
            dataclasses.replace(parts, rngs=rngs),
            in_channels=in_channels,
            out_channels=out_channels,
            num_res_blocks=num_res_blocks,
            num_classes=num_classes,
            low_res=bool(low_res),
            low_res_levels=low_res_levels,
            inpainting=inpainting,
            text=text,
            middle_attention=middle_attention,
            remat=remat,
        )

    read = _read(num_classes, null_label, inpainting, (*plan.sizes[0], in_channels))
    read |= _read_low_res(low_res, low_res_levels, in_channels)
    if text is None:
        return functional.functional(build, rule, read)
    prepared = {**read, **text.prepared_spec(4 * channels)}
    read |= text.condition_spec()
    return functional.functional(build, rule, read, prepared)


def _read(num_classes, null_label, inpainting, image_shape):
    """Return the specs of what is read besides a text.

    Labels and texts have a value for "no condition"; images guidance leaves alone.
    """
    *size, channels = image_shape
    read = {}
    if num_classes is not None:
        read["label"] = conditions.Spec((), "int32", null_label, num_classes)
    if inpainting:
        read["known"] = conditions.Spec((*size, channels), "float32")
        read["known_mask"] = conditions.Spec((*size, 1), "float32")
    return read


def _read_low_res(low_res, levels, channels):
    """Return the specs of a smaller image and of the level of its noise."""
    size = (None, None) if low_res is True else low_res
    read = {"low_res": conditions.Spec((*size, channels), "float32")} if low_res else {}
    if levels:
        read["low_res_level"] = conditions.Spec((), "int32", count=levels)
    return read


def remat_kind(remat: str | bool) -> str:
    """Return the key of `REMAT` that a name, or True or False, stands for.

    Raises:
        Refusal: unknown name.
    """
    name = {False: "none", True: "blocks"}.get(remat, remat)
    errors.choose("remat", REMAT, name)
    return name


class Encoder(nnx.Module):
    """The way down to the middle: what the U-Net and the classifier share.

    The arguments are those of `unet`, but for `plan` and `parts`, made of the rest.
    """

    def __init__(
        self,
        plan,
        parts,
        *,
        in_channels,
        num_res_blocks,
        num_classes=None,
        low_res=False,
        low_res_levels=0,
        inpainting=False,
        text=None,
        middle_attention="normed",
        remat="none",
    ):
        self.image_shape = (*plan.sizes[0], in_channels)
        self.num_classes = num_classes
        self.low_res = low_res
        self.inpainting = inpainting
        self.dtype = parts.trunk_dtype
        self.remat = remat

        self.time_embedding = parts.time_embedding()
        self.label_embedding = num_classes and parts.embedding(num_classes)
        self.level_embedding = (low_res_levels or None) and parts.time_embedding()
        self.text = None if text is None else parts.text_encoder(text)
        seen_channels = (1 + low_res + inpainting) * in_channels + inpainting
        self.conv_in = parts.conv(seen_channels, plan.widths[0])
        self.down = nnx.List(_levels_down(plan, parts, num_res_blocks))
        bottom, style = plan.widths[-1], MIDDLE_ATTENTIONS[middle_attention]
        self.middle = parts_lib.Middle(
            parts.res_block(bottom, bottom),
            None if style is None else parts.attention(bottom, **style),
            parts.res_block(bottom, bottom),
        )

    def prepare(self, condition):
        """Return the condition with its text encoded, see `functional.Network`."""
        if self.text is None or text_lib.POSITIONS in condition:
            return condition
        given = (text_lib.TOKENS, text_lib.MASK)
        kept = {key: value for key, value in condition.items() if key not in given}
        encoded = self.text(*(condition[key] for key in given))
        return kept | dict(
            zip((text_lib.POSITIONS, text_lib.POOLED), encoded, strict=True)
        )

    def embed(self, t, condition):
        """Return what timestep, label, level and text tell blocks: [B, 4·channels]."""
        embedding = self.time_embedding(t)
        if self.label_embedding is not None:
            embedding += self.label_embedding(condition["label"])
        if self.level_embedding is not None:
            embedding += self.level_embedding(condition["low_res_level"])
        if self.text is not None:
            embedding += condition[text_lib.POOLED]
        return embedding

    def run(self, modules, h, *, embedding, dropout_keys, text=None):
        """Return the features after one module after the other."""
        recomputed, policy = REMAT[self.remat]
        for module in modules:
            block = functools.partial(_run_block, module)
            if isinstance(module, recomputed):
                block = jax.checkpoint(block, policy=policy)
            h = block(h, embedding, dropout_keys, text)
        return h

    def encode(self, x, condition, run):
        """Return the middle's features, and the stack of those on the way."""
        seen = [x]
        if self.inpainting:
            mask = condition["known_mask"]
            seen += [condition["known"] * mask, mask]
        if self.low_res:
            seen.append(layers.stretch(condition["low_res"], x.shape[1:3]))
        x = jnp.concatenate(seen, axis=-1) if len(seen) > 1 else x
        h = self.conv_in(x.astype(self.dtype))
        skips = [h]
        for level in self.down:
            for stage in level.stages():
                h = run(stage, h)
                skips.append(h)
            if level.resample is not None:
                h = run([level.resample], h)
                skips.append(h)
        return run(self.middle.stage(), h), skips

    def check_call(self, x, t, condition):
        """Refuse arguments that do not belong to this network."""
        checks.check_call(x, t, image_shape=self.image_shape)
        if self.low_res:
            checks.check_low_res(condition["low_res"], self.image_shape)


class UNet(Encoder):
    """The layers behind `unet`, which checks and documents the arguments."""

    def __init__(self, plan, parts, *, out_channels, num_res_blocks, **encoder):
        super().__init__(plan, parts, num_res_blocks=num_res_blocks, **encoder)
        self.up = nnx.List(_levels_up(plan, parts, num_res_blocks))
        self.norm_out = parts.norm(plan.widths[0])
        self.conv_out = parts.conv_out(plan.widths[0], out_channels)

    def __call__(self, x, t, condition, *, dropout_keys):
        self.check_call(x, t, condition)
        condition = self.prepare(condition)
        run = functools.partial(
            self.run,
            embedding=self.embed(t, condition),
            dropout_keys=dropout_keys,
            text=condition.get(text_lib.POSITIONS),
        )
        h, skips = self.encode(x, condition, run)
        for level in reversed(self.up):
            for stage in level.stages():
                h = run(stage, jnp.concatenate([h, skips.pop()], axis=-1))
            if level.resample is not None:
                h = run([level.resample], h)
        return self.conv_out(nnx.silu(self.norm_out(h.astype(jnp.float32))))


def skip_widths(plan, num_res_blocks) -> list[int]:
    """Return the widths of the maps that the encoder leaves, in their order."""
    widths = [plan.widths[0]]  # conv_in leaves the first
    for level, width in enumerate(plan.widths):
        resampled = level < len(plan.widths) - 1
        widths += [width] * (num_res_blocks + resampled)
    return widths


def _levels_down(plan, parts, num_res_blocks):
    levels, width = [], plan.widths[0]
    for level_width, attended in zip(plan.widths, plan.attended, strict=True):
        blocks, attentions, resample = [], [], None
        for _ in range(num_res_blocks):
            blocks.append(parts.res_block(width, level_width))
            width = level_width
            if attended:
                attentions.append(parts.attention(width))
        if len(levels) < len(plan.widths) - 1:
            resample = parts.halve(width)
        levels.append(parts_lib.Level(blocks, attentions, resample))
    return levels


def _levels_up(plan, parts, num_res_blocks):
    """Return the levels on the way up, finest first."""
    levels, width = [], plan.widths[-1]
    skips = skip_widths(plan, num_res_blocks)
    for level, level_width in reversed(list(enumerate(plan.widths))):
        blocks, attentions, resample = [], [], None
        for _ in range(num_res_blocks + 1):
            blocks.append(parts.res_block(width + skips.pop(), level_width))
            width = level_width
            if plan.attended[level]:
                attentions.append(parts.attention(width))
        if level > 0:
            resample = parts.double(width)
        levels.insert(0, parts_lib.Level(blocks, attentions, resample))
    return levels


def _run_block(module, h, embedding, dropout_keys, text):
    # A plain function: jax.checkpoint is not to see the module as an argument.
    return module(h, embedding, dropout_keys, text)
