"""Captions of images: kept in little memory, and chosen among where there are several.

`captions_files` reads them from files beside images, `captions_tables` from tables,
`captions_classes` makes them of the names of classes.
"""

import array
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from ddpm_jax.core import errors

MAX_CHARACTERS = 10_000  # of a caption; longer is a file in its place
MAX_BYTES = 1_000_000  # of a file of captions beside an image
LINE = re.compile("\r\n|\r|\n")  # str.splitlines knows more, some of them in texts
BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff")  # of UTF-16
SHOWN = 40  # characters of a caption in a refusal


class Captions:
    """The captions of n images, any number of each.

    All texts lie in one block of bytes: a million captions of 60 characters take 76 MB,
    and strings would take 200.

    Args:
        texts: of each image.
    """

    def __init__(self, texts: Iterable[Sequence[str]]):
        block, ends, first = bytearray(), array.array("q", [0]), array.array("q", [0])
        for of_image in texts:
            for text in of_image:
                block += text.encode()
                ends.append(len(block))
            first.append(len(ends) - 1)
        self._block = bytes(block)
        self._ends = np.array(ends, np.int64)
        self._first = np.array(first, np.int64)

    def __len__(self) -> int:
        """Number of images."""
        return len(self._first) - 1

    def __iter__(self) -> Iterator[str]:
        """Yield every caption of every image."""
        return map(self._text, range(len(self._ends) - 1))

    @property
    def counts(self) -> np.ndarray:
        """Number of captions of each image, int64 [n]."""
        return np.diff(self._first)

    @property
    def num_bytes(self) -> int:
        """Memory that they take."""
        return len(self._block) + self._ends.nbytes + self._first.nbytes

    def fingerprint(self) -> str:
        """Return what changes with any caption."""
        digest = hashlib.sha256(self._block)
        digest.update(self._ends.tobytes() + self._first.tobytes())
        return digest.hexdigest()

    def of(self, image: int) -> tuple[str, ...]:
        """Return the captions of an image."""
        return tuple(map(self._text, range(*self._first[image : image + 2].tolist())))

    def digest(self, image: int) -> str:
        """Return what changes with the captions of an image."""
        joined = "\n".join(self.of(image)).encode()
        return hashlib.blake2b(joined, digest_size=12).hexdigest()

    def choose(self, images: np.ndarray, draws: np.ndarray | None) -> list[str]:
        """Return a caption of each of some images, which all have one.

        Args:
            images: indices int64 [m].
            draws: uniform in [0, 1), [m]; every caption of an image is as likely as
                the others. None is the first one.
        """
        counts = self._first[images + 1] - self._first[images]
        chosen = np.zeros(len(images), np.int64)
        if draws is not None:
            # A product may round up to the count itself.
            chosen = np.minimum((draws * counts).astype(np.int64), counts - 1)
        return [self._text(i) for i in (self._first[images] + chosen).tolist()]

    def _text(self, number):
        return self._block[self._ends[number] : self._ends[number + 1]].decode()


# ---- texts as they stand in files ----------------------------------------------------


def decoded(data: bytes, where: str) -> str:
    """Return the text of a file, without a byte order mark.

    Raises:
        Refusal: it is not in UTF-8.
    """
    try:
        text = data.decode("utf-8-sig")
        fault = "holds NUL characters" if "\0" in text else ""
    except UnicodeDecodeError as error:
        fault = f"is not in UTF-8 (byte {data[error.start]:#x} at {error.start:,})"
    if fault:
        if data.startswith(BYTE_ORDER_MARKS):
            fault = "is in UTF-16"
        raise errors.Refusal(f"{where} {fault}: save it as text in UTF-8")
    return text


def cleaned(text: str, where: str) -> str:
    """Return a caption as one line without blanks around; "" where nothing is left.

    Raises:
        Refusal: it is too long for a caption, or no Unicode text.
    """
    if len(text) > MAX_CHARACTERS:
        raise errors.Refusal(
            f"a caption in {where} has {len(text):,} characters "
            f"({text[:SHOWN]!r}…), and more than {MAX_CHARACTERS:,} are no caption: "
            "shorten it, one caption a line"
        )
    text = " ".join(text.split())
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise errors.Refusal(
            f"a caption in {where} holds {text[error.start]!r}, which is no character: "
            "write it in UTF-8"
        ) from None
    return text


def lines(data: bytes, where: str) -> tuple[str, ...]:
    """Return the captions of a text file, one a line; empty lines do not count.

    Raises:
        Refusal: see `decoded` and `cleaned`.
    """
    found = (cleaned(line, where) for line in LINE.split(decoded(data, where)))
    return tuple(line for line in found if line)
