"""The blocks of a network as seen from its parameters: their names and norms."""

import jax
import jax.numpy as jnp

from ddpm_jax.models import functional

MAX_DEPTH_OF_SINGLE = 3


def block_names(params) -> tuple[str, ...]:
    """Return the names of the blocks, in the order of `norms`.

    A block is a part such as "conv_in", or one of several below a common name such as
    "down/0" and "middle/block_1": the first name of a parameter's path, and the second
    too where the path is longer than part, layer and array ("down/0/blocks/1/conv_1/
    bias", but "time_embedding/dense_1/bias"). The U-Nets of the papers have 16 to 20.

    Args:
        params: the parameters, or anything shaped like them.
    """
    return tuple(_by_block(params))


def norms(tree) -> tuple[jax.Array, jax.Array]:
    """Return the norm of every block [K] and the global norm, from the same sums.

    Args:
        tree: parameters, or a gradient of them.
    """
    sums = jnp.stack(
        [
            sum(jnp.sum(jnp.square(leaf)) for leaf in leaves)
            for leaves in _by_block(tree).values()
        ]
    )
    return jnp.sqrt(sums), jnp.sqrt(jnp.sum(sums))


def _by_block(tree):
    """Return the leaves by the name of their block."""
    blocks = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        depth = 2 if len(path) > MAX_DEPTH_OF_SINGLE else 1
        blocks.setdefault(functional.path_name(path[:depth]), []).append(leaf)
    return blocks
