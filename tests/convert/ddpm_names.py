"""A three-level network of diffusers under the names of the DDPM code, by patterns.

Written for the tests alone: the package has tables of its own.
"""

import re

# What DDPM's code calls the modules of diffusers, by pattern.
TENSORFLOW = [
    (r"time_embedding.linear_1", "temb/dense0"),
    (r"time_embedding.linear_2", "temb/dense1"),
    (r"conv_norm_out", "norm_out"),
    (r"mid_block.resnets.0", "mid/block_1"),
    (r"mid_block.resnets.1", "mid/block_2"),
    (r"mid_block.attentions.0", "mid/attn_1"),
    (r"up_blocks.(\d)", lambda found: f"up_{2 - int(found[1])}"),  # three levels
    (r"down_blocks.(\d)", r"down_\1"),
    (r"\.resnets.(\d)", r"/block_\1"),
    (r"\.attentions.(\d)", r"/attn_\1"),
    (r"\.(down|up)samplers.0", r"/\1sample"),
    (r"time_emb_proj", "temb_proj"),
    (r"conv_shortcut", "nin_shortcut"),
    (r"group_norm", "norm"),
    (r"to_out.0", "proj_out"),
    (r"\bto_([qkv])", r"\1"),
]


def tensorflow(key, array):
    """Return a tensor of diffusers as (name, array) of DDPM's TensorFlow code."""
    for pattern, name in TENSORFLOW:
        key = re.sub(pattern, name, key)
    module, leaf = key.replace(".", "/").rsplit("/", 1)
    is_norm = re.search(r"norm\w*$", module)
    leaves = {"weight": "gamma", "bias": "beta"} if is_norm else {}
    leaf = leaves.get(leaf, {"weight": "W", "bias": "b"}[leaf])
    if array.ndim == 4:
        array = array.transpose(2, 3, 1, 0)  # HWIO
        array = array[0, 0] if "nin_shortcut" in module else array
    elif array.ndim == 2:
        array = array.T
    return f"{module}/{leaf}", array


def pytorch_copy(key, array):
    """Return a tensor of diffusers as (name, array) of the copy of DDPM's code."""
    name, _ = tensorflow(key, array)
    module = name.rsplit("/", 1)[0].replace("/", ".")
    module = re.sub(r"^(down|up)_(\d)\.(block|attn)_(\d)", r"\1.\2.\3.\4", module)
    module = re.sub(r"^(down|up)_(\d)", r"\1.\2", module)
    module = re.sub(r"dense(\d)", r"dense.\1", module)
    if array.ndim == 2 and "attn" in module:
        array = array[:, :, None, None]
    return f"{module}.{key.rsplit('.', 1)[1]}", array
