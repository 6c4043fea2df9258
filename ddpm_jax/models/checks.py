"""What a network cannot be built from or called with, refused in one sentence each."""

import math

from ddpm_jax.core import errors, wording


def check_counts(**counts):
    """Refuse a count below 1, or one that is no whole number; None passes."""
    for name, count in counts.items():
        if count is not None and (count != int(count) or count < 1):
            raise errors.Refusal(
                f"{name} is {count}: give a whole number of at least 1"
            )


def check_dropout(rate):
    """Refuse a dropout rate outside [0, 1)."""
    if not 0.0 <= rate < 1.0:
        raise errors.Refusal(
            f"dropout {rate} is outside [0, 1): give a rate such as 0.1, or 0 for none"
        )


def check_norm_epsilon(epsilon):
    """Refuse an ε that leaves a constant group of features 0/0."""
    if not epsilon > 0.0:
        raise errors.Refusal(
            f"norm_epsilon is {epsilon}: give a small positive number such as 1e-5"
        )


def check_sinusoid(channels, shift):
    """Refuse a width too small for a single frequency of the timestep embedding."""
    least = 2 * (shift + 1)
    if channels < least:
        raise errors.Refusal(
            f"channels is {channels}, too few for a timestep embedding with "
            f"sinusoid_shift {shift}: use at least {least}"
        )


def check_channel_mult(channel_mult, channels):
    """Refuse an empty list of levels, and a level without a single channel."""
    if len(channel_mult) == 0:
        raise errors.Refusal(
            "channel_mult is empty: give one multiple of the width per level, "
            "e.g. 1, 2, 2"
        )
    for mult in channel_mult:
        if int(mult * channels) < 1:
            raise errors.Refusal(
                f"channel_mult entry {mult} times {channels} channels leaves none: "
                f"use entries of at least {1 / channels:g}"
            )


def check_image_size(image_size, levels):
    """Refuse an image that cannot be halved between all levels, naming its neighbours.

    Args:
        image_size: (H, W) in pixels.
        levels: number of resolutions; the image is halved once less.
    """
    factor = 2 ** (levels - 1)
    height, width = image_size
    if min(image_size) < 1:
        raise errors.Refusal(
            f"image size {height}x{width} has no pixels: "
            f"use multiples of {factor}, e.g. {4 * factor}x{4 * factor}"
        )
    if height % factor or width % factor:
        below = [max(side // factor, 1) * factor for side in image_size]
        above = [math.ceil(side / factor) * factor for side in image_size]
        sizes = sorted({tuple(below), tuple(above)})
        names = [f"{h}" if height == width else f"{h}x{w}" for h, w in sizes]
        raise errors.Refusal(
            f"image size {height}x{width} is not divisible by {factor} "
            f"({levels - 1} downsamplings): use {' or '.join(names)}, "
            "or fewer entries in model.channel_mult"
        )


def check_norm_groups(norm_groups, widths):
    """Refuse a number of groups that does not divide every width.

    Args:
        norm_groups: asked for.
        widths: channels by what has them, e.g. {"level 0": 128}.
    """
    for where, width in widths.items():
        if width % norm_groups:
            good = wording.listed(_divisors(math.gcd(*widths.values())), "or")
            raise errors.Refusal(
                f"norm_groups {norm_groups} does not divide the {width} channels of "
                f"{where}: use {good}"
            )


def check_attention_resolutions(attention_resolutions, resolutions):
    """Refuse attention at a feature map size that no level has.

    Args:
        attention_resolutions: sizes asked for, in pixels of the shorter side.
        resolutions: the size of each level.
    """
    for resolution in attention_resolutions:
        if resolution not in resolutions:
            raise errors.Refusal(
                f"attention resolution {resolution} is not the size of any level: "
                f"use {wording.listed(resolutions, 'or')}, or none"
            )


def check_heads(num_heads, head_channels, widths, attended, middle):
    """Refuse heads that do not share the channels evenly where attention stands.

    Args:
        num_heads: used unless `head_channels` is given.
        head_channels: channels per head, or None.
        widths: channels of each level.
        attended: whether each level has attention.
        middle: whether the middle, as wide as the last level, has attention.
    """
    if head_channels is None:
        name, number = "num_heads", num_heads
    else:
        name, number = "head_channels", head_channels
    check_counts(**{name: number})
    last = len(widths) - 1
    used = [
        level
        for level in range(last + 1)
        if attended[level] or (middle and level == last)
    ]
    for level in used:
        if widths[level] % number:
            good = _divisors(math.gcd(*(widths[level] for level in used)))
            raise errors.Refusal(
                f"{name} {number} does not divide the {widths[level]} channels of "
                f"level {level}, which has attention: use {wording.listed(good, 'or')}"
            )


def check_call(x, t, *, image_shape):
    """Refuse images and timesteps that do not belong to the network.

    Args:
        x: images, to be [B, *image_shape].
        t: timesteps, to be [B].
        image_shape: (H, W, C).
    """
    if x.shape[1:] != image_shape:
        raise errors.Refusal(
            f"images of shape {x.shape} do not fit a network made for "
            f"[B, {', '.join(map(str, image_shape))}]: resize or crop them, "
            "or build the network for their size"
        )
    batch = x.shape[:1]
    if t.shape != batch:
        raise errors.Refusal(
            f"timesteps have shape {t.shape}: "
            f"give one for each of the {batch[0]} images"
        )


def check_low_res(low_res, image_shape):
    """Refuse images to enlarge that are larger than the result, in H or W.

    Args:
        low_res: [B, h, w, C].
        image_shape: (H, W, C).
    """
    height, width, _ = image_shape
    if low_res.shape[1] > height or low_res.shape[2] > width:
        raise errors.Refusal(
            f"low_res has shape {low_res.shape}: give images of at most "
            f"{height}x{width}, the size of the result"
        )


def _divisors(number):
    return [n for n in range(1, number + 1) if number % n == 0]
