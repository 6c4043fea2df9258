"""Measure in a process of its own, and end it when its time is over."""

import multiprocessing
import multiprocessing.connection
from collections.abc import Callable
from typing import Any, NamedTuple

FAILED = "it failed: its error stands above"
OVERTIME = "it was ended, for no time was left: give more --minutes"


class Outcome(NamedTuple):
    """What a function returned, or a sentence that says why it returned nothing."""

    value: Any
    failure: str = ""


def measured(function: Callable, args: tuple, seconds: float) -> Outcome:
    """Return what a function returns in a new process within some seconds.

    A process of its own has its memory for itself, compiles all that it needs, and can
    be ended. What it prints is printed, its traceback too.

    Args:
        function: of a module, so that the other process finds it.
        args: its arguments.
        seconds: after these it is ended.
    """
    context = multiprocessing.get_context("spawn")
    ours, its = context.Pipe(duplex=False)
    process = context.Process(target=_tell, args=(its, function, args))
    process.start()
    its.close()  # so that its end is noticed here
    in_time = ours.poll(max(seconds, 0))
    outcome = _told(ours) if in_time else Outcome(None, OVERTIME)
    if not in_time:
        process.kill()
    process.join()
    return outcome


def _tell(pipe, function, args):
    pipe.send(function(*args))


def _told(pipe):
    try:
        return Outcome(pipe.recv())
    except EOFError:
        return Outcome(None, FAILED)
