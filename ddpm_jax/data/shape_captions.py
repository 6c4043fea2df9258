"""Captions of scenes: written with synonyms, not always complete, and read back.

    caption  = phrase | phrase relation phrase | phrase "and" phrase
    phrase   = "a" [size] [colour] noun [place]

"above" means a higher row, "left of" a column further left, whatever else holds; a
place such as "at the top" is a row, a column, or a cell where it names both.
"""

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from ddpm_jax.core import errors
from ddpm_jax.data import shape_scenes as scenes

# What stands first is written as often as all others together.
NOUNS = {
    "circle": ("circle", "disc"),
    "square": ("square", "box"),
    "triangle": ("triangle",),
    "cross": ("cross", "plus"),
    None: ("shape", "object", "thing"),
}
COLOURS = {colour: (colour,) for colour in scenes.COLOURS} | {
    "purple": ("purple", "violet")
}
SIZES = {"big": ("big", "large"), "small": ("small", "little", "tiny")}
RELATIONS = {
    "above": ("above", "over"),
    "below": ("below", "under"),
    "left": ("left of", "to the left of"),
    "right": ("right of", "to the right of"),
    None: ("and",),
}
# (row or None, column or None) → how it is said.
PLACES = {
    (0, 0): ("at the top left",),
    (0, None): ("at the top",),
    (0, 2): ("at the top right",),
    (None, 0): ("on the left",),
    (1, 1): ("in the middle", "in the center"),
    (None, 2): ("on the right",),
    (2, 0): ("at the bottom left",),
    (2, None): ("at the bottom",),
    (2, 2): ("at the bottom right",),
}
ARTICLES = ("a", "an", "the")
WORDS = tuple(
    sorted(
        {
            word
            for table in (NOUNS, COLOURS, SIZES, RELATIONS, PLACES)
            for said in itertools.chain(*table.values())
            for word in said.split()
        }
        | {"a", "an"}
    )
)
MAX_WORDS = 12  # of a caption that is written here

# Share of the things whose attribute is named, and of the captions that tell more.
NAMED = {"kind": 0.9, "colour": 0.85, "size": 0.5}
WITH_PLACE = 0.6  # of the scenes with one thing
WITH_RELATION = 0.85  # of those with two
DRAWS = 20  # random numbers that a caption takes at most


class Phrase(NamedTuple):
    """What is said of one thing; None is not said."""

    kind: str | None = None
    colour: str | None = None
    size: str | None = None
    place: tuple[int | None, int | None] | None = None


class Caption(NamedTuple):
    """What a caption says.

    Attributes:
        phrases: one or two.
        relation: of the first to the second, a key of `RELATIONS`, or None.
    """

    phrases: tuple[Phrase, ...]
    relation: str | None = None


def write(scene: scenes.Scene, draws: np.ndarray, complete: bool = False) -> str:
    """Return a caption that is true of a scene.

    Args:
        scene: of one or two things.
        draws: `DRAWS` numbers in [0, 1), which choose among all captions.
        complete: name the kind and colour of everything, and if the scene has a kind
            above another that training never shows, that relation.
    """
    draw = iter(draws)
    named = {**NAMED, "kind": 1, "colour": 1} if complete else NAMED
    things = scene[::-1] if next(draw) < 0.5 else scene
    places = _places(things[0]) if len(things) == 1 else []
    place = _one(places, draw) if next(draw) < WITH_PLACE and places else None
    phrases = [
        " ".join([_phrase(thing, named, draw), *([place] if place else [])])
        for thing in things
    ]
    if len(things) == 1:
        return phrases[0]
    true = [r for r in RELATIONS if r and holds(r, *things)]
    if complete and scenes.is_unseen_above(scene):
        true = [r for r in true if r in ("above", "below")]
    elif next(draw) >= WITH_RELATION:
        true = [None]
    relation = _said(RELATIONS[_one(true, draw)], draw)
    return f"{phrases[0]} {relation} {phrases[1]}"


def read(caption: str) -> Caption:
    """Return what a caption says, whatever its case and punctuation.

    Raises:
        Refusal: a word that captions of shapes do not have, or words in an order that
            says nothing.
    """
    words = re.findall(r"[^\W_]+", caption.lower())
    for word in words:
        if word not in WORDS and word not in ARTICLES:
            raise errors.Refusal(
                f"unknown word {word!r} in {caption!r}: captions of shapes have "
                f"{', '.join(WORDS)}"
            )
    first, rest = _read_phrase(words)
    if not rest and first is not None:
        return Caption((first,))
    relation, behind = _read(RELATIONS, rest)
    second, end = _read_phrase(behind)
    if first is None or behind is rest or second is None or end:
        raise errors.Refusal(
            f"{caption!r} is no caption of shapes: give one or two shapes, such as "
            "'a big red circle above a blue square'"
        )
    return Caption((first, second), relation)


