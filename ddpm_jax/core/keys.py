"""Random keys derived from what they are for, never carried from step to step.

A key is a pure function of (seed, purpose, step, index, draw_epoch) and is used once.
Resuming therefore needs no random state, and example i draws the same numbers for any
batch size, any number of devices and after any restart.

That holds of one generator alone, and JAX takes another where its flags say so. Keys
and draws are made here, where generator and type of the numbers are said outright, so
that no flag of JAX changes a number.
"""

import zlib

import jax
import jax.numpy as jnp

GENERATOR = "threefry2x32"


def key(seed: int | jax.Array) -> jax.Array:
    """Return a typed key, of our generator whatever JAX_DEFAULT_PRNG_IMPL says.

    Its two words are 0 and the seed, as `jax.random.key` makes them of 32 bits where
    JAX_RANDOM_SEED_OFFSET is 0.
    """
    seed = jnp.asarray(seed).astype(jnp.uint32) if hasattr(seed, "dtype") else seed
    words = jnp.stack([jnp.uint32(0), jnp.asarray(seed, jnp.uint32)])
    return jax.random.wrap_key_data(words, impl=GENERATOR)


def clone(key: jax.Array) -> jax.Array:
    """Return the same key, for a draw that is not made, or made alike on purpose."""
    return jax.random.clone(key)


def pinned():
    """Return a context for draws, the same whatever JAX_THREEFRY_PARTITIONABLE says."""
    return jax.threefry_partitionable(True)


def key_for(
    seed: int,
    purpose: str,
    *,
    step: int | jax.Array = 0,
    index: int | jax.Array | None = None,
    draw_epoch: int | jax.Array = 0,
) -> jax.Array:
    """Return the key of one purpose at one step.

    Args:
        seed: the run's seed, 0 … 2³²−1.
        purpose: what the key draws, e.g. "train/noise"; hashed by CRC-32.
        step: optimizer step or position in a chain; may be traced.
        index: optional index or [B] indices of examples; gives a key or [B] keys.
        draw_epoch: raised after a roll-back, so that the same step draws anew.

    Returns:
        A typed key, scalar or [B].
    """
    stream = jax.random.fold_in(key(seed), zlib.crc32(purpose.encode()))
    stream = jax.random.fold_in(stream, draw_epoch)
    stream = jax.random.fold_in(stream, step)
    return stream if index is None else fold_in_each(stream, index)


def fold_in_each(keys: jax.Array, data: int | jax.Array) -> jax.Array:
    """Fold integers into keys with broadcasting: scalar or [B] of either."""
    data = jnp.asarray(data, jnp.uint32)
    keys, data = jnp.broadcast_arrays(keys, data)
    if keys.ndim == 0:
        return jax.random.fold_in(keys, data)
    return jax.vmap(jax.random.fold_in)(keys, data)


def normal_each(keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draw standard normals, one example per key: [B] keys → float32 [B, *shape]."""
    return jax.vmap(lambda one: normal(one, shape))(keys)


def integers_each(keys: jax.Array, stop: int) -> jax.Array:
    """Draw integers, one per key: [B] keys → int32 [B] in 0 … stop−1."""
    return jax.vmap(lambda one: integers(one, (), stop))(keys)


# ---- draws: of stated types, so that jax_enable_x64 changes none ---------------------


def split(key: jax.Array, num: int = 2) -> jax.Array:
    """Return [num] keys in place of one."""
    with pinned():
        return jax.random.split(key, num)


def normal(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    """Draw standard normals."""
    with pinned():
        return jax.random.normal(key, shape, dtype)


def uniform(
    key: jax.Array, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0
) -> jax.Array:
    """Draw float32 numbers in [low, high)."""
    with pinned():
        return jax.random.uniform(key, shape, jnp.float32, low, high)


def bernoulli(key: jax.Array, p: float, shape: tuple[int, ...]) -> jax.Array:
    """Draw booleans, True with probability p."""
    with pinned():
        return jax.random.bernoulli(key, jnp.float32(p), shape)


def integers(key: jax.Array, shape: tuple[int, ...], stop: int) -> jax.Array:
    """Draw int32 numbers in 0 … stop−1."""
    with pinned():
        return jax.random.randint(key, shape, 0, stop, jnp.int32)


def categorical(key: jax.Array, logits: jax.Array, n: int) -> jax.Array:
    """Draw int32 [n], entry i of the logits [K] with probability ∝ exp(logits[i])."""
    with pinned():
        logits = jnp.asarray(logits, jnp.float32)
        return jax.random.categorical(key, logits, shape=(n,)).astype(jnp.int32)
