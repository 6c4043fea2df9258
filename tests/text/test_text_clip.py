"""CLIP's tokens: numbered as published, merged as learned, framed by start and end."""

import gzip
import importlib.util

import numpy as np
import pytest

from ddpm_jax.core import errors
from ddpm_jax.text import clip

# Characters come first, in the order of the printable ones: "!" is 0, "a" is 64; then
# the same at the end of a word, from 256 on; then merges, from 512 on.
A, B, W = (ord(letter) - ord("!") for letter in "abw")
LAST = 256
MERGES = [("l", "o"), ("lo", "w</w>"), ("a", "b</w>")]
LO, LOW, AB = 512, 513, 514


@pytest.fixture(scope="module")
def vocabulary():
    return clip.of_merges(MERGES)


def test_tokens_of_a_small_vocabulary(vocabulary):
    assert (vocabulary.start, vocabulary.end) == (515, 516)
    assert vocabulary.encode("low ab") == [LOW, AB]
    assert vocabulary.encode("lowab") == [LO, W, AB]
    assert vocabulary.encode("  Low\n") == [LOW]
    assert vocabulary.encode("ba a") == [B, A + LAST, A + LAST]
    assert vocabulary.encode("") == []


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("a dog's 123 cats!?", ["a", "dog", "'s", "1", "2", "3", "cats", "!?"]),
        ("it&amp;#39;s &lt;b&gt;", ["it", "'s", "<", "b", ">"]),
        ("“quoted”  ‘text’", ['"', "quoted", '"', "'t", "ext", "'"]),
        ("cafe\u0301", ["café"]),
    ],
)
def test_texts_are_cleaned_and_cut_as_published(text, pieces):
    assert clip.split(clip.cleaned(text)) == pieces


def test_a_batch_is_framed_padded_by_zeros_and_cut_with_a_note(vocabulary):
    tokens, lengths, notes = clip.batch(vocabulary, ["low", "", "ab ab ab ab"], 5)
    np.testing.assert_array_equal(
        tokens,
        [[515, LOW, 516, 0, 0], [515, 516, 0, 0, 0], [515, AB, AB, AB, 516]],
    )
    assert lengths.tolist() == [3, 2, 5]
    (note,) = notes
    assert note.startswith("'ab ab ab ab' has 4 of CLIP's 3 tokens")


def test_files_that_are_not_the_published_one_are_refused(tmp_path, monkeypatch):
    with pytest.raises(errors.Refusal, match="cannot be read"):
        clip.published(str(tmp_path))
    other = tmp_path / clip.FILE
    other.write_bytes(gzip.compress(b"#version: 0.2\na b\n"))
    with pytest.raises(errors.Refusal, match="is not the published bpe_simple_vocab"):
        clip.published(str(tmp_path))
    other.write_bytes(gzip.compress(b"#version: 0.2\na b\n")[:-9])
    with pytest.raises(errors.Refusal, match="cannot be read"):
        clip.published(str(other))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(errors.Refusal, match="the vocabulary of CLIP is not here"):
        clip.published("")


@pytest.mark.skipif(
    importlib.util.find_spec(clip.PACKAGE) is None, reason="needs open-clip-torch"
)
def test_tokens_of_the_published_vocabulary():
    """As the readme of CLIP and its notebooks print them."""
    vocabulary = clip.published()
    assert (vocabulary.start, vocabulary.end) == (49_406, 49_407)
    assert vocabulary.encode("a diagram") == [320, 22_697]
    assert vocabulary.encode("a photo of a cat") == [320, 1125, 539, 320, 2368]
