"""Where each of our parameters stands in a state dict of OpenAI's networks.

Written for the tests from the published key grammar: `input_blocks.i.j` counts the
encoder's blocks and downsamplings, `output_blocks.i.j` the decoder's blocks from the
deepest level up, the upsampling being the last module of a level's last block.
"""

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.models import network

RES_BLOCK = {
    "norm_1": "in_layers.0",
    "conv_1": "in_layers.2",
    "embed": "emb_layers.1",
    "norm_2": "out_layers.0",
    "conv_2": "out_layers.3",
    "shortcut": "skip_connection",
}
OUTSIDE = {
    "time_embedding/dense_1": "time_embed.0",
    "time_embedding/dense_2": "time_embed.2",
    "label_embedding": "label_emb",
    "conv_in": "input_blocks.0.0",
    "norm_out": "out.0",
    "conv_out": "out.2",
}
ATTENTION_POOL = {
    "norm": "out.0",
    "positional_embedding": "out.2",
    "qkv": "out.2.qkv_proj",
    "proj_out": "out.2.c_proj",
}
MIDDLE = {"block_1": "0", "attention": "1", "block_2": "2"}


def openai_key(path, *, levels, num_res_blocks, attended):
    """Return the state-dict key of one parameter path, e.g. "conv_in/kernel"."""
    module, _, leaf = path.rpartition("/")
    return f"{_module(module, levels, num_res_blocks, attended)}.{_leaf(leaf)}"


def from_state_dict(weights, net, **layout):
    """Return a state dict's tensors as our parameters; none may be left over."""
    used = set()

    def tensor(path, shape):
        path = network.path_name(path)
        key = openai_key(path, **layout)
        used.add(key)
        converted = to_ours(weights[key], path)
        assert converted.shape == shape.shape, path
        return jnp.asarray(converted)

    params = jax.tree_util.tree_map_with_path(tensor, net.shapes)
    assert used == set(weights)
    return params


def to_ours(tensor, path):
    """Return a PyTorch tensor in our layout: OIHW → HWIO, [out, in] → [in, out]."""
    if path.endswith("/positional_embedding"):
        return tensor.T
    if not path.endswith("/kernel"):
        return tensor
    if tensor.ndim == 3:  # the 1×1 Conv1d of an attention
        tensor = tensor[..., 0]
    return np.transpose(tensor, (2, 3, 1, 0) if tensor.ndim == 4 else (1, 0))


def _leaf(leaf):
    return leaf if leaf in ("bias", "positional_embedding") else "weight"


def _module(module, levels, n, attended):
    if module in OUTSIDE:
        return OUTSIDE[module]
    match module.split("/"):
        case ["pool", *rest]:
            return ATTENTION_POOL["/".join(rest) or "positional_embedding"]
        case ["middle", part, *rest]:
            return f"middle_block.{MIDDLE[part]}.{_part(rest)}"
        case ["down", level, "resample", *rest]:
            return f"input_blocks.{(int(level) + 1) * (n + 1)}.0.{_part(rest, 'op')}"
        case ["down", level, kind, i, *rest]:
            index = 1 + int(level) * (n + 1) + int(i)
            return f"input_blocks.{index}.{_slot(kind)}.{_part(rest)}"
        case ["up", level, "resample", *rest]:
            index = (levels - int(level)) * (n + 1) - 1
            slot = 2 if attended[int(level)] else 1
            return f"output_blocks.{index}.{slot}.{_part(rest, 'conv')}"
        case ["up", level, kind, i, *rest]:
            index = (levels - 1 - int(level)) * (n + 1) + int(i)
            return f"output_blocks.{index}.{_slot(kind)}.{_part(rest)}"
    raise KeyError(module)


def _slot(kind):
    return {"blocks": 0, "attentions": 1}[kind]


def _part(rest, resample_conv=None):
    (part,) = rest
    if part == "conv":
        return resample_conv
    return RES_BLOCK.get(part, part)  # an attention's parts have equal names
