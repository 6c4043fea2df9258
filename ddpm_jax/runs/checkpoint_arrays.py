"""The arrays of a checkpoint by path: what they are, whether they fit, are finite."""

import functools

import jax
import jax.numpy as jnp

from ddpm_jax.models import functional


def by_path(state) -> dict:
    """Return {path: leaf}, e.g. "params/stem/kernel".

    Raises:
        TypeError: a leaf is no array of JAX or a typed key: it would come back as
            something else.
    """
    leaves = functional.by_path(state)
    for name, leaf in leaves.items():
        if not isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
            raise TypeError(f"{name} is a {type(leaf).__name__}, not a jax.Array")
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            raise TypeError(f"{name} is a typed key: take jax.random.key_data of it")
    return leaves


def describe(state) -> dict[str, str]:
    """Return {path: "dtype[shape]"} of every leaf."""
    return {
        path: f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in by_path(state).items()
    }


def size_of(state) -> int:
    """Return the bytes of all leaves, arrays or their shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


def first_misfit(saved: dict[str, str], wanted: dict[str, str], *, partial: bool):
    """Return what differs between two descriptions, None if nothing does.

    Args:
        saved: of the checkpoint.
        wanted: of the state to restore.
        partial: `wanted` may leave out what is saved.
    """
    paths = wanted.keys() if partial else saved.keys() | wanted.keys()
    differences = [
        f"{path} is {saved.get(path, 'missing')} in the checkpoint and "
        f"{wanted.get(path, 'missing')} here"
        for path in sorted(paths)
        if saved.get(path) != wanted.get(path)
    ]
    more = len(differences) - 1
    return (
        f"{differences[0]}{f' (and {more} more)' * (more > 0)}" if differences else None
    )


def first_not_finite(state) -> str | None:
    """Return the path of the first leaf with NaN or infinity in it, or None.

    It is reduced where it lies, by one small program for each shape, of which a network
    has few: a single program over all leaves takes longer to compile. Every process
    looks at its own shards; there is nothing to exchange. Integers are skipped.
    """
    flags = {
        path: _are_finite(part, _whole_axes(part))
        for path, part in _own_parts(state).items()
        if jnp.issubdtype(part.dtype, jnp.inexact)
    }
    for path, flag in flags.items():
        if not all(jax.device_get(part.data).all() for part in flag.addressable_shards):
            return path
    return None


def _own_parts(state) -> dict[str, jax.Array]:
    """Return {path: leaf}, of a replicated one the copy of one device."""
    return {
        path: leaf.addressable_data(0) if leaf.is_fully_replicated else leaf
        for path, leaf in by_path(state).items()
    }


@functools.partial(jax.jit, static_argnames="axes")
def _are_finite(part, axes):
    return jnp.isfinite(part).all(axis=axes)


def _whole_axes(array: jax.Array) -> tuple[int, ...]:
    """Return the axes that no sharding splits: reducing them needs no communication."""
    local = array.sharding.shard_shape(array.shape)
    return tuple(axis for axis in range(array.ndim) if local[axis] == array.shape[axis])


def placed(state):
    """Return abstract leaves with the first device where they name no sharding.

    Without one Orbax would look for the devices of the run that saved it.
    """
    first = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=leaf.sharding or first
        ),
        state,
    )
