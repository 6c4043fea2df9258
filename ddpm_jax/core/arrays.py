"""Shapes: broadcasting per-example values and averaging over all but the batch."""

import jax
import jax.numpy as jnp


def expand_to(values: jax.Array, like: jax.Array) -> jax.Array:
    """Append axes to `values` [B] until it broadcasts against `like` [B, ...]."""
    return values.reshape(values.shape + (1,) * (like.ndim - values.ndim))


def mean_flat(values: jax.Array) -> jax.Array:
    """Return the mean over every axis but the first: [B, ...] → [B]."""
    return jnp.mean(values.reshape(values.shape[0], -1), axis=1)
