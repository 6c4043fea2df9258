"""A tiny U-Net for the tests, its parameters and its inputs."""

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.models import unet

TINY = {
    "image_size": (8, 8),
    "in_channels": 3,
    "out_channels": 3,
    "channels": 8,
    "channel_mult": (1, 2),
    "num_res_blocks": 1,
    "attention_resolutions": (4,),
    "num_heads": 2,
    "norm_groups": 4,
}


def tiny(**changes):
    return unet.unet(**{**TINY, **changes})


def random_params(net, seed=0):
    """Parameters without zeros: the published start would hide most of the network."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda s: jnp.asarray(rng.normal(0.0, 0.15, s.shape), s.dtype), net.shapes
    )


def batch(size=4, shape=(8, 8, 3), seed=1):
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.normal(size=(size, *shape)), jnp.float32)
    return x, jnp.asarray(rng.integers(0, 1000, size), jnp.int32)


def compiled(function):
    """Compile without optimisation: these tests compare results, at tiny sizes."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def example_keys(size=4):
    return jax.vmap(jax.random.key)(jnp.arange(size))


def equations(jaxpr):
    """Yield every equation of a jaxpr and of those inside it."""
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jax.tree.leaves(
            list(eqn.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")
        ):
            if hasattr(inner, "eqns"):
                yield from equations(inner)
