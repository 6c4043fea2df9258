"""One thread that makes all chains of the page, and what a request hears of its own.

A request looks at its work now and then instead of doing it itself: it can be stopped
at any moment, also while a program is compiled. The work ends at its next entry.
"""

import concurrent.futures
from collections.abc import Callable, Iterator

from ddpm_jax.core import flags

SECONDS = 0.3  # between two looks


class Stopped(Exception):
    """Nobody waits for the work any more."""


class News:
    """What a piece of work told last.

    Attributes:
        newest: None before the first.
        is_stopped: nobody listens any more.
    """

    def __init__(self):
        self.newest, self.is_stopped = None, False

    def tell(self, news) -> None:
        """Keep what is told.

        Raises:
            Stopped: nobody listens.
        """
        if self.is_stopped:
            raise Stopped
        self.newest = news


class Worker:
    """The thread; it starts with the first work."""

    def __init__(self):
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "chains")
        self._now = None

    def begin(
        self, work: Callable[[Callable], object]
    ) -> tuple[concurrent.futures.Future, News]:
        """Begin `work(tell)` when all work before it has ended.

        Returns:
            Its future, and what it tells.
        """
        news = News()
        return self._thread.submit(self._do, work, news), news

    def follow(self, work: Callable[[Callable], object]) -> Iterator:
        """Yield what `work(tell)` told last, now and then, and what it returns.

        It begins when all work before it has ended; until it tells something, None is
        yielded. Closing the iterator stops it: `tell` raises.

        Args:
            work: is given `tell`.
        """
        making, news = self.begin(work)
        try:
            while not concurrent.futures.wait([making], SECONDS).done:
                yield news.newest
            yield making.result()
        finally:
            news.is_stopped = True
            making.cancel()

    def close(self) -> None:
        """End what is under way, and the thread."""
        now = self._now
        if now is not None:
            now.is_stopped = True
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _do(self, work, news):
        self._now = news
        try:
            with flags.as_program():
                return work(news.tell)
        finally:
            self._now = None
