"""The tokenizer of CLIP: byte pairs whose last character marks the end of a word.

`bpe_simple_vocab_16e6.txt.gz` lists pairs of printable characters that are merged, the
earliest first. Tokens are numbered: characters, characters that end a word, merges, the
start and the end of a text.

References: CLIP (Radford et al. 2021), published code; GLIDE uses the same.
"""

import dataclasses
import functools
import gzip
import hashlib
import html
import importlib.util
import pathlib
import re
import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np

from ddpm_jax.core import errors
from ddpm_jax.text import encoding, pairs

FILE = "bpe_simple_vocab_16e6.txt.gz"
SHA256 = "67603cfda2e032ad77b5f8808af37789d590db664b26df8705d2bf8b3c553fc8"
"""Of what is packed in the file, the same in CLIP, GLIDE and open_clip."""

PACKAGE = "open_clip"  # installs the same file; nothing of it is imported
INSTALL = "pip install --no-deps open-clip-torch"
MERGES = 48_894  # of the file's lines that are used, behind the first
END_OF_WORD = "</w>"

# As `pairs.PIECE`, but white space belongs to no piece and digits stand alone.
PIECE = re.compile(r"L+|N|O+|[ S]+")
STRAIGHT = str.maketrans(
    dict.fromkeys("\u2018\u2019\u201a\u201b", "'")
    | dict.fromkeys("\u201c\u201d\u201e\u201f", '"')
)


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Tokens and merges.

    Attributes:
        ids: part of a word → token.
        ranks: pair of parts → place in the order of merges.
    """

    ids: Mapping[str, int]
    ranks: Mapping[tuple[str, str], int]

    @property
    def start(self) -> int:
        """The token of the start of a text; that of its end is the next one."""
        return len(self.ids)

    @property
    def end(self) -> int:
        """The token of the end of a text."""
        return len(self.ids) + 1

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text, without those of start and end.

        Raises:
            Refusal: the text is none, or far too long.
        """
        encoding.check_text(text)
        printed = pairs.printed()
        found = []
        for piece in split(cleaned(text)):
            characters = [printed[byte] for byte in piece.encode("utf-8")]
            characters[-1] += END_OF_WORD
            found += [self.ids[part] for part in pairs.joined(characters, self.ranks)]
        return found


def batch(vocabulary: Vocabulary, texts: Sequence[str], context: int):
    """Return (tokens int32 [n, L], lengths int32 [n], notes on texts too long).

    A text stands between the tokens of start and end, and zeros follow.

    Args:
        vocabulary: from `published`.
        texts: n of them.
        context: L.

    Raises:
        Refusal: as `Vocabulary.encode`.
    """
    tokens = np.zeros((len(texts), context), np.int32)
    lengths, notes = np.zeros(len(texts), np.int32), []
    for row, text in enumerate(texts):
        ids = vocabulary.encode(text)
        kept = [vocabulary.start, *ids[: context - 2], vocabulary.end]
        tokens[row, : len(kept)], lengths[row] = kept, len(kept)
        if len(ids) > context - 2:
            notes.append(
                f"{encoding.shortened(text)} has {len(ids):,} of CLIP's {context - 2} "
                f"tokens: what follows the first {context - 2} is left out"
            )
    return tokens, lengths, tuple(notes)


def cleaned(text: str) -> str:
    """Return a text as CLIP reads it: entities resolved, quotes straight, lower case.

    The published code also repairs text that was decoded wrongly (ftfy); that is left
    to who writes the text.
    """
    text = html.unescape(html.unescape(text)).translate(STRAIGHT)
    return " ".join(unicodedata.normalize("NFC", text).split()).lower()


def split(text: str) -> list[str]:
    """Cut a text into the pieces that no token crosses, white space left out."""
    named = pairs.classes(text)
    pieces, at = [], 0
    while at < len(text):
        end = pairs.end_of_contraction(text, at) or PIECE.match(named, at).end()
        if named[at] not in " S":
            pieces.append(text[at:end])
        at = end
    return pieces


def of_merges(merges: Sequence[tuple[str, str]]) -> Vocabulary:
    """Return the vocabulary that a list of merges makes."""
    characters = list(pairs.printed().values())
    parts = [
        *characters,
        *(character + END_OF_WORD for character in characters),
        *("".join(pair) for pair in merges),
    ]
    return Vocabulary(
        ids={part: number for number, part in enumerate(parts)},
        ranks={pair: rank for rank, pair in enumerate(merges)},
    )


@functools.lru_cache(maxsize=2)
def published(path: str = "") -> Vocabulary:
    """Return the vocabulary of CLIP, 49,408 tokens with start and end.

    Args:
        path: the published file, packed or not, or its folder; "" takes that of the
            installed package open-clip-torch.

    Raises:
        Refusal: the file is not there or is not the published one.
    """
    lines = _checked(_place(path)).decode("utf-8").split("\n")[1 : 1 + MERGES]
    return of_merges([tuple(line.split()) for line in lines])


def _place(path):
    if not path:
        spec = importlib.util.find_spec(PACKAGE)
        if spec is None:
            raise errors.Refusal(
                f"the vocabulary of CLIP is not here: give the path of {FILE} as "
                f"data.vocabulary of the run with CLIP, or {INSTALL}"
            )
        return pathlib.Path(spec.submodule_search_locations[0], FILE)
    given = pathlib.Path(path)
    return given / FILE if given.is_dir() else given


def _checked(path):
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError) as error:
        raise errors.Refusal(
            f"{str(path)!r} cannot be read ({error}): give the path of {FILE} of CLIP "
            f"as data.vocabulary, or {INSTALL}"
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise errors.Refusal(
            f"{str(path)!r} is not the published {FILE} (its content has the SHA-256 "
            f"{found[:12]}…, not {SHA256[:12]}…): give the file that CLIP and GLIDE "
            f"have, or {INSTALL} and leave data.vocabulary empty"
        )
    return content
