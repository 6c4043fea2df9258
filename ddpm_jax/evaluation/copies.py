"""Copies among the images of a set, counted while they are read."""

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np


class Counter:
    """Counts images that were seen before, byte by byte the same."""

    def __init__(self):
        self._seen = set()
        self._count = 0

    def watched(self, parts: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield parts [n, H, W, C] as they come, and count."""
        for part in parts:
            for image in part:
                data = np.ascontiguousarray(image).tobytes()
                self._seen.add(hashlib.blake2b(data, digest_size=16).digest())
            self._count += len(part)
            yield part

    def notes(self) -> list[str]:
        """Return what a reader of a score should know of copies."""
        distinct = len(self._seen)
        if distinct == self._count:
            return []
        return [
            f"{self._count - distinct:,} of the {self._count:,} images are copies of "
            f"others among them: the score is that of {distinct:,} images, and its "
            "standard error does not count the copies; take them out"
        ]
