"""The one exception for a mistake of the user, in one sentence."""

import contextlib


class Refusal(ValueError):
    """A request that cannot be honoured.

    The message is one sentence that names the bad value, the good ones and what to do.
    `main` prints it and ends with status 1; any other exception is a defect of ours
    and keeps its traceback.
    """


def choose(kind, table, name):
    """Return `table[name]`, or refuse an unknown name and list the known ones.

    Args:
        kind: what the name stands for, e.g. "schedule".
        table: dictionary of the choices.
        name: the key asked for.

    Raises:
        Refusal: `name` is not a key of `table`.
    """
    if name not in table:
        known = ", ".join(str(key) for key in sorted(table))
        raise Refusal(f"unknown {kind} {name!r}: choose one of {known}")
    return table[name]


@contextlib.contextmanager
def about(field):
    """Put the name of a config field before what a layer below refuses."""
    try:
        yield
    except Refusal as refusal:
        raise Refusal(f"{field}: {refusal}") from refusal
