"""What the program says to its user."""

import os
import sys


def say(line: str) -> None:
    """Print a line at once; a reader that has gone away does not end the work."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        # `… | head`: from here on nobody reads, and later prints must not fail either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
