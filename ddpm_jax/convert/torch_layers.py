"""PyTorch layers of a state dict, called by the names that stand in it.

The ground under `torch_reference`. Images are [B, C, H, W], float32; PyTorch is
imported when the first `Layers` is made.
"""

import math
import re
from collections.abc import Mapping
from typing import Any


class Layers:
    """The layers of one state dict by name; GroupNorm with its groups and ε."""

    def __init__(self, tensors: Mapping[str, Any], *, groups: int, epsilon: float):
        import torch

        self.torch = torch
        self.functional = torch.nn.functional
        self.tensors = {
            name: torch.as_tensor(tensor).to(torch.float32)
            for name, tensor in tensors.items()
        }
        self.groups = groups
        self.epsilon = epsilon

    def __getitem__(self, name):
        return self.tensors[name]

    def has(self, module):
        """Return whether any tensor belongs to a module."""
        return any(name.startswith(f"{module}.") for name in self.tensors)

    def count(self, module):
        """Return one more than the largest index below a module, 0 without any."""
        pattern = re.compile(re.escape(module) + r"\.(\d+)\.")
        found = [int(m[1]) for name in self.tensors if (m := pattern.match(name))]
        return max(found, default=-1) + 1

    def conv(self, name, x, *, stride=1, padding=1):
        """Convolve; kernels of fewer axes than an image's are 1×1."""
        weight, bias = self[f"{name}.weight"], self[f"{name}.bias"]
        weight = weight.reshape(*weight.shape, *[1] * (4 - weight.ndim))
        padding = padding if weight.shape[-1] > 1 else 0
        return self.functional.conv2d(x, weight, bias, stride, padding)

    def norm(self, name, x):
        """Normalise groups of channels."""
        return self.functional.group_norm(
            x,
            self.groups,
            self[f"{name}.weight"],
            self[f"{name}.bias"],
            self.epsilon,
        )

    def linear(self, name, x):
        """Apply a dense layer to the last axis."""
        return self.functional.linear(x, self[f"{name}.weight"], self[f"{name}.bias"])

    def silu(self, x):
        """Return x·σ(x)."""
        return self.functional.silu(x)

    def join(self, *parts):
        """Concatenate along the channels."""
        return self.torch.cat(parts, dim=1)

    def halve(self, x):
        """Average every 2×2 pixels."""
        return self.functional.avg_pool2d(x, 2)

    def double(self, x):
        """Repeat every pixel 2×2."""
        return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

    def stretch(self, x, like):
        """Enlarge images bilinearly to the size of others."""
        return self.functional.interpolate(x, like.shape[2:], mode="bilinear")

    def layer_norm(self, name, x):
        """Normalise the last axis, with ε = 1e-5."""
        weight, bias = self[f"{name}.weight"], self[f"{name}.bias"]
        return self.functional.layer_norm(x, weight.shape, weight, bias, 1e-5)

    def mlp(self, name_1, name_2, x):
        """Run dense, SiLU, dense."""
        return self.linear(name_2, self.silu(self.linear(name_1, x)))

    def sinusoid(self, t, dim, *, sines_first, shift):
        """Return the sinusoidal embedding [B, dim] of timesteps [B]."""
        half = dim // 2
        steps = self.torch.arange(half, dtype=self.torch.float64)
        frequencies = self.torch.exp(-math.log(10000.0) * steps / (half - shift))
        angles = t.to(self.torch.float32)[:, None] * frequencies.to(self.torch.float32)
        waves = [angles.cos(), angles.sin()]
        return self.functional.pad(
            self.join(*(waves[::-1] if sines_first else waves)), (0, dim % 2)
        )

    def attend(self, q, k, v):
        """Mix values [B, heads, N, d] by softmax(q·k / √d)."""
        logits = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        return logits.softmax(dim=-1) @ v

    def residual(self, names, x, embedding, *, scale_shift, resample=None):
        """Run a residual block.

        Args:
            names: of first norm, first convolution, projection of the embedding, second
                norm, second convolution and shortcut; the last need not exist.
            x: [B, C, H, W].
            embedding: [B, E].
            scale_shift: modulate the second norm instead of adding the projection.
            resample: function of an image, or None.
        """
        norm_1, conv_1, project, norm_2, conv_2, shortcut = names
        h = self.silu(self.norm(norm_1, x))
        if resample is not None:
            h, x = resample(h), resample(x)
        h = self.conv(conv_1, h)
        modulation = self.linear(project, self.silu(embedding))[:, :, None, None]
        if scale_shift:
            scale, shift = modulation.chunk(2, dim=1)
            h = self.norm(norm_2, h) * (1 + scale) + shift
        else:
            h = self.norm(norm_2, h + modulation)
        h = self.conv(conv_2, self.silu(h))
        if f"{shortcut}.weight" in self.tensors:
            x = self.conv(shortcut, x)
        return x + h
