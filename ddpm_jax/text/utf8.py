"""The bytes of a text: a tokenizer without a vocabulary."""

import dataclasses
from collections.abc import Iterable

from ddpm_jax.text import encoding

BYTES = 256


@dataclasses.dataclass(frozen=True)
class Bytes:
    """Every byte of a text in UTF-8 is a token; padding is 256.

    Attributes:
        context: length of encoded texts.
    """

    context: int
    kind = "bytes"
    padding = BYTES
    vocabulary_size = BYTES + 1

    def __post_init__(self):
        encoding.check_context(self.context)

    @property
    def fingerprint(self) -> str:
        return encoding.fingerprint(self.to_json())

    def encode(self, text: str) -> encoding.Encoded:
        encoding.check_text(text)
        ids = list(text.encode("utf-8"))
        return encoding.padded(ids, self.context, self.padding, text)

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text; bytes that are not UTF-8 become U+FFFD."""
        kept = bytes(int(token) for token in tokens if token != self.padding)
        return kept.decode("utf-8", "replace")

    def to_json(self) -> dict:
        return {"kind": self.kind, "context": self.context}
