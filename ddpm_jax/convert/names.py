"""Names of one U-Net's modules in another code, from tables.

Every code nests the same parts: levels of residual blocks with their attentions, and
what resamples between them. They number them differently; a template says how.
"""

import dataclasses
import math
from collections.abc import Mapping

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Names:
    """How a code names modules.

    Attributes:
        separator: between the parts of a name.
        outside: modules beside the levels, by our path.
        places: templates for "down/blocks", "down/attentions", "down/resample", those
            of "up" and "middle/block_1", "middle/attention", "middle/block_2". They may
            use {level} and {i}; {upward}, the level counted from the deepest; {number},
            the block counted from the first of the encoder or decoder; {slot}, the
            place after a block and its attention.
        parts: of blocks and attentions, by our name; the others keep theirs.
    """

    separator: str
    outside: Mapping[str, str]
    places: Mapping[str, str]
    parts: Mapping[str, str]

    def module(self, module: str, layout: "Layout") -> str:
        """Return the name of one of our modules, e.g. "down/0/blocks/1/conv_1".

        Raises:
            ValueError: this code has no such module, a defect of ours.
        """
        if module in self.outside:
            return self.outside[module]
        *place, part = module.split("/")
        kind, numbers = layout.place(place)
        if kind not in self.places:
            raise ValueError(f"no name for {module!r}")
        within = self.parts.get(part, part)
        if isinstance(within, Mapping):
            within = within[kind]
        name = self.places[kind].format(**numbers)
        return f"{name}{self.separator}{within}" if within else name


@dataclasses.dataclass(frozen=True)
class Layout:
    """The levels of a network.

    Attributes:
        levels: how many.
        blocks: residual blocks of an encoder level; the decoder's have one more.
        attended: the levels with attention.
    """

    levels: int
    blocks: int
    attended: frozenset[int]

    @classmethod
    def of(cls, our_shapes: Mapping[str, Shape]) -> "Layout":
        """Return the layout that parameter paths tell."""
        down = [p.split("/") for p in our_shapes if p.startswith("down/")]
        return cls(
            levels=1 + max(int(parts[1]) for parts in down),
            blocks=1 + max(int(parts[3]) for parts in down if parts[2] == "blocks"),
            attended=frozenset(int(p[1]) for p in down if p[2] == "attentions"),
        )

    def place(self, place: list[str]) -> tuple[str, dict[str, int]]:
        """Return the kind of a place, e.g. "down/blocks", and the numbers in it."""
        if place[0] not in ("down", "up"):
            return "/".join(place), {}
        way, level, kind = place[0], int(place[1]), place[2]
        stride = self.blocks + 1
        i = int(place[3]) if len(place) > 3 else self.blocks
        upward = self.levels - 1 - level
        numbers = {
            "level": level,
            "i": i,
            "upward": upward,
            "number": 1 + level * stride + i if way == "down" else upward * stride + i,
            "slot": 2 if level in self.attended else 1,
        }
        return f"{way}/{kind}", numbers


def multiple(width: int, channels: int) -> int | float:
    """Return the entry m of channel_mult for which int(m · channels) is `width`."""
    if width % channels == 0:
        return width // channels
    ratio = width / channels
    return ratio if int(ratio * channels) == width else math.nextafter(ratio, math.inf)
