"""Our networks at tiny sizes, from fields as imports and exports know them."""

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax import config as config_lib
from ddpm_jax.config import reading
from ddpm_jax.models import functional

TINY = {
    "data.image_size": (8, 8),
    "data.channels": 3,
    "model.channels": 16,
    "model.channel_mult": (1, 2),
    "model.num_res_blocks": 1,
    "model.attention_resolutions": (4,),
    "model.num_heads": 2,
    "model.norm_groups": 8,
}


def tiny(changes=()):
    """Return all fields of a config, those of a tiny network where not changed."""
    fields = dict(reading.leaves(config_lib.base().to_dict()))
    fields = {name: value for name, value in fields.items() if "." in name}
    return {**fields, **TINY, "facts.num_classes": None, **dict(changes)}


def random_params(network, seed=0):
    """Return parameters that all matter: kernels by fan-in, scales around 1."""
    rng = np.random.default_rng(seed)

    def draw(path, shape):
        drawn = rng.normal(size=shape.shape)
        if functional.path_name(path).endswith("/scale"):
            drawn = 1 + 0.2 * drawn
        elif len(shape.shape) > 1:
            drawn = drawn * np.prod(shape.shape[:-1]) ** -0.5
        else:
            drawn = drawn * 0.2
        return np.asarray(drawn, np.float32)

    return jax.tree_util.tree_map_with_path(draw, network.shapes)


def output(network, params, x, t, labels=None):
    """Return what the network makes of PyTorch's x [B, C, H, W], in that layout."""
    images = np.asarray(x).transpose(0, 2, 3, 1)
    labels = None if labels is None else jnp.asarray(np.asarray(labels), jnp.int32)
    made = jax.jit(
        network.apply, compiler_options={"xla_backend_optimization_level": 0}
    )(params, images, np.asarray(t, np.int32), labels)
    return np.moveaxis(np.asarray(made), -1, 1)


def nested(arrays):
    """Return {"a": {"b": array}} of {"a/b": array}."""
    tree = {}
    for path, array in arrays.items():
        *parents, leaf = path.split("/")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = array
    return tree
