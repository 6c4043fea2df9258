"""GLIDE's noised CLIP in PyTorch, straight from its state dicts.

As `torch_reference`: a second opinion for certificates, written from the published
description.

Reference: GLIDE (Nichol et al. 2021).
"""

import math
from collections.abc import Mapping
from typing import Any

MEANS = (122.77093945, 116.74601272, 104.09373519)
STDS = (68.50053285, 66.63215831, 70.32316309)


class _Encoder:
    """One of the two transformers; `part` is what its names begin with."""

    def __init__(self, tensors, part, heads, dtype):
        import torch

        self.torch, self.functional = torch, torch.nn.functional
        self.heads = heads
        start = f"{part}.blocks."
        self.tensors = {
            name.removeprefix(start): torch.as_tensor(tensor).to(dtype)
            for name, tensor in tensors.items()
            if name.startswith(start)
        }

    def __getitem__(self, name):
        return self.tensors[name]

    def norm(self, name, h):
        gain, bias = self[f"{name}.g"], self[f"{name}.b"]
        return self.functional.layer_norm(h, gain.shape, gain, bias, 1e-5)

    def linear(self, name, h):
        bias = self.tensors.get(f"{name}.b")  # keys have none
        return self.functional.linear(h, self[f"{name}.w"], bias)

    def run(self, h, *, causal):
        """Run all blocks on [B, N, width]."""
        number = 0
        while f"block_{number}.f_attn.f_q.w" in self.tensors:
            name = f"block_{number}"
            h = h + self.attention(f"{name}.f_attn", h, causal)
            hidden = self.norm(f"{name}.f_mlp.ln", h)
            hidden = self.functional.gelu(self.linear(f"{name}.f_mlp.f_1", hidden))
            h = h + self.linear(f"{name}.f_mlp.f_2", hidden)
            number += 1
        return h

    def attention(self, name, h, causal):
        B, N, width = h.shape
        normed = self.norm(f"{name}.ln", h)
        q, k, v = (
            self.linear(f"{name}.{part}", normed).reshape(B, N, self.heads, -1)
            for part in ("f_q", "f_k", "f_v")
        )
        logits = self.torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.shape[-1])
        if causal:
            behind = self.torch.ones(N, N, dtype=self.torch.bool).triu(1)
            logits = logits.masked_fill(behind, -math.inf)
        mixed = self.torch.einsum("bhqk,bkhd->bqhd", logits.softmax(dim=-1), v)
        return self.linear(f"{name}.f_c", mixed.reshape(B, N, width))

    def embedded(self, h):
        """Return the unit vectors of one position each, [B, width]."""
        z = self.linear("output.f", self.norm("output.ln", h))
        return z / z.norm(dim=-1, keepdim=True)


def embeddings(
    tensors: Mapping[str, Any],
    x,
    t,
    tokens,
    lengths,
    *,
    image_heads: int,
    text_heads: int,
):
    """Return the unit vectors of noisy images and of texts, two tensors [B, E].

    Args:
        tensors: of both files, their names behind "image." and "text.".
        x: [B, 3, H, W] in [−1, 1], with noise; all is computed in its type.
        t: [B] int64, timesteps.
        tokens: [B, L] int64.
        lengths: [B] int64, how many of them count.
        image_heads, text_heads: of the attention.
    """
    image = _Encoder(tensors, "image", image_heads, x.dtype)
    torch = image.torch
    means, stds = (x.new_tensor(v)[:, None, None] for v in (MEANS, STDS))
    kernel = image["input.patch_proj"]
    pixels = ((x + 1) * 127.5 - means) / stds
    h = image.functional.conv2d(pixels, kernel, stride=kernel.shape[-1])
    h = torch.cat([image["input.w_t"][t][:, None], h.flatten(2).mT], dim=1)
    h = image.norm("input.ln", h + image["input.w_pos"])
    of_images = image.embedded(image.run(h, causal=False)[:, 0])

    text = _Encoder(tensors, "text", text_heads, x.dtype)
    h = text["input.w_voc"][tokens] + text["input.w_pos"]
    h = text.run(h, causal=True)
    last = h[torch.arange(len(h)), lengths - 1]
    return of_images, text.embedded(last)
