"""Captions of scenes: true, never of the unseen, and read as people mean them."""

import itertools

import numpy as np
import pytest

from ddpm_jax.core import errors
from ddpm_jax.data import shape_captions as captions
from ddpm_jax.data import shape_scenes as scenes
from ddpm_jax.data import sources
from ddpm_jax.data.shape_scenes import Thing

MANY = 3000
SCENE = (Thing("circle", "red", "big", 1), Thing("square", "blue", "small", 6))
ONE = (Thing("triangle", "purple", "small", 2),)


@pytest.fixture(scope="module")
def written():
    draws = np.random.default_rng(0).random(MANY)
    return {
        split: (
            scenes.drawn(0, split, np.arange(MANY) % 2000),
            sources.load("shapes", split).captions(np.arange(MANY) % 2000, draws),
        )
        for split in scenes.SPLITS
    }


@pytest.mark.parametrize("split", scenes.SPLITS)
def test_captions_are_true(written, split):
    for cells, caption in zip(*written[split], strict=True):
        assert captions.agrees(caption, scenes.scene(cells)), caption


def test_no_training_caption_names_what_is_unseen(written):
    """Looked for in the words themselves, not by our reader."""
    kinds = {"circle": "circle disc", "square": "square box", "cross": "cross plus"}
    kinds |= {"triangle": "triangle"}
    kind_of = {word: kind for kind, words in kinds.items() for word in words.split()}
    colour_of = {colour: colour for colour in scenes.COLOURS} | {"violet": "purple"}
    for split, expected in (("train", False), ("test", False), ("unseen", True)):
        for caption in written[split][1]:
            words = caption.split()
            pairs = {
                (colour_of.get(first), kind_of.get(second))
                for first, second in itertools.pairwise(words)
            }
            named = [kind_of[word] for word in words if word in kind_of]
            if {"below", "under"} & set(words):
                named = named[::-1]
            above = {"above", "below", "over", "under"} & set(words)
            found = bool(pairs & set(scenes.UNSEEN_PAIRS)) or bool(
                above and tuple(named) in scenes.UNSEEN_ABOVE
            )
            assert found == captions.names_unseen(caption) == expected, caption


def test_captions_differ_and_leave_out(written):
    said = written["train"][1]
    read = [captions.read(caption) for caption in said]
    phrases = [phrase for caption in read for phrase in caption.phrases]
    for key, share in (("kind", 0.9), ("colour", 0.85), ("size", 0.5)):
        named = np.mean([getattr(phrase, key) is not None for phrase in phrases])
        assert named == pytest.approx(share, abs=0.03)
    assert {word for caption in said for word in caption.split()} == set(captions.WORDS)
    assert max(len(caption.split()) for caption in said) <= captions.MAX_WORDS
    assert {caption.relation for caption in read} == set(captions.RELATIONS)
    assert {phrase.place for phrase in phrases} == {None, *captions.PLACES}
    assert len(set(said)) > 1500


def test_a_caption_is_a_function_of_index_and_draw():
    dataset = sources.load("shapes", "train")
    alone = dataset.captions([9, 3, 9])
    assert alone == [alone[0], *dataset.captions([3]), alone[0]]
    draws = np.array([0.0, 0.25, 0.999])
    assert dataset.captions([9, 3, 9], draws)[1:] == dataset.captions([3, 9], draws[1:])
    assert len(set(dataset.captions([5] * 50, np.linspace(0, 0.99, 50)))) > 15
    assert len(set(dataset.captions([5] * 50))) == 1
    # As those of the scenes, these never change.
    assert dataset.captions([0, 1]) == [
        "a tiny triangle to the left of a yellow circle",
        "a yellow circle",
    ]


def test_data_without_captions_says_so():
    digits = sources.load("digits", "train")
    assert digits.read_captions is None
    with pytest.raises(errors.Refusal, match="images of 'digits' have no captions: "):
        digits.captions([0])
    with pytest.raises(IndexError, match="index 50000 is outside shapes/train"):
        sources.load("shapes", "train").captions([50_000])


@pytest.mark.parametrize(
    "caption",
    [
        "a red circle above a blue square",
        "a big red circle above a small blue square",
        "A blue square below a red circle.",
        "a circle to the right of a square",
        "the tiny blue box left of a large disc",
        "a red big circle over a square",
        "red circle and blue square",
        "a shape at the top and a square at the bottom left",
        "an object and a thing",
        "a square on the left and a circle",
    ],
)
def test_what_agrees(caption):
    assert captions.agrees(caption, SCENE)


@pytest.mark.parametrize(
    ("caption", "wrong"),
    [
        ("a red circle below a blue square", {"relation"}),
        ("a red circle left of a blue square", {"relation"}),
        ("a green circle above a blue square", {"colour"}),
        ("a small circle above a square", {"size"}),
        ("a triangle above a square", {"kind"}),
        ("a circle", {"number"}),
        ("a white circle", {"number", "colour"}),
        ("a circle at the bottom and a square", {"place"}),
        ("a circle in the middle and a square", {"place"}),
    ],
)
def test_what_does_not_agree(caption, wrong):
    verdict = captions.agreement(caption, SCENE)
    assert {key for key, right in verdict.items() if not right} == wrong


def test_scenes_with_too_few_and_too_many_things():
    assert captions.agreement("a violet triangle at the top right", ONE) == {
        "number": True,
        "kind": True,
        "colour": True,
        "place": True,
    }
    missing = captions.agreement("a triangle above a circle", ONE)
    assert missing == {"number": False, "kind": False, "relation": False}
    assert not any(captions.agreement("a red circle", ()).values())
    crowd = tuple(Thing("circle", "red", "big", cell) for cell in range(9))
    assert captions.agreement("a circle above a circle", crowd) == {
        "number": False,
        "kind": True,
        "relation": True,
    }


@pytest.mark.parametrize(
    ("caption", "message"),
    [
        (
            "a turquoise circle",
            "unknown word 'turquoise' in .*: captions of shapes hav",
        ),
        ("", "'' is no caption of shapes: give one or two shapes, such as 'a big red"),
        ("a red", "'a red' is no caption of shapes"),
        ("circle square", "'circle square' is no caption"),
        ("a circle above", "'a circle above' is no caption"),
        ("a circle and a square and a cross", "is no caption"),
        ("a red blue circle", "is no caption"),
    ],
)
def test_what_cannot_be_read_is_refused(caption, message):
    with pytest.raises(errors.Refusal, match=message):
        captions.read(caption)


def test_the_words_of_the_captions_make_a_tokenizer(written):
    from ddpm_jax.text import tokenizers

    tokenizer = tokenizers.make("words", captions=captions.WORDS, context=16)
    for split in scenes.SPLITS:
        for caption in written[split][1][:100]:
            tokens, _, note = tokenizer.encode(caption)
            assert (tokenizer.decode(tokens), note) == (caption, "")
