"""Stopping on request: SIGINT, SIGTERM and SIGHUP become a flag that loops look at."""

import os
import signal
import threading
import time

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SECOND_SIGNAL_STATUS = 130
ONE_REQUEST_SECONDS = 0.2  # `timeout` and launchers send the same request twice


class StopRequest:
    """Context manager that turns the first of `SIGNALS` into a request to stop.

    Every loop that lasts longer than a second or two looks at `requested`, saves, and
    returns. A second signal, more than an instant later, ends the process at once with
    status 130, even in the middle of a compilation: Python runs its own handlers only
    between two bytecodes of the main thread, so a thread that reads the signals'
    wake-up pipe does the counting.

    Signals can be caught in the main thread only; entered in another one, it changes
    nothing and `requested` stays False.
    """

    def __init__(self):
        self.requested = False
        self.signal_name: str | None = None
        self._old_handlers: dict[signal.Signals, object] = {}

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
        return self

    def __exit__(self, *exception) -> None:
        if not self._old_handlers:
            return
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        self._old_handlers = {}
        signal.set_wakeup_fd(self._old_wakeup)
        os.close(self._writer)  # ends the watcher
        self._watcher.join()
        os.close(self._reader)

    def _on_signal(self, number, frame) -> None:
        del frame
        self.signal_name = self.signal_name or signal.Signals(number).name
        self.requested = True

    def _watch(self) -> None:
        first = None
        while number := os.read(self._reader, 1):
            if number[0] not in SIGNALS:
                continue  # other handlers of the process wake the same pipe
            now = time.monotonic()
            if first is not None and now - first < ONE_REQUEST_SECONDS:
                continue
            name = signal.Signals(number[0]).name
            if first is None:
                first = now
                self._on_signal(number[0], None)
                _tell(f"{name}: stopping after saving; once more ends at once")
            else:
                _tell(f"{name} again: ending at once, without saving")
                os._exit(SECOND_SIGNAL_STATUS)


def _tell(line: str) -> None:
    # Not print: the main thread may hold the lock of a buffered stream.
    os.write(2, f"\n{line}\n".encode())
