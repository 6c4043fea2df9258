"""Stopping on request: signals and notices become a flag that loops read."""

import collections
import contextlib
import functools
import os
import signal
import threading
import time

from ddpm_jax.runtime import distributed
from ddpm_jax.runtime.cluster import gce
from ddpm_jax.runtime.console import say_at_once

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SECOND_SIGNAL_STATUS = 130
ONE_REQUEST_SECONDS = 1.0  # `timeout` and launchers send the same request twice
NOTICE = 1000  # among the numbers of signals
NAMES = {number: number.name for number in SIGNALS}
NAMES[NOTICE] = "the cluster's notice of preemption"
OF_SCHEDULERS = (NAMES[signal.SIGTERM], NAMES[NOTICE])  # the others are people's


class StopRequest:
    """Context manager that turns the first of `SIGNALS` into a request to stop.

    Every loop that lasts longer than a second or two looks at `requested`, or among
    several processes at `agreed`, saves, and returns. A second signal, more than an
    instant later, ends the process at once with status 130, even in the middle of a
    compilation: Python runs its own handlers only between two bytecodes of the main
    thread, so a thread that reads the signals' wake-up pipe does the counting.

    On a virtual machine of Google's cloud a notice of preemption is a request, too.

    Signals can be caught in the main thread only; entered in another one, it changes
    nothing and `requested` stays False.

    Attributes:
        requested: whether this process is to stop.
        signal_name: what asked for it, e.g. "SIGTERM"; None if nothing did.
    """

    def __init__(self):
        self.requested = False
        self.signal_name: str | None = None
        self._number = 0  # of what asks this process
        self._agreed = False
        self._answers = collections.deque()  # on their way from the devices
        self._old_handlers: dict[signal.Signals, object] = {}
        self._helpers = contextlib.ExitStack()

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is not threading.main_thread():
            return self
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._watcher = threading.Thread(
            target=self._watch, name="stop-request", daemon=True
        )
        self._watcher.start()
        self._old_wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
                self._old_handlers[number] = signal.signal(number, self._on_signal)
        if gce.is_google():
            self._helpers.enter_context(gce.Watcher(self._on_notice))
        return self

    def __exit__(self, *exception) -> None:
        self._helpers.close()
        if not self._old_handlers:
            return
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        self._old_handlers = {}
        signal.set_wakeup_fd(self._old_wakeup)
        os.close(self._writer)  # ends the watcher
        self._watcher.join()
        os.close(self._reader)

    @property
    def is_preemption(self) -> bool:
        """Whether a scheduler asked: neither Ctrl-C nor a terminal that closed."""
        return self.signal_name in OF_SCHEDULERS

    def agreed(self, late: int = 0) -> bool:
        """Return whether any process is to stop, the same answer in all of them.

        All processes call it at the same points; with one it is `requested`. Once the
        answer is yes, `requested` and `signal_name` say so in every process.

        Args:
            late: 0 waits for the others; n returns what was asked n calls ago, so that
                a loop which calls it every step never waits for its devices.
        """
        if distributed.count() == 1:
            return self.requested
        if not self._agreed:
            self._answers.append(_largest(self._number))
        while len(self._answers) > late and not self._agreed:
            number = _read(self._answers.popleft())
            if number:
                self._agreed = self.requested = True
                self.signal_name = NAMES[number]
        return self._agreed

    def _ask(self, number) -> None:
        self.signal_name = self.signal_name or NAMES[number]
        self._number = self._number or number
        self.requested = True

    def _on_signal(self, number, frame) -> None:
        del frame
        self._ask(number)

    def _on_notice(self) -> None:
        self._ask(NOTICE)
        say_at_once(f"{NAMES[NOTICE]}: stopping after saving")

    def _watch(self) -> None:
        first = None
        while number := os.read(self._reader, 1):
            if number[0] not in SIGNALS:
                continue  # other handlers of the process wake the same pipe
            now = time.monotonic()
            if first is not None and now - first < ONE_REQUEST_SECONDS:
                continue
            if first is None:
                first = now
                self._ask(number[0])
                say_at_once(
                    f"{NAMES[number[0]]}: stopping after saving; again quits without "
                    "saving"
                )
            else:
                say_at_once(f"{NAMES[number[0]]} again: quitting without saving")
                os._exit(SECOND_SIGNAL_STATUS)


def _largest(number: int):
    """Return, on its way from the devices, the largest number of all processes."""
    import jax
    import numpy as np

    own = np.full(1, number, np.int32)
    split, largest = _reduction()
    return largest(
        jax.make_array_from_callback((jax.device_count(),), split, lambda index: own)
    )


def _read(answer) -> int:
    import jax

    return int(jax.device_get(answer.addressable_data(0)))


@functools.cache
def _reduction():
    """Return how to lay a number out on each device, and what finds the largest."""
    import jax
    from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

    mesh = Mesh(jax.devices(), "device", axis_types=(AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec("device"))
    whole = NamedSharding(mesh, PartitionSpec())
    return split, jax.jit(jax.numpy.max, in_shardings=split, out_shardings=whole)
