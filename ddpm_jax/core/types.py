"""The callables that the layers hand to each other."""

from collections.abc import Callable

import jax

Network = Callable[[jax.Array, jax.Array], jax.Array]
"""`network(x_t, t_seen) → output`: x_t [B, ..., C], t_seen [B] as the network sees it
(original timesteps, or floats in 0 … 1000); output [B, ..., C] or [B, ..., 2C]."""

NoiseFn = Callable[[jax.Array], jax.Array]
"""`noise_fn(position) → noise` [B, ...]: the position-th draw of a chain."""
