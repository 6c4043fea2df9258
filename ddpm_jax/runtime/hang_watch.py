"""A job that hangs says where: the stack of every thread, if nothing has moved long."""

import faulthandler
import math
import sys
import threading
import time

from ddpm_jax.runtime import console

LIMIT = 600.0  # seconds


class HangWatchdog:
    """Context manager; call `beat` whenever something has been done.

    Nothing is ended, for what takes long may be no hang: a network disk, a compilation.
    Every process watches itself, since the one that hangs is rarely the one whose
    output is read.
    """

    def __init__(self, limit: float = LIMIT):
        """Watch for `limit` seconds without a beat."""
        self._limit = limit
        self._beaten, self._doing = time.monotonic(), "starting"
        self._ended = threading.Event()
        self._thread = threading.Thread(
            target=self._watch, name="hang-watchdog", daemon=True
        )

    def __enter__(self) -> "HangWatchdog":
        self._thread.start()
        return self

    def __exit__(self, *exception) -> None:
        self._ended.set()
        self._thread.join()

    def beat(self, doing: str) -> None:
        """Take note that something was done, and of what comes next."""
        self._beaten, self._doing = time.monotonic(), doing

    def rest(self) -> None:
        """Expect nothing until the next beat."""
        self._beaten = math.inf

    def _watch(self):
        while not self._ended.wait(self._limit / 4):
            waited = time.monotonic() - self._beaten
            if waited < self._limit:
                continue
            console.say_at_once(
                f"no progress for {waited:.0f} s while {self._doing}: if another "
                "process or a disk hangs, end all and run the same command again; "
                "the stacks of this process:"
            )
            faulthandler.dump_traceback(sys.__stderr__, all_threads=True)
            self._beaten = time.monotonic()
