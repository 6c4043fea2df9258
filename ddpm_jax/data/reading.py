"""From decoded pictures to the batches of a `Dataset`: in threads, with a memory."""

import concurrent.futures
import functools
import os
import threading
from collections.abc import Callable

import numpy as np

from ddpm_jax.core import errors
from ddpm_jax.data import cache, crops, decoding
from ddpm_jax.data import images as images_lib

MAX_UNREADABLE = 0.01  # share of the files
NAMED = 3  # files that the refusal names
BYTES_PER_GIB = 2**30


class Faults:
    """The files that could not be read: each is named once, and too many are refused.

    Safe to use from several threads.

    Args:
        root: where the files lie, for messages.
        num_files: how many there are.
        say: prints one line.
        known: (name, reason) of those that are known, and named, already.

    Raises:
        Refusal: more than `MAX_UNREADABLE` of all files; from `add` too.
    """

    def __init__(self, root: str, num_files: int, say: Callable[[str], None], known=()):
        self._root = root
        self._num_files = num_files
        self._say = say
        self._reasons = dict(known)
        self._lock = threading.Lock()
        self._check()

    def __len__(self) -> int:
        return len(self._reasons)

    def add(self, name: str, reason: str) -> None:
        """Note and name a file, unless it is noted already."""
        with self._lock:
            if name not in self._reasons:
                self._reasons[name] = reason
                self._say(f"skipped: {name} {reason}")
            self._check()

    def _check(self):
        count = len(self._reasons)
        if count > MAX_UNREADABLE * self._num_files:
            first = [f"{n} {why}" for n, why in list(self._reasons.items())[:NAMED]]
            more = "; …" if count > NAMED else ""
            raise errors.Refusal(
                f"{count} of the {self._num_files} images of {self._root} cannot be "
                f"read ({'; '.join(first)}{more}), and more than 1 % is too many: "
                "replace or remove them; --mode=data lists all"
            )


class Reader:
    """Reads the images of one split by index.

    A picture that turns out unreadable is replaced by the next one that is readable,
    with its label: what an index gives depends on the files alone, so that a resumed
    run sees what the first one saw.

    Args:
        decode: index → uint8 or uint16 [H', W', C], or `Unreadable` raised.
        names: the file of each index, for messages.
        labels: int32 [N].
        shape: (H, W, C) of what is read.
        random_crop: whether `read` is given draws.
        alpha: whether the last channel is opacity.
        cache_gib: memory for decoded images, cut to size or, for random crops, made as
            small as any draw permits.
        faults: where unreadable files are noted.
    """

    def __init__(
        self,
        decode: Callable[[int], np.ndarray],
        *,
        names,
        labels: np.ndarray,
        shape: tuple[int, int, int],
        random_crop: bool,
        alpha: bool,
        cache_gib: float,
        faults: Faults,
    ):
        self._decode = decode
        self._names = names
        self._labels = labels
        self._shape = shape
        self._alpha = alpha
        self._prepare = crops.prepare_random if random_crop else crops.center
        self._cache = cache.Cache(int(cache_gib * BYTES_PER_GIB))
        self._faults = faults
        self._in_place = {}  # of pictures that turned out unreadable, others

    def shown(self, indices: np.ndarray) -> np.ndarray:
        """Return the indices of the pictures that `read` gave for these indices."""
        if not self._in_place:
            return indices
        return np.array([self._in_place.get(i, i) for i in indices.tolist()], np.int64)

    def read(self, indices: np.ndarray, draws: np.ndarray | None = None):
        """Return images float32 [n, H, W, C] in [-1, 1] and labels int32 [n].

        Args:
            indices: int64 [n].
            draws: of random crops, see `crops.random`; None is the centre crop.

        Raises:
            Refusal: too many files are unreadable.
        """
        images = [None] * len(indices)
        label = np.empty(len(indices), np.int32)

        def fill(rows):
            for row in rows:
                index, picture = self._readable(int(indices[row]))
                images[row] = self._cut(picture, None if draws is None else draws[row])
                label[row] = self._labels[index]

        parts = max(1, min(len(indices), 4 * num_workers()))
        list(in_threads(fill, np.array_split(np.arange(len(indices)), parts)))
        return images_lib.from_stored(np.stack(images)), label

    def _readable(self, first):
        for index in (*range(first, len(self._names)), *range(first)):
            try:
                picture = self._prepared(index)
                if index != first:
                    self._in_place[first] = index
                return index, picture
            except decoding.Unreadable as error:
                self._faults.add(self._names[index], str(error))
        raise errors.Refusal(
            f"none of the {len(self._names)} images of this split can be read: replace "
            "them; --mode=data lists all"
        )

    def _prepared(self, index):
        known = self._cache.get(index)
        if known is not None:
            return known
        image = self._decode(index)
        height, width, channels = self._shape
        if image.shape[2] != channels:
            raise decoding.Unreadable(f"has {image.shape[2]} channels, not {channels}")
        if image.shape[0] < height or image.shape[1] < width:
            raise decoding.Unreadable(
                f"is {image.shape[0]}x{image.shape[1]}, smaller than {height}x{width}"
            )
        # A copy, as a view would keep the whole picture in memory.
        prepared = np.array(self._prepare(image, (height, width), alpha=self._alpha))
        self._cache.put(index, prepared)
        return prepared

    def _cut(self, picture, draws):
        size = self._shape[:2]
        if draws is None:
            return crops.center(picture, size, alpha=self._alpha)
        return crops.random(picture, size, draws, alpha=self._alpha)


def num_workers() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_threads(function: Callable, items):
    """Return the results of `function` in the order of `items`, from several threads.

    Pillow, zlib and the disk work without the interpreter's lock, so threads suffice,
    and there is no fork, which JAX does not survive.
    """
    return _pool().map(function, items)


@functools.cache
def _pool():
    return concurrent.futures.ThreadPoolExecutor(
        num_workers(), thread_name_prefix="ddpm-jax-decode"
    )