def agreement(caption: Caption | str, scene: scenes.Scene) -> dict[str, bool]:
    """Return which attributes that a caption names a scene has.

    Phrases and things are matched in the way that agrees best; things that no phrase
    is left for are a wrong number.

    Returns:
        by "number", and of "kind", "colour", "size", "place" and "relation" those that
        the caption names.

    Raises:
        Refusal: as `read`, where the caption is a text.
    """
    said = read(caption) if isinstance(caption, str) else caption
    things = [*scene, *[None] * (len(said.phrases) - len(scene))]
    verdicts = [
        _verdict(said, matched)
        for matched in itertools.permutations(things, len(said.phrases))
    ]
    best = max(verdicts, key=lambda verdict: sum(verdict.values()))
    return {"number": len(scene) == len(said.phrases), **best}


def agrees(caption: Caption | str, scene: scenes.Scene) -> bool:
    """Return whether a scene has all that a caption names, and nothing besides."""
    return all(agreement(caption, scene).values())


def names_unseen(caption: Caption | str) -> bool:
    """Return whether a caption names what training never shows, nor says."""
    said = read(caption) if isinstance(caption, str) else caption
    kinds = tuple(phrase.kind for phrase in said.phrases)
    kinds = kinds[::-1] if said.relation == "below" else kinds
    is_vertical = said.relation in ("above", "below")
    return (is_vertical and kinds in scenes.UNSEEN_ABOVE) or any(
        (phrase.colour, phrase.kind) in scenes.UNSEEN_PAIRS for phrase in said.phrases
    )


def holds(relation: str, first: scenes.Thing, second: scenes.Thing) -> bool:
    """Return whether the first thing is above, below, left or right of the second."""
    rows, columns = first.row - second.row, first.column - second.column
    return {
        "above": rows < 0,
        "below": rows > 0,
        "left": columns < 0,
        "right": columns > 0,
    }[relation]


def _phrase(thing, named, draw):
    size, colour, kind = (
        getattr(thing, key) if next(draw) < named[key] else None
        for key in ("size", "colour", "kind")
    )
    words = [_said(SIZES[size], draw)] if size else []
    words += [_said(COLOURS[colour], draw)] if colour else []
    words += [_said(NOUNS[kind], draw)]
    return " ".join(["an" if words[0][0] in "aeiou" else "a", *words])


def _places(thing):
    here = [place for place in PLACES if _is_at(thing, place)]
    return [said for place in here for said in PLACES[place]]


def _is_at(thing, place):
    row, column = place
    return row in (None, thing.row) and column in (None, thing.column)


def _said(synonyms: tuple[str, ...], draw: Iterator[float]) -> str:
    chosen = next(draw)
    if chosen < 0.5:
        return synonyms[0]
    others = synonyms[1:] or synonyms
    return others[int((2 * chosen - 1) * len(others))]


def _one(choices: list, draw: Iterator[float]):
    return choices[int(next(draw) * len(choices))]


def _read_phrase(words):
    """Return (phrase, the words behind it); the phrase is None where there is none."""
    if words and words[0] in ARTICLES:
        words = words[1:]
    said = {}
    for _ in range(2):  # size and colour, in either order
        for key, table in (("size", SIZES), ("colour", COLOURS)):
            found, rest = _read(table, words)
            if found is not None and key not in said:
                said[key], words = found, rest
    kind, rest = _read(NOUNS, words)
    if rest is words:
        return None, words
    place, rest = _read(PLACES, rest)
    return Phrase(kind=kind, place=place, **said), rest


def _read(table: Mapping, words: list[str]):
    """Return (key, the words behind what it stands for); the same list if nothing."""
    matches = [
        (len(parts), key)
        for key, synonyms in table.items()
        for parts in map(str.split, synonyms)
        if words[: len(parts)] == parts
    ]
    if not matches:
        return None, words
    length, key = max(matches, key=lambda match: match[0])
    return key, words[length:]


def _verdict(said, matched):
    verdict = {}
    for phrase, thing in zip(said.phrases, matched, strict=True):
        for key, value in phrase._asdict().items():
            if value is None:
                continue
            if key == "place":
                right = thing is not None and _is_at(thing, value)
            else:
                right = getattr(thing, key, None) == value
            verdict[key] = verdict.get(key, True) and right
    if said.relation:
        verdict["relation"] = None not in matched and holds(said.relation, *matched)
    return verdict
