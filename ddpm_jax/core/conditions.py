"""Conditions: what a network is given besides x_t and t, as one dictionary of arrays.

    condition = {"label": int32 [B]}        {} where there is none, never None

A network declares which keys it reads, in a `Spec` each. Everything between the data
source that makes a condition and the network that reads it works from that
declaration and knows no key: label drop-out, guidance, padding, sharding, refusals.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.core import arrays, errors


class Spec(NamedTuple):
    """One key of a condition.

    Attributes:
        shape: of one example; None where an axis has any length.
        dtype: such as "int32".
        none: the value that means "no condition", a number or an array of `shape`;
            None where the network was never trained without this key.
        count: of an index, how many values it may have, from 0; None where any.
    """

    shape: tuple[int | None, ...]
    dtype: str
    none: Any = None
    count: int | None = None


Condition = Mapping[str, jax.Array]
Specs = Mapping[str, Spec]


def check(specs: Specs, condition: Condition, batch: int) -> None:
    """Refuse a condition that a network does not read as it stands.

    Args:
        specs: what the network declares.
        condition: arrays [B, ...] by key, or their shapes.
        batch: B.

    Raises:
        Refusal: names the key that is missing, unknown or of another shape or type, or
            an index beyond the last. Traced values are not checked.
    """
    unknown = sorted(condition.keys() - specs.keys())
    if unknown:
        reads = ", ".join(sorted(specs)) or "no condition"
        raise errors.Refusal(
            f"{unknown[0]!r} was given to a network that reads {reads}: leave it out, "
            "or build the network to read it"
        )
    for key, spec in specs.items():
        wanted = f"{spec.dtype}{[batch, *spec.shape]}".replace("None", "any")
        if key not in condition:
            raise errors.Refusal(
                f"the network reads the condition {key!r} and got none: give {wanted}"
            )
        value = condition[key]
        if not _fits(value, spec, batch):
            raise errors.Refusal(
                f"the condition {key!r} is {value.dtype}{list(value.shape)}: the "
                f"network reads {wanted}"
            )
        _check_count(key, value, spec)


def _check_count(key, value, spec):
    if spec.count is None or isinstance(value, jax.ShapeDtypeStruct):
        return
    values = arrays.known(value)
    if values is None or not np.any((values < 0) | (values >= spec.count)):
        return
    wrong = values[(values < 0) | (values >= spec.count)].flat[0]
    none = "" if spec.none is None else f', where {spec.none} is "no condition"'
    raise errors.Refusal(
        f"the condition {key!r} is {wrong}: choose 0 … {spec.count - 1}{none}"
    )


def _fits(value, spec, batch):
    wanted = (batch, *spec.shape)
    same_kind = jnp.issubdtype(value.dtype, np.dtype(spec.dtype).type) or (
        np.dtype(value.dtype).kind == np.dtype(spec.dtype).kind
    )
    return (
        same_kind
        and len(value.shape) == len(wanted)
        and all(w is None or w == n for w, n in zip(wanted, value.shape, strict=True))
    )


def has_none(specs: Specs) -> bool:
    """Return whether a network with these conditions also has an unconditional mode."""
    return any(spec.none is not None for spec in specs.values())


def without(specs: Specs, condition: Condition) -> dict[str, jax.Array]:
    """Return the condition with every key that has one at its "no condition" value."""
    return {
        key: value if specs[key].none is None else filled(value, specs[key].none)
        for key, value in condition.items()
    }


def filled(like, value) -> jax.Array:
    """Return an array of the shape and type of `like` with one value for all."""
    return jnp.broadcast_to(jnp.asarray(value, like.dtype), like.shape)


def dropped(specs: Specs, condition: Condition, drop) -> dict[str, jax.Array]:
    """Return the condition with some examples at the "no condition" value.

    All keys of an example are dropped together: what is left is unconditional.

    Args:
        specs: of the network.
        condition: arrays [B, ...] by key.
        drop: bool [B], which examples.
    """
    nothing = without(specs, condition)
    return {
        key: jnp.where(arrays.expand_to(drop, value), nothing[key], value)
        for key, value in condition.items()
    }


def paired(one: Condition, other: Condition) -> dict[str, jax.Array]:
    """Return both conditions as one of 2B rows: row 2i of `one`, row 2i+1 of `other`.

    Pairs stay together, so that a batch that is split over devices is not moved.
    """

    def interleave(a, b):
        return jnp.stack([a, b], axis=1).reshape(-1, *a.shape[1:])

    return jax.tree.map(interleave, one, other)


def selected(specs: Specs, batch: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return the keys of a data batch that a network reads.

    Args:
        specs: of the network.
        batch: arrays by name, such as "image" and "label".
        source: name of the data, for the refusal.

    Raises:
        Refusal: the data does not have a key.
    """
    missing = sorted(specs.keys() - batch.keys())
    if missing:
        raise errors.Refusal(
            f"the network reads the condition {missing[0]!r}, and the data {source!r} "
            f"gives {', '.join(sorted(batch))}: choose data that has it, or a network "
            "that does not read it"
        )
    return {key: batch[key] for key in specs}


def abstract(specs: Specs, batch: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Return shapes and types of a condition of `batch` examples.

    Raises:
        Refusal: an axis of any length: such a condition has no shape of its own.
    """
    for key, spec in specs.items():
        if None in spec.shape:
            raise errors.Refusal(
                f"the condition {key!r} has the shape {list(spec.shape)}, which leaves "
                "an axis open: a network that is trained needs its length"
            )
    return {
        key: jax.ShapeDtypeStruct((batch, *spec.shape), np.dtype(spec.dtype))
        for key, spec in specs.items()
    }
