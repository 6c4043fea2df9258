"""Where each of our parameters stands in a state dict of diffusers' UNet2DModel.

Written for the tests from the published key grammar: levels of the decoder are counted
from the deepest, and queries, keys and values are layers of their own.
"""

import jax
import jax.numpy as jnp
import numpy as np
from openai_names import to_ours

from ddpm_jax.models import network

PARTS = {
    "time_embedding/dense_1": "time_embedding.linear_1",
    "time_embedding/dense_2": "time_embedding.linear_2",
    "norm_out": "conv_norm_out",
    "middle/block_1": "mid_block.resnets.0",
    "middle/attention": "mid_block.attentions.0",
    "middle/block_2": "mid_block.resnets.1",
    "blocks": "resnets",
    "norm_1": "norm1",
    "conv_1": "conv1",
    "embed": "time_emb_proj",
    "norm_2": "norm2",
    "conv_2": "conv2",
    "shortcut": "conv_shortcut",
    "norm": "group_norm",
    "proj_out": "to_out.0",
    "scale": "weight",
    "kernel": "weight",
}


def diffusers_key(path, *, levels):
    """Return the state-dict key of one parameter path, e.g. "conv_in/kernel"."""
    for start in (start for start in PARTS if "/" in start):
        path = path.replace(start, PARTS[start])
    parts = path.split("/")
    if parts[0] == "up":
        parts[:2] = ["up_blocks", str(levels - 1 - int(parts[1]))]
    if parts[0] == "down":
        parts[0] = "down_blocks"
    resampler = "upsamplers.0" if parts[0] == "up_blocks" else "downsamplers.0"
    names = PARTS | {"resample": resampler}
    return ".".join(names.get(part, part) for part in parts)


def from_state_dict(weights, net, *, levels):
    """Return a state dict's tensors as our parameters; none may be left over."""
    used = set()

    def tensor(path, shape):
        path = network.path_name(path)
        key = diffusers_key(path, levels=levels)
        three = [key.replace(".qkv.", f".to_{name}.") for name in "qkv"]
        keys = three if ".qkv." in key else [key]
        used.update(keys)
        converted = np.concatenate([to_ours(weights[k], path) for k in keys], axis=-1)
        assert converted.shape == shape.shape, path
        return jnp.asarray(converted)

    params = jax.tree_util.tree_map_with_path(tensor, net.shapes)
    assert used == set(weights)
    return params
