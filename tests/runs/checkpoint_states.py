"""A real train state of random floats, and what tests of checkpoints do with states."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ddpm_jax.diffusion import timesteps
from ddpm_jax.training import state as state_lib

BIG = (256, 512)  # of the largest leaf
BIG_BYTES = 4 * 256 * 512


def train_state(seed, big=BIG):
    """Return a train state on the host; no float of it can be guessed."""
    params = {
        "stem": {"kernel": jnp.zeros(big), "bias": jnp.zeros(big[1])},
        "head": {"kernel": jnp.zeros((big[1], 3))},
    }
    state = state_lib.create(
        params,
        optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3)),
        ema_decays=(0.99, 0.9999),
        timestep_sampler=timesteps.loss_second_moment(20),
    )
    random = np.random.default_rng(seed)

    def filled(leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        return jnp.asarray(random.standard_normal(leaf.shape), leaf.dtype)

    return jax.tree.map(filled, state)


def abstract(state):
    """Return the shapes of a state and where they lie."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def assert_same_bits(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()
