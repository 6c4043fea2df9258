"""Which of the networks that a checkpoint holds is taken, and what is skipped.

Training programs save networks beside averages of them, optimizers and counters, as
entries of one file or under prefixes of the names; both are names with dots here.
"""

import re
from collections.abc import Callable, Mapping

from ddpm_jax.convert.formats import FORMATS
from ddpm_jax.core import errors

Shape = tuple[int, ...]
Names = dict[str, str]

WRAPPERS = {
    # What training programs put before every name of a network that they wrap.
    "module": "DataParallel",
    "_orig_mod": "torch.compile",
    "model": "a wrapper",
    "ema_model": "a wrapper of averages",
    "state_dict": "Lightning",
}
AVERAGE = re.compile(r"(?<![a-z])(?<!non_)(ema|averaged?|avg|swa|shadow)(?![a-z])")
UNNAMED = re.compile(r"(?:(.+)\.)?shadow_params\.\d+")
"""An average as a list in the order of the parameters, as torch_ema saves it."""

EXTRA = re.compile(
    # Tables of the process and counters, which are no parameters of a network.
    r"(?:.*\.)?(?:(?:sqrt_|log_)*(?:recipm?1?_)?(?:one_minus_)?alphas(?:_\w+)?|betas"
    r"|posterior_\w+|num_updates|decay|(?:global_)?step|initted|epoch|n_averaged"
    r"|(?:p2_)?loss_weights?|lvlb_weights|logvar|snr)"
)
DEPTH = 6  # entries within entries; a damaged file may hold itself
LISTED = 8


def flat(state, is_tensor: Callable[[object], bool]) -> tuple[dict, list[str]]:
    """Return (the tensors of nested entries by dotted names, names of the others).

    Optimizers are among the others: what they hold per parameter is no network.
    """
    tensors, others = {}, []

    def visit(value, name, depth):
        if is_tensor(value):
            tensors[name] = value
        elif depth == DEPTH or not _is_nested(value, is_tensor):
            others.append(name)
        else:
            pairs = value.items() if isinstance(value, dict) else enumerate(value)
            for key, inner in pairs:
                visit(inner, f"{name}.{key}" if name else str(key), depth + 1)

    visit(state, "", 0)
    return tensors, others


def _is_nested(value, is_tensor):
    if isinstance(value, dict):
        return bool(value) and not {"state", "param_groups"} <= value.keys()
    if not isinstance(value, list | tuple):
        return False
    return any(isinstance(inner, dict) or is_tensor(inner) for inner in value)


def choose(
    path, shapes: Mapping[str, Shape], entry: str | None, others: list[str]
) -> tuple[Names, list[str]]:
    """Return the names in a file of one network by its own names, and notes.

    An average wins over what it is an average of.

    Args:
        path: the file, for messages.
        shapes: of every tensor of the file by dotted name.
        entry: the one asked for, or None.
        others: names of entries that are no tensors.

    Raises:
        Refusal: several networks and nothing tells which; no network `entry`.
    """
    found, notes = _networks(shapes)
    if entry is not None:
        label = _named(path, found, entry)
    elif found:
        label = _best(path, found)
    else:
        return {name: name for name in shapes}, []
    names = found[label]
    if len(found) > 1:
        kind = "the average (EMA)" if AVERAGE.search(label) else "the entry"
        rest = ", ".join(repr(name) for name in found if name != label)
        notes.append(f"took {kind} {label!r}; also there: {rest}")
    else:
        notes += _of_prefix(label)
    inside = {name for network in found.values() for name in network.values()}
    extra = {key for key in names if _is_extra(key, shapes[names[key]])}
    passed = [names[key] for key in names if key in extra]
    passed += [name for name in shapes if name not in inside] + others
    if passed:
        listed = ", ".join(passed[:LISTED]) + (" …" if len(passed) > LISTED else "")
        notes.append(f"skipped, as no part of the network: {listed}")
    return {key: name for key, name in names.items() if key not in extra}, notes


def _networks(shapes):
    """Return (names by label of every network known here, notes)."""
    every = [marks for record in FORMATS.values() for marks in record.marks]
    anchors = {sorted(marks)[0] for marks in every}
    prefixes = {
        name.removesuffix(anchor)
        for name in shapes
        for anchor in anchors
        if name == anchor or name.endswith(f".{anchor}")
    }
    prefixes = sorted(
        prefix
        for prefix in prefixes
        if any(all(prefix + mark in shapes for mark in marks) for marks in every)
    )
    found = {prefix: {} for prefix in prefixes}
    longest = sorted(prefixes, key=len, reverse=True)
    for name in shapes:
        home = next((p for p in longest if name.startswith(p)), None)
        if home is not None and not UNNAMED.fullmatch(name):
            found[home][name.removeprefix(home)] = name
    found = {prefix.rstrip("."): names for prefix, names in found.items()}
    return _with_unnamed(found, shapes)


def _with_unnamed(found, shapes):
    """Add an average without names, which has its network's in their order."""
    lists = [name for name in shapes if UNNAMED.fullmatch(name)]
    if not lists or len(found) != 1:
        return found, []
    ((label, network),) = found.items()
    named = {k: n for k, n in network.items() if not _is_extra(k, shapes[n])}
    average = UNNAMED.fullmatch(lists[0])[1] or "shadow_params"
    if [shapes[n] for n in named.values()] != [shapes[name] for name in lists]:
        return found, [
            f"the average {average!r} has no names and other shapes than {label!r} in "
            "its order: not taken"
        ]
    return {label: network, average: dict(zip(named, lists, strict=True))}, []


def _named(path, found, entry):
    """Return the label that an entry means, by all its parts or some."""
    within = [label for label in found if f".{entry}." in f".{label}."]
    if entry in found or len(within) == 1:
        return entry if entry in found else within[0]
    listed = ", ".join(label for label in found if label) or "none to be named"
    what = f"several networks under {entry!r}" if within else f"no network {entry!r}"
    raise errors.Refusal(
        f"{path} holds {what}: give one of its entries ({listed}) after the #, or no #"
    )


def _best(path, found):
    """Return the only network, or the only average."""
    if len(found) == 1:
        return next(iter(found))
    averages = [label for label in found if AVERAGE.search(label)]
    if len(averages) == 1:
        return averages[0]
    which = "several averages" if averages else "no average"
    listed = averages or [label for label in found if label]
    raise errors.Refusal(
        f"{path} holds {len(found)} networks ({', '.join(map(repr, found))}) and "
        f"{which} among them: say which with --source={path}#{listed[0]}"
    )


def _of_prefix(label):
    """Return a note for every part of what the names of the only network begin with."""
    return [
        f"removed the prefix {part + '.'!r} of all names "
        f"({WRAPPERS.get(part, 'an entry of the file')})"
        for part in filter(None, label.split("."))
    ]


def _is_extra(key, shape):
    return shape == () or (len(shape) == 1 and bool(EXTRA.fullmatch(key)))
