"""The arrays of a checkpoint by path: what they are, whether they fit, are finite."""

import functools

import jax
import jax.numpy as jnp


def by_path(state) -> dict:
    """Return {path: leaf}, e.g. "params/stem/kernel".

    Raises:
        TypeError: a leaf is no array of JAX or a typed key: it would come back as
            something else.
    """
    leaves = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if not isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
            raise TypeError(f"{name} is a {type(leaf).__name__}, not a jax.Array")
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            raise TypeError(f"{name} is a typed key: take jax.random.key_data of it")
        leaves[name] = leaf
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
    looks at its own shards; there is nothing to exchange. Integers are passed over.
    """
    flags = {
        path: _is_finite(leaf, _whole_axes(leaf))
        for path, leaf in by_path(state).items()
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
    }
    for path, flag in flags.items():
        shards = flag.addressable_shards
        mine = shards[:1] if flag.is_fully_replicated else shards
        if not all(jax.device_get(shard.data).all() for shard in mine):
            return path
    return None


@functools.partial(jax.jit, static_argnames="axes")
def _is_finite(array, axes):
    return jnp.isfinite(array).all(axis=axes)


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
