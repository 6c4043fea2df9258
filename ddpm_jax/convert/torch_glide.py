"""GLIDE's networks in PyTorch, straight from their state dicts.

As `torch_reference`, on whose U-Net they stand: a second opinion for certificates,
written from the published description.

Reference: GLIDE (Nichol et al. 2021).
"""

from collections.abc import Mapping
from typing import Any

from ddpm_jax.convert import torch_reference


class _Glide(torch_reference.OpenAI):
    """The U-Net with the positions of a text in every attention."""

    def __init__(self, tensors, *, text_heads, **options):
        super().__init__(tensors, **options)
        self.text_heads = text_heads
        self.states = None  # [B, width, L]

    def read(self, tokens, mask):
        """Run the transformer, keep its states and return the last one, projected."""
        layers = self.layers
        h = layers["token_embedding.weight"][tokens] + layers["positional_embedding"]
        h = layers.torch.where(mask[..., None], h, layers["padding_embedding"])
        for i in range(layers.count("transformer.resblocks")):
            name = f"transformer.resblocks.{i}"
            h = h + self.text_attention(name, layers.layer_norm(f"{name}.ln_1", h))
            hidden = layers.linear(
                f"{name}.mlp.c_fc", layers.layer_norm(f"{name}.ln_2", h)
            )
            hidden = layers.functional.gelu(hidden)  # the exact one
            h = h + layers.linear(f"{name}.mlp.c_proj", hidden)
        h = layers.layer_norm("final_ln", h)
        self.states = h.mT
        return layers.linear("transformer_proj", h[:, -1])

    def text_attention(self, name, h):
        B, L, width = h.shape
        qkv = self.layers.linear(f"{name}.attn.c_qkv", h)
        packed = qkv.reshape(B, L, self.text_heads, 3 * width // self.text_heads)
        q, k, v = packed.transpose(1, 2).chunk(3, dim=-1)  # [B, heads, L, d]
        mixed = self.layers.attend(q, k, v).transpose(1, 2).reshape(B, L, width)
        return self.layers.linear(f"{name}.attn.c_proj", mixed)

    def in_front(self, name, k, v, order):
        B, heads, d, _ = k.shape
        packed = self.layers.conv(f"{name}.encoder_kv", self.states[..., None])
        if order == "legacy":
            of_text = packed.reshape(B, heads, 2, d, -1).unbind(2)
        else:
            of_text = packed.reshape(B, 2, heads, d, -1).unbind(1)
        cat = self.layers.torch.cat
        return [cat(pair, dim=-1) for pair in zip(of_text, (k, v), strict=True)]


def glide_unet(
    tensors: Mapping[str, Any],
    x,
    t,
    tokens,
    token_mask,
    *,
    low_res=None,
    known=None,
    known_mask=None,
    y=None,
    **options,
):
    """Return the output of a text-conditional U-Net of GLIDE.

    Args:
        tensors: the state dict, NumPy arrays or tensors.
        x: [B, C, H, W] tensor.
        t: [B] timesteps, integer or float.
        tokens: [B, L] int64.
        token_mask: [B, L], true where there is a token.
        low_res: [B, C, h, w] for the upsamplers: resized bilinearly to x.
        known, known_mask: [B, C, H, W] and [B, 1, H, W] for inpainting.
        y: [B] int64 labels where the state dict has an embedding of them.
        options: those of `torch_reference.OpenAI`, and `text_heads`.

    Returns:
        [B, C_out, H, W] tensor.
    """
    net = _Glide(tensors, **options)
    seen = [x]
    if known is not None:
        seen += [known * known_mask, known_mask]
    if low_res is not None:
        seen.append(net.layers.stretch(low_res, x))
    embedding = net.embed(t, y) + net.read(tokens, token_mask.bool())
    return net.run(net.layers.join(*seen), embedding)
