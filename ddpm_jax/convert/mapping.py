"""Where each parameter stands in another code's file, and how its array turns.

A map is a list of `Entry`, one for each of our parameters. The rules only move numbers,
so `to_ours` and `to_theirs` are inverse to each other bit by bit.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ddpm_jax.convert import differences
from ddpm_jax.core import errors

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One of our parameters in another code's file.

    Attributes:
        path: of the parameter, e.g. "down/0/attentions/0/qkv/kernel".
        keys: of the tensors that hold it; several are put side by side along our last
            axis, e.g. the queries, keys and values of an attention.
        rule: a key of `RULES`, how each of the tensors turns.
    """

    path: str
    keys: tuple[str, ...]
    rule: str


@dataclasses.dataclass(frozen=True)
class Rule:
    """One way to lay out the same numbers: their array → ours, and back."""

    to_ours: Callable[[np.ndarray], np.ndarray]
    to_theirs: Callable[[np.ndarray], np.ndarray]


def _same(array):
    return array


RULES = {
    "copy": Rule(_same, _same),
    "transpose": Rule(np.transpose, np.transpose),  # [O, I] ↔ [I, O]
    "conv": Rule(  # OIHW ↔ HWIO
        lambda array: array.transpose(2, 3, 1, 0),
        lambda array: array.transpose(3, 2, 0, 1),
    ),
    "conv1d": Rule(  # [O, I, 1] ↔ [I, O]
        lambda array: array[:, :, 0].T, lambda array: array.T[:, :, None]
    ),
    "conv1x1": Rule(  # [O, I, 1, 1] ↔ [I, O]
        lambda array: array[:, :, 0, 0].T, lambda array: array.T[:, :, None, None]
    ),
    "pixelwise": Rule(  # [I, O] ↔ HWIO with H = W = 1
        lambda array: array[None, None], lambda array: array[0, 0]
    ),
}


def to_ours(entry: Entry, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return one of our parameters, float32, from the tensors of a file."""
    turn = RULES[entry.rule].to_ours
    parts = [turn(np.asarray(tensors[key], np.float32)) for key in entry.keys]
    array = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
    return np.ascontiguousarray(array)


def to_theirs(entry: Entry, array: np.ndarray) -> dict[str, np.ndarray]:
    """Return the tensors of a file, by key, that hold one of our parameters."""
    turn = RULES[entry.rule].to_theirs
    parts = np.split(np.asarray(array), len(entry.keys), axis=-1)
    return {
        key: np.ascontiguousarray(turn(part))
        for key, part in zip(entry.keys, parts, strict=True)
    }


def their_shapes(entry: Entry, our_shape: Shape) -> dict[str, Shape]:
    """Return the shapes of the tensors that would hold a parameter of `our_shape`."""
    # One number, repeated: the rules do not look at values.
    array = np.broadcast_to(np.float32(0), our_shape)
    turn = RULES[entry.rule].to_theirs
    parts = np.split(array, len(entry.keys), axis=-1)
    return {key: turn(part).shape for key, part in zip(entry.keys, parts, strict=True)}


def check(
    entries: Sequence[Entry],
    our_shapes: Mapping[str, Shape],
    their_shapes: Mapping[str, Shape],
    fields: Mapping[str, object],
) -> None:
    """Refuse a file that is not exactly the configured network.

    Args:
        entries: the map.
        our_shapes: shape of every parameter of the network by path.
        their_shapes: shape of every tensor of the file by key.
        fields: values by dotted config name, quoted where they explain a difference.

    Raises:
        Refusal: a tensor without a place, a parameter without a source, a shape that
            differs; with a table of them and the fields that would explain it.
        ValueError: the map itself is wrong, a defect of ours.
    """
    _check_map(entries, our_shapes)
    wanted = _wanted(entries, our_shapes)
    found = {key: tuple(shape) for key, shape in their_shapes.items()}
    differing = {
        key: (wanted.get(key), found.get(key))
        for key in dict.fromkeys((*wanted, *found))
        if wanted.get(key) != found.get(key)
    }
    if differing:
        alike = wanted.keys() - differing.keys()
        raise errors.Refusal(differences.complaint(differing, fields, alike))


def _check_map(entries, our_shapes):
    paths = [entry.path for entry in entries]
    keys = [key for entry in entries for key in entry.keys]
    if len(set(paths)) < len(paths) or len(set(keys)) < len(keys):
        raise ValueError("a parameter or a tensor stands twice in the map")
    if set(paths) != set(our_shapes):
        raise ValueError(f"the map differs from {set(paths) ^ set(our_shapes)}")


def _wanted(entries, our_shapes):
    wanted = {}
    for entry in entries:
        wanted |= their_shapes(entry, tuple(our_shapes[entry.path]))
    return wanted
