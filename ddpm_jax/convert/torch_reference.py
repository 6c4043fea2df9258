"""The published networks once more, in PyTorch, straight from their own state dicts.

A second opinion for certificates: it shares no line with our Flax networks and none
with the import maps, since it walks the names of the source. It is written from the
published descriptions; float32, without dropout, differentiable.

Images are [B, C, H, W] here, as in the sources. PyTorch is imported at the first use.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ddpm_jax.convert import torch_layers

# ---- OpenAI --------------------------------------------------------------------------


class OpenAI:
    """What U-Net and classifier have in common.

    Args:
        tensors: the state dict.
        num_res_blocks: blocks of an encoder level.
        num_heads: heads of every attention, unless `head_channels` is given.
        head_channels: channels of a head.
        qkv_order: "legacy" ([head][q|k|v][d]) or "new" ([q|k|v][head][d]).
        groups: of GroupNorm; the published networks have 32.
    """

    def __init__(
        self,
        tensors,
        *,
        num_res_blocks,
        num_heads=4,
        head_channels=None,
        qkv_order="legacy",
        groups=32,
    ):
        self.layers = torch_layers.Layers(tensors, groups=groups, epsilon=1e-5)
        self.num_res_blocks = num_res_blocks
        self.num_heads = num_heads
        self.head_channels = head_channels
        self.qkv_order = qkv_order
        self.stages = self.layers.count("input_blocks")

    def embed(self, t, y):
        layers = self.layers
        dim = layers["time_embed.0.weight"].shape[1]
        sinusoid = layers.sinusoid(t, dim, sines_first=False, shift=0)
        embedding = layers.mlp("time_embed.0", "time_embed.2", sinusoid)
        if y is not None:
            embedding = embedding + layers["label_emb.weight"][y]
        return embedding

    def encode(self, x, embedding):
        """Return the maps that every stage of the encoder leaves."""
        maps = [self.layers.conv("input_blocks.0.0", x)]
        for i in range(1, self.stages):
            # conv_in, then for each level its blocks and, but for the last, a halving.
            halves = i % (self.num_res_blocks + 1) == 0
            resample = self.layers.halve if halves else None
            maps.append(self.stage(f"input_blocks.{i}", maps[-1], embedding, resample))
        return maps

    def middle(self, h, embedding):
        return self.stage("middle_block", h, embedding, None)

    def decode(self, h, maps, embedding):
        for i in range(self.stages):
            level_ends = i % (self.num_res_blocks + 1) == self.num_res_blocks
            doubles = level_ends and i < self.stages - 1
            h = self.layers.join(h, maps.pop())
            resample = self.layers.double if doubles else None
            h = self.stage(f"output_blocks.{i}", h, embedding, resample)
        return h

    def stage(self, name, h, embedding, resample):
        """Run one numbered sequence of modules; `resample` is its last one's.

        In the decoder it follows the block and its attention, in the encoder it stands
        alone; a resampling without parameters has no names at all.
        """
        layers, modules = self.layers, self.layers.count(name)
        starts = 0 if name.startswith("input_blocks") else 1
        resampled = resample is None
        for j in range(modules):
            part = f"{name}.{j}"
            if layers.has(f"{part}.qkv"):
                h = self.attention(part, h)
            elif layers.has(f"{part}.op"):
                h, resampled = layers.conv(f"{part}.op", h, stride=2), True
            elif layers.has(f"{part}.conv"):
                h, resampled = layers.conv(f"{part}.conv", resample(h)), True
            elif not resampled and j >= starts:
                h, resampled = self.block(part, h, embedding, resample), True
            else:
                h = self.block(part, h, embedding, None)
        return h if resampled else resample(h)

    def block(self, name, h, embedding, resample):
        parts = ("in_layers.0", "in_layers.2", "emb_layers.1")
        parts += ("out_layers.0", "out_layers.3", "skip_connection")
        project = self.layers[f"{name}.emb_layers.1.weight"]
        width = self.layers[f"{name}.out_layers.0.weight"].shape[0]
        return self.layers.residual(
            [f"{name}.{part}" for part in parts],
            h,
            embedding,
            scale_shift=project.shape[0] == 2 * width,
            resample=resample,
        )

    def attention(self, name, h):
        layers = self.layers
        B, C, H, W = h.shape
        qkv = layers.conv(f"{name}.qkv", layers.norm(f"{name}.norm", h))
        packed = qkv.reshape(B, 3 * C, H * W)
        mixed = self.mix(packed, self.heads(C), self.qkv_order, name)
        return h + layers.conv(f"{name}.proj_out", mixed.reshape(B, C, H, W))

    def heads(self, width):
        return width // self.head_channels if self.head_channels else self.num_heads

    def mix(self, qkv, heads, order, name=""):
        """Attend within packed [B, 3C, N] and return [B, C, N].

        `name` is of the attention, for what else it attends to: see `in_front`.
        """
        B, packed, N = qkv.shape
        d = packed // (3 * heads)
        if order == "legacy":
            q, k, v = qkv.reshape(B, heads, 3, d, N).unbind(2)
        else:
            q, k, v = qkv.reshape(B, 3, heads, d, N).unbind(1)
        k, v = self.in_front(name, k, v, order)
        mixed = self.layers.attend(q.mT, k.mT, v.mT)  # [B, heads, N, d]
        return mixed.mT.reshape(B, heads * d, N)

    def in_front(self, name, k, v, order):
        """Return keys and values [B, heads, d, N + M], here those given."""
        del name, order
        return k, v

    def run(self, x, embedding):
        """Return the output of a U-Net for its joined input."""
        layers = self.layers
        maps = self.encode(x, embedding)
        h = self.decode(self.middle(maps[-1], embedding), maps, embedding)
        return layers.conv("out.2", layers.silu(layers.norm("out.0", h)))


def openai_unet(tensors: Mapping[str, Any], x, t, y=None, low_res=None, **options):
    """Return the output of the U-Net of Improved DDPM and ADM.

    Args:
        tensors: the state dict, NumPy arrays or tensors.
        x: [B, C, H, W] tensor.
        t: [B] timesteps, integer or float.
        y: [B] int64 labels where the state dict has a label embedding.
        low_res: [B, C, h, w] for the super-resolution networks: resized bilinearly to
            x and joined behind it.
        options: what names and shapes do not tell, see `OpenAI`.

    Returns:
        [B, C_out, H, W] tensor.
    """
    net = OpenAI(tensors, **options)
    if low_res is not None:
        x = net.layers.join(x, net.layers.stretch(low_res, x))
    return net.run(x, net.embed(t, y))


def openai_classifier(tensors: Mapping[str, Any], x, t, **options):
    """Return the logits [B, classes] of ADM's noisy classifier.

    Arguments as for `openai_unet`. The pool is told by its names; that of attention has
    heads of `head_channels` channels and the "new" order whatever the blocks have.
    """
    net = OpenAI(tensors, **options)
    layers = net.layers
    embedding = net.embed(t, None)
    maps = net.encode(x, embedding)
    h = net.middle(maps[-1], embedding)
    if layers.has("out.1") or "out.2.weight" in layers.tensors:
        means = layers.join(*(level.mean((2, 3)) for level in [*maps, h]))
        hidden = layers.linear("out.0", means)
        if layers.has("out.1"):  # spatial_v2
            return layers.linear("out.3", layers.silu(layers.norm("out.1", hidden)))
        return layers.linear("out.2", hidden.relu())  # spatial
    h = layers.silu(layers.norm("out.0", h))
    if layers.has("out.2"):
        return _attention_pool(net, h)
    return layers.conv("out.3", h.mean((2, 3), keepdim=True)).flatten(1)  # adaptive


def _attention_pool(net, h):
    layers, (B, C) = net.layers, h.shape[:2]
    pixels = h.reshape(B, C, -1)
    tokens = layers.torch.cat([pixels.mean(-1, keepdim=True), pixels], dim=-1)
    tokens = tokens + layers["out.2.positional_embedding"]
    qkv = layers.conv("out.2.qkv_proj", tokens[..., None])[..., 0]
    mixed = net.mix(qkv, net.heads(C), "new")
    return layers.conv("out.2.c_proj", mixed[..., None])[:, :, 0, 0]


# ---- diffusers -----------------------------------------------------------------------


def diffusers_unet(tensors: Mapping[str, Any], config: Mapping[str, Any], x, t, y=None):
    """Return the output of a diffusers `UNet2DModel`.

    Args:
        tensors: the state dict, with today's names of attention.
        config: its config.json; a name that is missing has the class's default.
        x: [B, C, H, W] tensor.
        t: [B] timesteps.
        y: [B] int64 labels where there is an embedding of them.
    """
    net = _Diffusers(tensors, config)
    layers = net.layers
    embedding = net.embed(t, y)
    h = layers.conv("conv_in", 2 * x - 1 if config.get("center_input_sample") else x)
    maps = [h]
    for level in range(layers.count("down_blocks")):
        h = net.down(f"down_blocks.{level}", h, maps, embedding)
    h = net.block("mid_block.resnets.0", h, embedding, scale=net.middle_scale)
    if layers.has("mid_block.attentions.0"):
        h = net.attention("mid_block.attentions.0", h, scale=net.middle_scale)
    h = net.block("mid_block.resnets.1", h, embedding, scale=net.middle_scale)
    for level in range(layers.count("up_blocks")):
        h = net.up(f"up_blocks.{level}", h, maps, embedding)
    return layers.conv("conv_out", layers.silu(layers.norm("conv_norm_out", h)))


class _Diffusers:
    """The blocks of a `UNet2DModel`."""

    def __init__(self, tensors, config):
        self.layers = torch_layers.Layers(
            tensors,
            groups=config.get("norm_num_groups", 32),
            epsilon=config.get("norm_eps", 1e-5),
        )
        self.head_channels = config.get("attention_head_dim", 8)
        self.scale_shift = config.get("resnet_time_scale_shift") == "scale_shift"
        self.padding = config.get("downsample_padding", 1)
        self.middle_scale = config.get("mid_block_scale_factor", 1)
        self.sines_first = not config.get("flip_sin_to_cos", True)
        self.shift = config.get("freq_shift", 0)

    def embed(self, t, y):
        layers = self.layers
        dim = layers["time_embedding.linear_1.weight"].shape[1]
        sinusoid = layers.sinusoid(
            t, dim, sines_first=self.sines_first, shift=self.shift
        )
        names = ("time_embedding.linear_1", "time_embedding.linear_2")
        embedding = layers.mlp(*names, sinusoid)
        if y is not None:
            embedding = embedding + layers["class_embedding.weight"][y]
        return embedding

    def down(self, name, h, maps, embedding):
        """Run a level of the encoder and append what it leaves to `maps`."""
        layers, resample = self.layers, f"{name}.downsamplers.0"
        for i in range(layers.count(f"{name}.resnets")):
            h = self.stage(name, i, h, embedding)
            maps.append(h)
        if layers.has(f"{resample}.norm1"):
            maps.append(self.block(resample, h, embedding, layers.halve))
        elif layers.has(resample):
            if self.padding == 0:  # then a row and a column behind the image instead
                h = layers.functional.pad(h, (0, 1, 0, 1))
            conv = f"{resample}.conv"
            maps.append(layers.conv(conv, h, stride=2, padding=self.padding))
        return maps[-1]

    def up(self, name, h, maps, embedding):
        """Run a level of the decoder, using up `maps`."""
        layers, resample = self.layers, f"{name}.upsamplers.0"
        for i in range(layers.count(f"{name}.resnets")):
            h = self.stage(name, i, layers.join(h, maps.pop()), embedding)
        if layers.has(f"{resample}.norm1"):
            return self.block(resample, h, embedding, layers.double)
        if layers.has(resample):
            return layers.conv(f"{resample}.conv", layers.double(h))
        return h

    def stage(self, name, i, h, embedding):
        h = self.block(f"{name}.resnets.{i}", h, embedding)
        if self.layers.has(f"{name}.attentions.{i}"):
            h = self.attention(f"{name}.attentions.{i}", h)
        return h

    def block(self, name, h, embedding, resample=None, *, scale=1):
        parts = ("norm1", "conv1", "time_emb_proj", "norm2", "conv2", "conv_shortcut")
        h = self.layers.residual(
            [f"{name}.{part}" for part in parts],
            h,
            embedding,
            scale_shift=self.scale_shift,
            resample=resample,
        )
        return h / scale

    def attention(self, name, h, *, scale=1):
        layers, (B, C, H, W) = self.layers, h.shape
        norm = f"{name}.group_norm"
        normed = layers.norm(norm, h) if layers.has(norm) else h
        heads = C // (self.head_channels or C)
        q, k, v = (
            layers.conv(f"{name}.{part}", normed).reshape(B, heads, -1, H * W).mT
            for part in ("to_q", "to_k", "to_v")
        )
        mixed = layers.attend(q, k, v).mT.reshape(B, C, H, W)
        return (h + layers.conv(f"{name}.to_out.0", mixed)) / scale


# ---- DDPM ----------------------------------------------------------------------------

DDPM_CONFIG = {
    # The network of DDPM in the words of diffusers.
    "attention_head_dim": None,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
}
DDPM_LEAVES = {"W": "weight", "b": "bias", "gamma": "weight", "beta": "bias"}
DDPM_AXES = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}  # [in, out] and HWIO to PyTorch's
DDPM_OUTSIDE = {
    "temb.dense.0": "time_embedding.linear_1",
    "temb.dense.1": "time_embedding.linear_2",
    "temb.dense0": "time_embedding.linear_1",
    "temb.dense1": "time_embedding.linear_2",
    "conv_in": "conv_in",
    "norm_out": "conv_norm_out",
    "conv_out": "conv_out",
}
DDPM_MIDDLE = {"block_1": "resnets.0", "attn_1": "attentions.0", "block_2": "resnets.1"}
DDPM_BLOCKS = {"block": "resnets", "attn": "attentions"}
DDPM_PARTS = {
    "temb_proj": "time_emb_proj",
    "nin_shortcut": "conv_shortcut",
    "norm": "group_norm",
    "q": "to_q",
    "k": "to_k",
    "v": "to_v",
    "proj_out": "to_out.0",
}


def ddpm_unet(tensors: Mapping[str, Any], x, t):
    """Return the output of the U-Net of DDPM's own code.

    Args:
        tensors: TensorFlow variables within the scope `model/`, e.g.
            "down_0/block_1/conv1/W", or the state dict of their well-known copy in
            PyTorch, e.g. "down.0.block.1.conv1.weight".
        x: [B, C, H, W] tensor.
        t: [B] timesteps.
    """
    numbers = [m[1] for name in tensors if (m := re.match(r"down[._](\d+)\W", name))]
    levels = 1 + max(map(int, numbers))
    renamed = {}
    for name, tensor in tensors.items():
        module, _, leaf = name.replace("/", ".").rpartition(".")
        of_tensorflow = leaf in DDPM_LEAVES
        key = f"{_ddpm_module(module, levels)}.{DDPM_LEAVES.get(leaf, leaf)}"
        axes = DDPM_AXES[len(tensor.shape)]
        renamed[key] = np.transpose(tensor, axes) if of_tensorflow else tensor
    return diffusers_unet(renamed, DDPM_CONFIG, x, t)


def _ddpm_module(module, levels):
    """Return what diffusers calls a module; it counts the decoder from the deepest."""
    if module in DDPM_OUTSIDE:
        return DDPM_OUTSIDE[module]
    if found := re.fullmatch(r"mid\.(\w+)\.(\w+)", module):
        block, part = found.groups()
        return f"mid_block.{DDPM_MIDDLE[block]}.{DDPM_PARTS.get(part, part)}"
    way, level, rest = re.fullmatch(r"(down|up)[._](\d+)\.(.+)", module).groups()
    name = f"{way}_blocks.{level if way == 'down' else levels - 1 - int(level)}"
    if found := re.fullmatch(r"(block|attn)[._](\d+)\.(\w+)", rest):
        kind, i, part = found.groups()
        return f"{name}.{DDPM_BLOCKS[kind]}.{i}.{DDPM_PARTS.get(part, part)}"
    resample, _, part = rest.partition(".")
    return f"{name}.{resample}rs.0.{part}"
