"""The bytes of a text: a tokenizer without a vocabulary."""

import dataclasses
from collections.abc import Iterable

from ddpm_jax.text import encoding

BYTES = 256


@dataclasses.dataclass(frozen=True)
class Bytes(encoding.Tokenizer):
    """Every byte of a text in UTF-8 is a token; padding is 256.

    Attributes:
        context: length of encoded texts.
    """

    context: int
    kind = "bytes"
    padding = BYTES
    vocabulary_size = BYTES + 1

    def ids(self, text: str) -> list[int]:
        return list(text.encode("utf-8"))

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text; bytes that are not UTF-8 become U+FFFD."""
        kept = bytes(int(token) for token in tokens if token != self.padding)
        return kept.decode("utf-8", "replace")

    def to_json(self) -> dict:
        return {"kind": self.kind, "context": self.context}
