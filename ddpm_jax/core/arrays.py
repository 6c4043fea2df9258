"""Arrays: broadcasting, means, and what can be known of a value on the host."""

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.core import errors, flags


def expand_to(values: jax.Array, like: jax.Array) -> jax.Array:
    """Append axes to `values` [B] until it broadcasts against `like` [B, ...]."""
    return values.reshape(values.shape + (1,) * (like.ndim - values.ndim))


def known(value) -> np.ndarray | None:
    """Return a value on the host, or None where it cannot be read on the host.

    That is one that is traced, or part of which lies on other machines. Values are
    checked outside of compiled programs alone, so that no check costs a step anything.
    """
    if isinstance(value, jax.core.Tracer):
        return None
    if isinstance(value, jax.Array):
        return jax.device_get(value) if value.is_fully_addressable else None
    return np.asarray(value)


def number(value) -> float | None:
    """Return one number, such as a NumPy scalar or an array of rank 0, as a float.

    Returns:
        None where it cannot be read on the host, see `known`.

    Raises:
        Refusal: no number, or several.
    """
    found = known(value)
    shape = np.shape(value if found is None else found)
    if shape != () or (found is not None and found.dtype.kind not in "iuf"):
        raise errors.Refusal(f"{value!r} where one number is wanted: give a float")
    return None if found is None else float(found)


def spread(count: int, limit: int) -> np.ndarray:
    """Return at most `limit` indices of 0 … count − 1, evenly spaced, int64."""
    return np.linspace(0, count - 1, min(count, limit)).astype(np.int64)


def padded_range(start: int, size: int, stop: int) -> np.ndarray:
    """Return `size` indices from `start` on; the last one below `stop` is repeated."""
    return np.minimum(np.arange(start, start + size), stop - 1)


def on_device(value: np.ndarray) -> jax.Array:
    """Return host numbers on the device: it is meant, see `flags`."""
    with flags.as_written():
        return jnp.asarray(value)


def mean_flat(values: jax.Array) -> jax.Array:
    """Return the mean over every axis but the first: [B, ...] → [B]."""
    return jnp.mean(values.reshape(values.shape[0], -1), axis=1)
