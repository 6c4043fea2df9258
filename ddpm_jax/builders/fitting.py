"""Sides that cannot be halved as often as a network does: what would fit, tried."""

import dataclasses
import math
from collections.abc import Callable

from ddpm_jax.builders import data as build_data
from ddpm_jax.core import errors


def check_sides(config, facts: build_data.DataInfo, build: Callable) -> None:
    """Refuse images whose sides cannot be halved between all levels.

    Args:
        config, facts: of the run.
        build: (config, facts) → network, which refuses what does not fit together.

    Raises:
        Refusal: names fields with which data and network were built, where there are.
    """
    sides, levels = facts.shape[:2], len(config.model.channel_mult)
    factor = 2 ** (levels - 1) if levels else 1
    if not any(side % factor for side in sides):
        return
    found = [*_other_sizes(config, facts, factor, build)]
    found += _fewer_levels(config, facts, build)
    if found:
        height, width = sides
        raise errors.Refusal(
            f"image size {height}x{width} is not divisible by {factor} ({levels - 1} "
            f"downsamplings): give {', or '.join(found)}"
        )


def _other_sizes(config, facts, factor, build):
    """Yield the flags of neighbouring sizes that data and network both take."""
    for rounded in (math.floor, math.ceil):
        size = tuple(rounded(side / factor) * factor for side in facts.shape[:2])
        changed = config.copy_and_resolve_references()
        changed.data.image_size = size
        shown = size[:1] if size[0] == size[1] else size
        flags = [f"--config.data.image_size={','.join(map(str, shown))}"]
        if changed.data.crop == "none":
            changed.data.crop = "center"
            flags.append("--config.data.crop=center")
        if min(size) and _gives(changed, size):
            shape = (*size, *facts.shape[2:])
            smaller = dataclasses.replace(facts, shape=shape)
            fitting = _with_attention(changed, smaller, build)
            if fitting is not None:
                yield " ".join([*flags, *fitting])


def _gives(config, size):
    """Return whether the data can be had in a size."""
    try:
        found = build_data.dataset(config, "train", say=lambda line: None)
    except errors.Refusal:
        return False
    return tuple(found.shape[:2]) == size


def _fewer_levels(config, facts, build):
    """Return the flags of the largest number of levels that fits, in a list."""
    multiples = tuple(config.model.channel_mult)
    for levels in range(len(multiples) - 1, 0, -1):
        if any(side % 2 ** (levels - 1) for side in facts.shape[:2]):
            continue
        changed = config.copy_and_resolve_references()
        changed.model.channel_mult = multiples[:levels]
        fitting = _with_attention(changed, facts, build)
        if fitting is not None:
            given = ",".join(map(str, multiples[:levels]))
            return [" ".join([f"--config.model.channel_mult={given}", *fitting])]
    return []


def _with_attention(config, facts, build):
    """Return the flags of attention with which a network can be built, else None."""
    asked = tuple(config.model.attention_resolutions)
    levels = range(len(config.model.channel_mult))
    there = [min(facts.shape[:2]) // 2**level for level in levels]
    near = [side for side in there if asked and side <= max(asked)][:1]
    for sides in dict.fromkeys([asked, tuple(near), ()]):
        config.model.attention_resolutions = sides
        try:
            build(config, facts)
        except errors.Refusal:
            continue
        if sides == asked:
            return []
        return [f"--config.model.attention_resolutions={','.join(map(str, sides))}"]
    return None
