"""Classes as sampling.labels asks for them: by name first, by index second."""

import re
from collections.abc import Sequence

from ddpm_jax.core import errors

BY_NAME, BY_INDEX = "name:", "index:"
# 007 is a name alone: where classes are called 001, 002, …, it is no index of theirs.
INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
# Quotes hold commas; one inside a name, as in it's, is a letter like others.
ELEMENT = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|([^,]*?))\s*(?:,|$)""")
MANY = 10


def indices(labels: Sequence[int | str], names: Sequence[str]) -> tuple[int, ...]:
    """Return the classes that the entries of sampling.labels ask for.

    An entry is a class name, else an index, else several of them with commas between.

    Args:
        labels: entries; the command line gives its whole text as one.
        names: of the classes, by index.

    Raises:
        Refusal: an unknown name, an index out of range, or an entry that is the name
            of one class and the index of another.
    """
    found = []
    for label in labels:
        text = str(label)
        whole = _index(text, names)
        if whole is None:
            found += [_known_index(part, names) for part in split(text) or (text,)]
        else:
            found.append(whole)
    return tuple(found)


def index(text: str, names: Sequence[str]) -> int | None:
    """Return the one class that a text asks for, None for "".

    Raises:
        Refusal: see `indices`.
    """
    if not text:
        return None
    found = indices((text,), names)
    if len(found) > 1:
        raise errors.Refusal(f"{text!r}: give one class, and not {len(found)}")
    return found[0]


def split(text: str) -> tuple[str, ...]:
    """Return what stands between commas outside quotes, without quotes or blanks."""
    parts = ("".join(filter(None, found)) for found in ELEMENT.findall(text))
    return tuple(part for part in parts if part)


def listed(labels: Sequence[int | str]) -> tuple[int | str, ...]:
    """Return the entries one by one, integers as such, as versions up to 0.1 did."""
    parts = [p for e in labels for p in (split(e) if isinstance(e, str) else (e,))]
    return tuple(int(p) if INTEGER.fullmatch(str(p)) else p for p in parts)


def remark(names: Sequence[str]) -> str:
    """Return what is easily misread in names that are numbers, "" for other names.

    Folders 1, 10, 2 are in the order of their letters, and none has its name as index.
    """
    are_numbers = names and all(INTEGER.fullmatch(name) for name in names)
    if not are_numbers or all(name == str(i) for i, name in enumerate(names)):
        return ""
    pairs = [f"{name} is {i}" for i, name in enumerate(names[:MANY])]
    more = ", …" if len(names) > MANY else ""
    return (
        f"the names of the classes are numbers, and not their indices: "
        f"{', '.join(pairs)}{more}; {BY_NAME}{names[0]} and {BY_INDEX}0 say which is "
        "meant"
    )


def described(labels: Sequence[int], names: Sequence[str]) -> str:
    """Return the names of the classes that are made: "cat, dog in turn"."""
    if len(labels) == 1:
        return names[labels[0]]
    shown = [_typed(names[label]) for label in labels[:MANY]]
    more = f", … ({len(labels)})" if len(labels) > MANY else ""
    return ", ".join(shown) + more + " in turn"


def _index(text, names):
    """Return the class that the text stands for as a whole, or None."""
    by_name, by_index = _by_name(text, names), _by_index(text, names)
    if None not in (by_name, by_index) and by_name != by_index:
        raise errors.Refusal(
            f"sampling.labels: {text} could mean two classes, the one of that name "
            f"(index {by_name}) and the one of that index (name {names[by_index]!r}): "
            f"give {BY_NAME}{text} or {BY_INDEX}{text}"
        )
    if by_name is None and text.startswith(BY_NAME):
        return _by_name(text.removeprefix(BY_NAME), names)
    if by_name is None and text.startswith(BY_INDEX):
        return _by_index(text.removeprefix(BY_INDEX), names)
    return by_index if by_name is None else by_name


def _by_name(text, names):
    return names.index(text) if text in names else None


def _by_index(text, names):
    if not INTEGER.fullmatch(text) or not 0 <= int(text) < len(names):
        return None
    return int(text)


def _known_index(text, names):
    found = _index(text, names)
    if found is not None:
        return found
    known = ", ".join(_typed(name) for name in names)
    number = text.removeprefix(BY_INDEX)
    if INTEGER.fullmatch(number):
        raise errors.Refusal(
            f"sampling.labels: label {number} is out of range: choose 0 … "
            f"{len(names) - 1} ({known})"
        )
    name = text.removeprefix(BY_NAME)
    raise errors.Refusal(
        f"sampling.labels: unknown class {name!r}: choose among {known}"
    )


def _typed(name):
    """Return a name as it is typed among others."""
    if "," not in name and name[:1] not in ("'", '"'):
        return name
    return f"'{name}'" if '"' in name else f'"{name}"'
