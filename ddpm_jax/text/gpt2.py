"""The tokenizer of GPT-2 as GLIDE uses it: 50,257 tokens, lower case."""

import dataclasses
from collections.abc import Iterable

from ddpm_jax.text import encoding, pairs

CONTEXT = 128
END = 50_256


@dataclasses.dataclass(frozen=True)
class GPT2:
    """Byte pairs of lower-cased text; padding is the end token 50,256, masked out.

    Attributes:
        vocabulary: see `pairs.published`.
        context: length of encoded texts.
    """

    vocabulary: pairs.Vocabulary = dataclasses.field(repr=False, compare=False)
    context: int = CONTEXT
    kind = "gpt2"
    padding = END
    vocabulary_size = END + 1

    def __post_init__(self):
        encoding.check_context(self.context)

    @property
    def fingerprint(self) -> str:
        return encoding.fingerprint(self.to_json())

    def encode(self, text: str) -> encoding.Encoded:
        encoding.check_text(text)
        ids = self.vocabulary.encode(text.lower())
        return encoding.padded(ids, self.context, self.padding, text)

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text; bytes that are not UTF-8 become U+FFFD."""
        pieces = self.vocabulary.pieces
        kept = b"".join(pieces[int(t)] for t in tokens if t != self.padding)
        return kept.decode("utf-8", "replace")

    def to_json(self) -> dict:
        return {
            "kind": self.kind,
            "context": self.context,
            "sha256": dict(pairs.SHA256),
        }
