"""What the program says to its user."""

import contextlib
import contextvars
import os
import sys

_others = ""
"""What marks lines of a process other than 0, e.g. "process 2: "; "" in process 0."""

_is_quiet = contextvars.ContextVar("is_quiet", default=False)


@contextlib.contextmanager
def quietly():
    """Return a context in which nothing is said, of this thread; errors are printed."""
    before = _is_quiet.set(True)
    try:
        yield
    finally:
        _is_quiet.reset(before)


def silence(process: int) -> None:
    """Let one of several processes speak: 0 as always, the others errors only.

    Args:
        process: the number of this process; 0 lifts the silence.
    """
    global _others  # noqa: PLW0603 - a process has one console
    _others = f"process {process}: " if process else ""


def say(line: str) -> None:
    """Print a line at once; whatever becomes of the terminal, the work goes on.

    Processes other than 0 say nothing: they would say the same.
    """
    if not _others and not _is_quiet.get():
        _write(sys.stdout, line)


def say_error(line: str) -> None:
    """Print a line to stderr; processes other than 0 put their number before it."""
    _write(sys.stderr, f"{_others}{line}")


def _write(stream, line: str) -> None:
    """Write a line to a stream that may be closed, full, or of another alphabet.

    A reader that has gone away, a lost connection or a full disk under a log is no
    reason to lose the steps taken. What the stream's encoding lacks is escaped.
    """
    if stream is None:  # a program without a console
        return
    encoding = stream.encoding or "utf-8"
    data = f"{line}\n".encode(encoding, "backslashreplace")
    try:
        stream.flush()
        descriptor = stream.fileno()
    except (OSError, ValueError):
        descriptor = None  # a stream in memory, or one that is closed
    try:
        if descriptor is None:
            stream.write(data.decode(encoding))
            stream.flush()
        # Unbuffered: bytes left in a buffer would fail again when Python ends.
        while descriptor is not None and data:
            data = data[os.write(descriptor, data) :]
    except (OSError, ValueError):
        return  # nobody reads: there is no one to tell


def say_at_once(line: str) -> None:
    """Write a line to stderr, from any thread.

    It does not print: the main thread may hold the lock of a buffered stream.
    """
    with contextlib.suppress(OSError):
        os.write(2, f"\n{_others}{line}\n".encode(errors="backslashreplace"))
