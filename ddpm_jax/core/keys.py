"""Random keys derived from what they are for, never carried from step to step.

A key is a pure function of (seed, purpose, step, index, draw_epoch) and is used once.
Resuming therefore needs no random state, and example i draws the same numbers for any
batch size, any number of devices and after any restart.
"""

import zlib

import jax
import jax.numpy as jnp


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
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(purpose.encode()))
    key = jax.random.fold_in(key, draw_epoch)
    key = jax.random.fold_in(key, step)
    return key if index is None else fold_in_each(key, index)


def fold_in_each(keys: jax.Array, data: int | jax.Array) -> jax.Array:
    """Fold integers into keys with broadcasting: scalar or [B] of either."""
    data = jnp.asarray(data, jnp.uint32)
    keys, data = jnp.broadcast_arrays(keys, data)
    if keys.ndim == 0:
        return jax.random.fold_in(keys, data)
    return jax.vmap(jax.random.fold_in)(keys, data)


def normal_each(keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draw standard normals, one example per key: [B] keys → float32 [B, *shape]."""
    return jax.vmap(lambda key: jax.random.normal(key, shape, jnp.float32))(keys)
