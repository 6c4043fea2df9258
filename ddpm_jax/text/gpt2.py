"""The tokenizer of GPT-2 as GLIDE uses it: 50,257 tokens, lower case."""

import dataclasses
from collections.abc import Iterable

from ddpm_jax.text import encoding, pairs

CONTEXT = 128
END = 50_256


@dataclasses.dataclass(frozen=True)
class GPT2(encoding.Tokenizer):
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

    def ids(self, text: str) -> list[int]:
        return self.vocabulary.encode(text.lower())

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
