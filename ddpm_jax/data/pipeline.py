"""Batches prepared in the background, one after another from any step."""

import collections
import concurrent.futures
import time
from collections.abc import Callable

from ddpm_jax.core import errors
from ddpm_jax.data import transforms
from ddpm_jax.data.dataset import Dataset
from ddpm_jax.data.order import Order


class Prefetcher:
    """Iterator over `(step, make(step))` for step = first_step, first_step + 1, …

    One background thread works at most `prefetch` batches ahead. An error of `make`
    reaches the consumer at its step, with its traceback, and ends the iterator. Use it
    as a context manager, or call `close`, so that the thread ends.

    Attributes:
        wait_seconds: time that the consumer has spent waiting for batches.
    """

    def __init__(self, make: Callable, *, first_step: int, prefetch: int = 2):
        if prefetch < 1:
            raise errors.Refusal(
                f"prefetch {prefetch} is not positive: prepare at least 1 batch ahead"
            )
        self.wait_seconds = 0.0
        self._make = make
        self._next_step = first_step
        self._pending = collections.deque()
        self._executor = concurrent.futures.ThreadPoolExecutor(
            max_workers=1, thread_name_prefix="ddpm-jax-batches"
        )
        for _ in range(prefetch):
            self._submit()

    def __iter__(self):
        return self

    def __next__(self):
        if not self._pending:
            raise StopIteration
        step, future = self._pending.popleft()
        began = time.perf_counter()
        failed = future.exception() is not None  # waits
        self.wait_seconds += time.perf_counter() - began
        if failed:
            self.close()
        else:
            self._submit()
        return step, future.result()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Drop what is prepared and wait for the thread to end."""
        self._pending.clear()
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _submit(self):
        future = self._executor.submit(self._make, self._next_step)
        self._pending.append((self._next_step, future))
        self._next_step += 1


def batches(
    dataset: Dataset,
    order: Order,
    *,
    first_step: int,
    flip: bool = False,
    seed: int = 0,
    start: int = 0,
    stop: int | None = None,
    prefetch: int = 2,
    place: Callable = lambda batch: batch,
) -> Prefetcher:
    """Return an iterator over `(step, {"image", "label", …})` from `first_step` on.

    The batch of a step is a pure function of the arguments and the step: it does not
    depend on where the iterator started, nor an image on which process made it.

    Args:
        dataset: the images; those with `random_crop` are cut out at random.
        order: which of them make the batch of a step.
        first_step: the step of the first batch.
        flip: mirror each image left-right with probability ½.
        seed: of the flips, random crops and choice of captions, 0 … 2³² - 1.
        start, stop: this process's rows of the global batch; None means its end.
        prefetch: how many batches are prepared ahead, at least 1.
        place: applied to each batch in the background, e.g. to move it to devices.

    Returns:
        A `Prefetcher`; images float32 [stop - start, H, W, C] in [-1, 1], labels int32
        [stop - start], in buffers that are never used again.
    """

    def make(step):
        indices = order.indices(step, start, stop)
        first_position = step * order.batch_size + start
        draws = None
        if dataset.random_crop:
            draws = transforms.crop_draws(seed, first_position, len(indices))
        captions = None
        if dataset.encode is not None:
            captions = transforms.caption_draws(seed, first_position, len(indices))
        batch = dataset.fetch(indices, draws, captions)
        if flip:
            flipped = transforms.flips(seed, first_position, len(indices))
            batch["image"] = transforms.mirror(batch["image"], flipped)
        if dataset.derive is not None:  # of the images as they are now
            batch |= dataset.derive(batch["image"], (seed, first_position))
        return place(batch)

    return Prefetcher(make, first_step=first_step, prefetch=prefetch)
