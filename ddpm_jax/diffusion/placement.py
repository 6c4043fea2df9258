"""Where the state of a scan lies, inside of the meshes that a user set.

In `jax.shard_map` and under meshes with Explicit axes the type of a value holds its
place, and a scan asks that its state has one type from start to end. The place of what
the steps make is that of noise, network and condition, which the start may not have.
"""

import jax
from jax.sharding import AxisType


def settled(start, advance):
    """Return the start of a scan, placed as what follows will be.

    Nothing is done outside of such meshes; inside, the step is traced once or twice
    more, and computes nothing more.

    Args:
        start: pytree of arrays.
        advance: `state → state`, one step.
    """
    kinds = jax.sharding.get_abstract_mesh().axis_types
    if all(kind == AxisType.Auto for kind in kinds):
        return start
    for _ in jax.tree.leaves(start):  # a place spreads from one value to another
        before = jax.tree.map(jax.typeof, start)
        start = jax.tree.map(_placed_as, start, jax.eval_shape(advance, start))
        if jax.tree.map(jax.typeof, start) == before:
            break
    return start


def _placed_as(value, wanted):
    kind = jax.typeof(value)
    missing = _varying(wanted) - _varying(kind)
    if missing:
        value = jax.lax.pcast(value, tuple(sorted(missing)), to="varying")
    if kind.sharding != wanted.sharding:
        value = jax.sharding.reshard(value, wanted.sharding)
    return value


def _varying(kind) -> frozenset:
    """Return the axes of a `jax.shard_map` over which a value differs."""
    axes = kind.manual_axis_type
    return frozenset() if axes is None else axes.varying
