"""The words of a run's own captions, one token each."""

import dataclasses
import difflib
import functools
import re
import unicodedata
from collections.abc import Iterable

from ddpm_jax.core import errors
from ddpm_jax.text import encoding

WORD = re.compile(r"\w+(?:['’]\w+)*")
SHOWN = 24  # words that a refusal lists
NEAR = 3  # of them, those that look like the unknown one


@dataclasses.dataclass(frozen=True)
class Words(encoding.Tokenizer):
    """Word i of the vocabulary is token i; padding is the token after the last.

    Case and punctuation do not count. A word that is not in the vocabulary is refused:
    the network has never seen it.

    Attributes:
        words: the vocabulary, lower-case, each word once.
        context: length of encoded texts.
    """

    words: tuple[str, ...]
    context: int
    kind = "words"

    def __post_init__(self):
        super().__post_init__()
        for word in self.words:
            if split(word) != [word]:
                raise errors.Refusal(
                    f"{word!r} of the vocabulary is no word: give lower-case words "
                    "without blanks and punctuation"
                )
        if not self.words or len(set(self.words)) < len(self.words):
            raise errors.Refusal(
                f"a vocabulary of {len(self.words)} words, {len(set(self.words))} of "
                "them different, is none: give at least one word, and each once"
            )

    @property
    def vocabulary_size(self) -> int:
        return len(self.words) + 1

    @property
    def padding(self) -> int:
        return len(self.words)

    def ids(self, text: str) -> list[int]:
        unknown = self.unknown(text)
        if unknown:
            raise errors.Refusal(self._refusal(unknown))
        return [self._ids[word] for word in split(text)]

    def decode(self, tokens: Iterable[int]) -> str:
        return " ".join(
            self.words[int(token)] for token in tokens if token != self.padding
        )

    def unknown(self, text: str) -> tuple[str, ...]:
        """Return the words of a text that the vocabulary lacks, each once."""
        return tuple(dict.fromkeys(w for w in split(text) if w not in self._ids))

    def to_json(self) -> dict:
        return {"kind": self.kind, "context": self.context, "words": list(self.words)}

    @functools.cached_property
    def _ids(self):
        return {word: number for number, word in enumerate(self.words)}

    def _refusal(self, unknown):
        near = [
            known
            for word in unknown
            for known in difflib.get_close_matches(word, self.words, NEAR)
        ]
        ordered = list(dict.fromkeys([*near, *self.words]))
        more = len(ordered) - SHOWN
        shown = ", ".join(ordered[:SHOWN]) + (f" and {more:,} more" if more > 0 else "")
        named = ", ".join(repr(word) for word in unknown[:SHOWN])
        word = "word" if len(unknown) == 1 else "words"
        return f"unknown {word} {named}: this run knows {shown}"


def from_captions(captions: Iterable[str], context: int | None = None) -> Words:
    """Return the tokenizer of all words of some captions, in alphabetical order.

    Args:
        captions: texts.
        context: length of encoded texts; None is that of the longest caption.

    Raises:
        Refusal: there is no word in the captions.
    """
    words, longest = set(), 1
    for caption in captions:
        found = split(caption)
        words.update(found)
        longest = max(longest, len(found))
    if not words:
        raise errors.Refusal(
            "the captions have no word between them: give captions with words, or "
            "choose the tokenizer bytes"
        )
    return Words(tuple(sorted(words)), longest if context is None else context)


def split(text: str) -> list[str]:
    """Return the lower-case words of a text in one spelling of accents (NFC)."""
    return WORD.findall(unicodedata.normalize("NFC", text.lower()))
