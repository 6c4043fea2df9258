"""Decoded images kept in memory, up to a limit."""

import threading

import numpy as np


class Cache:
    """Arrays by index, kept for good until a number of bytes is reached.

    Nothing is evicted: a training run reads every image once an epoch, so what is
    thrown out for another image would be missed as surely as that one. Safe to use
    from several threads. An array handed out is never to be written.
    """

    def __init__(self, limit: int):
        self._limit = limit
        self._size = 0
        self._arrays = {}
        self._lock = threading.Lock()

    def get(self, index: int) -> np.ndarray | None:
        """Return the array at `index`, or None where there is none."""
        return self._arrays.get(index)

    def put(self, index: int, array: np.ndarray) -> None:
        """Keep `array` if it fits."""
        with self._lock:
            if index not in self._arrays and self._size + array.nbytes <= self._limit:
                self._arrays[index] = array
                self._size += array.nbytes
