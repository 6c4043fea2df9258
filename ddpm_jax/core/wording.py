"""Lists of names in sentences."""

from collections.abc import Sequence

NAMED = 3


def listed(items: Sequence, last: str = "and") -> str:
    """Return "a", "a and b" or "a, b and c"."""
    *others, final = map(str, items)
    return f"{', '.join(others)} {last} {final}" if others else final


def few(names: Sequence[str], limit: int = NAMED) -> str:
    """Return "a, b, …" with at most `limit` names."""
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")


def files(names: Sequence[str], limit: int = NAMED) -> str:
    """Return "3 files (a, b, …)" with at most `limit` names."""
    return f"{len(names):,} file{'s' if len(names) > 1 else ''} ({few(names, limit)})"
