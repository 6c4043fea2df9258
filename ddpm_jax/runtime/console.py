"""What the program says to its user."""

import os
import sys

_others = ""
"""What marks lines of a process other than 0, e.g. "process 2: "; "" in process 0."""


def silence(process: int) -> None:
    """Let one of several processes speak: 0 as always, the others errors only.

    Args:
        process: the number of this process; 0 lifts the silence.
    """
    global _others  # noqa: PLW0603 - a process has one console
    _others = f"process {process}: " if process else ""


def say(line: str) -> None:
    """Print a line at once; a reader that has gone away does not end the work.

    Processes other than 0 say nothing: they would say the same.
    """
    if _others:
        return
    try:
        print(line, flush=True)
    except BrokenPipeError:
        # `… | head`: from here on nobody reads, and later prints must not fail either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def tell_error(line: str) -> None:
    """Print a line to stderr; processes other than 0 put their number before it."""
    print(f"{_others}{line}", file=sys.stderr, flush=True)


def tell_at_once(line: str) -> None:
    """Write a line to stderr, from any thread.

    It does not print: the main thread may hold the lock of a buffered stream.
    """
    os.write(2, f"\n{_others}{line}\n".encode())
