"""How well images show what their captions say, counted by an exact reader.

Images are those of shapes: the scene in one is read without error
(`data.shape_pictures`), so that every number here is a count.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ddpm_jax.data import shape_captions as captions_lib
from ddpm_jax.data import shape_pictures as pictures
from ddpm_jax.data import shape_scenes as scenes

Z_95 = 1.959964  # quantile of the normal distribution for an interval of 95 %
BY_NUMBER = {1: "one_object", 2: "two_objects"}  # phrases of a caption


class Share(NamedTuple):
    """A share with Wilson's interval of 95 %.

    Attributes:
        share: of `count`; None where nothing was counted.
        low, high: ends of the interval.
        count: how many were read.
    """

    share: float | None
    low: float
    high: float
    count: int


def wilson(hits: int, count: int) -> Share:
    """Return a share with its score interval (Wilson 1927)."""
    if not count:
        return Share(None, 0.0, 1.0, 0)
    share, weight = hits / count, Z_95**2 / count
    middle = (share + weight / 2) / (1 + weight)
    half = math.sqrt(share * (1 - share) * weight + weight**2 / 4) / (1 + weight)
    return Share(share, max(0.0, middle - half), min(1.0, middle + half), count)


@dataclasses.dataclass(frozen=True)
class Agreement:
    """What images of captions show.

    Attributes:
        whole: images that show all that their caption says, and nothing besides.
        by_number: the same by the number of objects in the caption, see `BY_NUMBER`.
        by_attribute: of the captions that name it, how many images show it: "number",
            "kind", "colour", "size", "place", "relation".
        distance: mean root mean square between an image and the picture of the scene
            read in it, in grey levels of 256; large where images show no scene.
    """

    whole: Share
    by_number: dict[str, Share]
    by_attribute: dict[str, Share]
    distance: float

    def to_dict(self) -> dict:
        """Return the same for a card."""
        return {
            "whole": self.whole._asdict(),
            "by_number": {k: v._asdict() for k, v in self.by_number.items()},
            "by_attribute": {k: v._asdict() for k, v in self.by_attribute.items()},
            "distance_in_levels": self.distance,
        }


def agreement(captions: Sequence[str], images: np.ndarray) -> Agreement:
    """Return how well images show what their captions say.

    Args:
        captions: n texts of shapes.
        images: uint8 [n, side, side, 3], or float in [−1, 1].

    Raises:
        Refusal: a caption that is none of shapes.
    """
    reading = pictures.read(images)
    said = [captions_lib.read(caption) for caption in captions]
    verdicts = [
        captions_lib.agreement(caption, scenes.scene(cells))
        for caption, cells in zip(said, reading.cells, strict=True)
    ]
    right = np.array([all(verdict.values()) for verdict in verdicts])
    number = np.array([len(caption.phrases) for caption in said])
    names = dict.fromkeys(name for verdict in verdicts for name in verdict)
    return Agreement(
        whole=_share(right),
        by_number={
            name: _share(right[number == count]) for count, name in BY_NUMBER.items()
        },
        by_attribute={
            name: _share([v[name] for v in verdicts if name in v]) for name in names
        },
        distance=float(reading.distance.mean()),
    )


class Swapped(NamedTuple):
    """Two captions that differ in the colour of one object."""

    before: str
    after: str


def swaps(captions: Sequence[str], seed: int = 0) -> list[Swapped]:
    """Return the captions that name a colour, and each with another one in its place.

    No new caption names a combination that training never shows.

    Args:
        captions: of shapes.
        seed: of the new colours.
    """
    found = []
    for number, caption in enumerate(captions):
        words = caption.split()
        places = [k for k, word in enumerate(words) if word in captions_lib.COLOURS]
        draws = scenes.uniform(2, seed, number)[0]
        changed = [
            new
            for place in places[:1]
            for colour in scenes.COLOURS
            if colour != words[place]
            and not captions_lib.names_unseen(
                new := _with_article([*words[:place], colour, *words[place + 1 :]])
            )
        ]
        if changed:
            found.append(Swapped(caption, changed[int(draws[0] * len(changed))]))
    return found


def swap_effect(pairs: Sequence[Swapped], before: np.ndarray, after: np.ndarray):
    """Return what changing one colour of a caption changes in its image.

    Args:
        pairs: n of them.
        before, after: uint8 [n, side, side, 3], made of the two captions with the same
            noise.

    Returns:
        {"asked": share of the second images that show all their caption says,
        "stayed": of the pairs whose images both do, the share in which nothing but one
        colour differs, "both": the share of those pairs}.
    """
    scene = [
        [scenes.scene(cells) for cells in pictures.read(images).cells]
        for images in (before, after)
    ]
    asked, both, stayed = [], [], []
    for pair, one, other in zip(pairs, *scene, strict=True):
        is_right = captions_lib.agrees(pair.after, other)
        asked.append(is_right)
        both.append(is_right and captions_lib.agrees(pair.before, one))
        if both[-1]:
            stayed.append(_differ_in_one_colour(one, other))
    return {"asked": _share(asked), "both": _share(both), "stayed": _share(stayed)}


def _differ_in_one_colour(one, other):
    if len(one) != len(other):
        return False
    alike = [
        a._replace(colour="") == b._replace(colour="")
        for a, b in zip(one, other, strict=True)
    ]
    changed = [a.colour != b.colour for a, b in zip(one, other, strict=True)]
    return all(alike) and sum(changed) == 1


def _with_article(words):
    """Return words as a text, with "a" or "an" as the next word wants it."""
    following = [*words[1:], ""]
    return " ".join(
        ("an" if after[:1] in set("aeiou") else "a") if word in ("a", "an") else word
        for word, after in zip(words, following, strict=True)
    )


def _share(hits) -> Share:
    return wilson(int(np.sum(hits)), len(hits))
