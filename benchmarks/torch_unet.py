"""The same U-Net in PyTorch, to race against: an `nn.Module` as one would write it.

Fused attention, channels_last where the caller asks for it, dropout, fused norms under
autocast: nothing that slows PyTorch down. Attributes are named like the parameters of
`ddpm_jax`, so that `load` is a renaming and refuses any other network.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from ddpm_jax.models import functional

LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}


class ResBlock(nn.Module):
    def __init__(self, c_in, c_out, options, resample=None):
        super().__init__()
        self.scale_shift, self.dropout = options.scale_shift, options.dropout
        self.resample = resample
        self.norm_1 = group_norm(c_in, options)
        self.conv_1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.embed = nn.Linear(
            4 * options.channels, c_out * (2 if self.scale_shift else 1)
        )
        self.norm_2 = group_norm(c_out, options)
        self.conv_2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.shortcut = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)

    def forward(self, x, embedding):
        h = F.silu(self.norm_1(x))
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = self.conv_1(h)
        modulation = self.embed(F.silu(embedding))[:, :, None, None]
        if self.scale_shift:
            scale, shift = modulation.chunk(2, dim=1)
            h = self.norm_2(h) * (1 + scale) + shift
        else:
            h = self.norm_2(h + modulation)
        h = F.dropout(F.silu(h), self.dropout, self.training)
        return self.conv_2(h) + self.shortcut(x)


class Attention(nn.Module):
    def __init__(self, width, options):
        super().__init__()
        self.head = options.head_channels or width // options.num_heads
        self.packed_by_head = options.qkv_order == "legacy"
        self.norm = group_norm(width, options)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj_out = nn.Linear(width, width)

    def forward(self, x, embedding):
        B, C, H, W = x.shape
        qkv = self.qkv(self.norm(x).permute(0, 2, 3, 1).reshape(B, H * W, C))
        if self.packed_by_head:
            q, k, v = qkv.reshape(B, H * W, -1, 3, self.head).unbind(3)
        else:
            q, k, v = qkv.reshape(B, H * W, 3, -1, self.head).unbind(2)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        h = self.proj_out(h.reshape(B, H * W, C))
        return x + h.reshape(B, H, W, C).permute(0, 3, 1, 2)


class Downsample(nn.Module):
    def __init__(self, width, options):
        super().__init__()
        self.pads_end = options.downsample_padding == "end"
        self.conv = nn.Conv2d(
            width, width, 3, stride=2, padding=0 if self.pads_end else 1
        )

    def forward(self, x, embedding):
        return self.conv(F.pad(x, (0, 1, 0, 1)) if self.pads_end else x)


class Upsample(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x, embedding):
        return self.conv(double(x))


class Level(nn.Module):
    def __init__(self, blocks, attentions, resample):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.attentions = nn.ModuleList(attentions)
        self.resample = resample

    def stage(self, index, h, embedding):
        h = self.blocks[index](h, embedding)
        return self.attentions[index](h, embedding) if self.attentions else h


class Middle(nn.Module):
    def __init__(self, width, options):
        super().__init__()
        self.block_1 = ResBlock(width, width, options)
        self.attention = Attention(width, options)
        self.block_2 = ResBlock(width, width, options)

    def forward(self, h, embedding):
        h = self.attention(self.block_1(h, embedding), embedding)
        return self.block_2(h, embedding)


class TimeEmbedding(nn.Module):
    def __init__(self, options):
        super().__init__()
        self.channels, self.shift = options.channels, options.sinusoid_shift
        self.sines_first = options.sinusoid == "sin_cos"
        self.dense_1 = nn.Linear(options.channels, 4 * options.channels)
        self.dense_2 = nn.Linear(4 * options.channels, 4 * options.channels)

    def forward(self, t):
        half = self.channels // 2
        steps = torch.arange(half, dtype=torch.float32, device=t.device)
        frequencies = torch.exp(-math.log(10000.0) / (half - self.shift) * steps)
        angles = t.float()[:, None] * frequencies
        waves = (angles.cos(), angles.sin())
        waves = waves[::-1] if self.sines_first else waves
        return self.dense_2(F.silu(self.dense_1(torch.cat(waves, dim=1))))


class UNet(nn.Module):
    """The U-Net of `config.model`: images [B, C, H, W], timesteps [B], labels or None.

    Args:
        options: `config.model`, with attention in the middle and resampling by "conv"
            or within blocks.
        image_size: (H, W).
        in_channels, out_channels: of the images and of the output.
        num_classes: rows of the label embedding, or None.
    """

    def __init__(self, options, *, image_size, in_channels, out_channels, num_classes):
        super().__init__()
        widths = [int(mult * options.channels) for mult in options.channel_mult]
        sides = [min(image_size) // 2**level for level in range(len(widths))]
        self.time_embedding = TimeEmbedding(options)
        if num_classes is not None:
            self.label_embedding = nn.Embedding(num_classes, 4 * options.channels)
        self.conv_in = nn.Conv2d(in_channels, widths[0], 3, padding=1)

        def level(blocks, side, width, resample):
            attended = side in options.attention_resolutions
            attentions = [Attention(width, options) for _ in blocks if attended]
            return Level(blocks, attentions, resample)

        last, width, skips, down = len(widths) - 1, widths[0], [widths[0]], []
        for i, (wide, side) in enumerate(zip(widths, sides, strict=True)):
            ins = [width] + [wide] * (options.num_res_blocks - 1)
            blocks = [ResBlock(c_in, wide, options) for c_in in ins]
            resample, width = None, wide
            if i < last:
                resample = _halve(wide, options)
            skips += [wide] * (options.num_res_blocks + (i < last))
            down.append(level(blocks, side, wide, resample))
        self.down = nn.ModuleList(down)
        self.middle = Middle(width, options)

        up = [None] * len(widths)
        for i in range(last, -1, -1):
            blocks = []
            for _ in range(options.num_res_blocks + 1):
                blocks.append(ResBlock(width + skips.pop(), widths[i], options))
                width = widths[i]
            resample = _double(width, options) if i > 0 else None
            up[i] = level(blocks, sides[i], width, resample)
        self.up = nn.ModuleList(up)
        self.norm_out = group_norm(width, options)
        self.conv_out = nn.Conv2d(width, out_channels, 3, padding=1)

    def forward(self, x, t, labels=None):
        embedding = self.time_embedding(t)
        if labels is not None:
            embedding = embedding + self.label_embedding(labels)
        h = self.conv_in(x)
        skips = [h]
        for level in self.down:
            for i in range(len(level.blocks)):
                h = level.stage(i, h, embedding)
                skips.append(h)
            if level.resample is not None:
                h = level.resample(h, embedding)
                skips.append(h)
        h = self.middle(h, embedding)
        for level in reversed(self.up):
            for i in range(len(level.blocks)):
                h = torch.cat([h, skips.pop()], dim=1)
                h = level.stage(i, h, embedding)
            if level.resample is not None:
                h = level.resample(h, embedding)
        return self.conv_out(F.silu(self.norm_out(h))).float()


def group_norm(width, options):
    return nn.GroupNorm(options.norm_groups, width, eps=options.norm_epsilon)


def double(x):
    return F.interpolate(x, scale_factor=2, mode="nearest")


def halve(x):
    return F.avg_pool2d(x, 2)


def _halve(width, options):
    if options.resblock_updown:
        return ResBlock(width, width, options, halve)
    return Downsample(width, options)


def _double(width, options):
    if options.resblock_updown:
        return ResBlock(width, width, options, double)
    return Upsample(width)


def load(module, params) -> None:
    """Copy parameters of `ddpm_jax` into the module of the same network."""
    tensors = {}
    for path, array in functional.by_path(params).items():
        parent, _, leaf = path.rpartition("/")
        axes = {4: (3, 2, 0, 1), 2: (1, 0)}.get(array.ndim)
        tensor = torch.tensor(array)
        if leaf == "kernel":
            tensor = tensor.permute(axes)
        name = f"{parent}/{LEAVES.get(leaf, leaf)}".replace("/", ".")
        tensors[name] = tensor
    module.load_state_dict(tensors)
