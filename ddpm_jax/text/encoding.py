"""What every tokenizer gives, and the steps that all of them take."""

import abc
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ddpm_jax.core import errors

MAX_CHARACTERS = 100_000  # longer is no prompt, but a file in its place


class Encoded(NamedTuple):
    """A text as a network takes it.

    Attributes:
        tokens: int32 [L], the text's tokens and then padding.
        mask: bool [L], True where a token is of the text.
        note: "" where the whole text is in the tokens, else a sentence that says how
            much of it is not, all of it perhaps; whoever encodes shows it.
    """

    tokens: np.ndarray
    mask: np.ndarray
    note: str


class Tokenizer(abc.ABC):
    """Turns texts into integers; an immutable value, equal to what `to_json` restores.

    Attributes:
        kind: a key of `tokenizers.KINDS`.
        context: length L of what `encode` returns.
        vocabulary_size: tokens are 0 … vocabulary_size - 1, padding among them.
        padding: the token after the last one of a text.
    """

    kind: str
    context: int
    vocabulary_size: int
    padding: int

    def __post_init__(self):
        check_context(self.context)

    @property
    def fingerprint(self) -> str:
        """A hex string that changes with the tokens of any text."""
        return fingerprint(self.to_json())

    def encode(self, text: str) -> Encoded:
        """Return the tokens of a text.

        A text that has more than L tokens loses its end, and the note says so. The
        empty text is all padding.

        Raises:
            Refusal: the text cannot be expressed in the vocabulary, is no Unicode text
                or has more than `MAX_CHARACTERS` characters.
        """
        check_text(text)
        return padded(self.ids(text), self.context, self.padding, text)

    @abc.abstractmethod
    def ids(self, text: str) -> list[int]:
        """Return all tokens of a text."""

    @abc.abstractmethod
    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of tokens, padding left out."""

    @abc.abstractmethod
    def to_json(self) -> dict:
        """Return what `tokenizers.from_json` makes this tokenizer from."""


def encode_all(tokenizer: Tokenizer, texts: Sequence[str]):
    """Return (tokens int32 [n, L], mask bool [n, L], the notes that are not empty)."""
    shape = (len(texts), tokenizer.context)
    tokens, mask = np.empty(shape, np.int32), np.empty(shape, np.bool_)
    notes = []
    for row, text in enumerate(texts):
        tokens[row], mask[row], note = tokenizer.encode(text)
        notes += [note] if note else []
    return tokens, mask, tuple(notes)


def padded(ids: Sequence[int], context: int, padding: int, text: str) -> Encoded:
    """Return tokens of a text, filled up or cut to the context."""
    tokens = np.full(context, padding, np.int32)
    kept = ids[:context]
    tokens[: len(kept)] = kept
    note = ""
    if len(ids) > context:
        note = (
            f"{shortened(text)} has {len(ids):,} of {context} tokens: what follows the "
            f"first {context} is left out"
        )
    elif not ids and text.strip():
        note = f"{shortened(text)} holds nothing that becomes a token: it is no text"
    return Encoded(tokens, np.arange(context) < len(kept), note)


def cut(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[str, ...]:
    """Return the notes on those of some texts that lose their end."""
    found = map(tokenizer.encode, texts)
    return tuple(made.note for made in found if made.note and made.mask.any())


def check_text(text: str) -> None:
    """Refuse what no tokenizer can encode."""
    if len(text) > MAX_CHARACTERS:
        raise errors.Refusal(
            f"the text {shortened(text)} has {len(text):,} characters: give a prompt "
            f"of at most {MAX_CHARACTERS:,}"
        )
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise errors.Refusal(
            f"the text {shortened(text)} holds {text[error.start]!r}, which is no "
            "character: give the text in UTF-8"
        ) from None


def check_context(context: int) -> None:
    """Refuse a context that is no positive integer."""
    if isinstance(context, bool) or not isinstance(context, int) or context < 1:
        raise errors.Refusal(
            f"a context of {context!r} tokens is none: give a positive integer, for "
            "example 128"
        )


def fingerprint(record: Mapping) -> str:
    """Return a hex string that changes with what `to_json` returned."""
    described = json.dumps(record, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(described.encode()).hexdigest()


def shortened(text: str, limit: int = 60) -> str:
    """Return a text in quotes, its end left out where it is long."""
    return repr(text if len(text) <= limit else f"{text[: limit - 1]}…")
