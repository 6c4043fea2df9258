"""What GLIDE adds to state dicts of the OpenAI code: a transformer over tokens.

The U-Net around it is that of ADM, see `openai`, with one more 1×1 convolution in every
attention (`encoder_kv`). Its inpainting networks see the known part of the image and
its mask behind the noisy image.

Reference: GLIDE (Nichol et al. 2021), published code.
"""

import re
from collections.abc import Mapping

from ddpm_jax.convert import mapping
from ddpm_jax.core import errors

Shape = tuple[int, ...]

TOKENS, POSITIONS = "token_embedding.weight", "positional_embedding"
OUTSIDE = {
    # Our parameter → (theirs, how it turns).
    "text/tokens/embedding": (TOKENS, "copy"),
    "text/positions/embedding": (POSITIONS, "copy"),
    "text/padding/embedding": ("padding_embedding", "copy"),
    "text/norm_out/scale": ("final_ln.weight", "copy"),
    "text/norm_out/bias": ("final_ln.bias", "copy"),
    "text/embed/kernel": ("transformer_proj.weight", "transpose"),
    "text/embed/bias": ("transformer_proj.bias", "copy"),
}
OF_BLOCKS = {
    # Module of a block of ours → theirs.
    "norm_1": "ln_1",
    "qkv": "attn.c_qkv",
    "project": "attn.c_proj",
    "norm_2": "ln_2",
    "dense_1": "mlp.c_fc",
    "dense_2": "mlp.c_proj",
}
VOCABULARY = 50_257
"""Number of tokens of GPT-2, the end of text among them."""

BLOCK = re.compile(r"transformer\.resblocks\.(\d+)\.")


def entries(paths) -> list[mapping.Entry]:
    """Return the map of the text encoder's parameters, those below "text/"."""
    return [mapping.Entry(path, *_place(path)) for path in paths]


def _place(path):
    if path in OUTSIDE:
        key, rule = OUTSIDE[path]
        return (key,), rule
    _, _, number, module, leaf = path.split("/")
    name = f"transformer.resblocks.{number}.{OF_BLOCKS[module]}"
    key = f"{name}.{'bias' if leaf == 'bias' else 'weight'}"
    return (key,), "transpose" if leaf == "kernel" else "copy"


def has_text(shapes: Mapping[str, Shape]) -> bool:
    """Return whether a state dict has a text encoder, or a part of one."""
    return TOKENS in shapes or any(".encoder_kv." in key for key in shapes)


def text_fields(shapes: Mapping[str, Shape]) -> dict[str, object]:
    """Return the fields that the tensors of a text encoder tell, {} without one.

    The number of heads is not among them: no shape depends on it.

    Raises:
        Refusal: a part of the encoder is not there.
    """
    if not has_text(shapes):
        return {}
    numbers = [int(m[1]) for key in shapes if (m := BLOCK.match(key))]
    missing = [key for key, _ in OUTSIDE.values() if key not in shapes]
    missing += [] if numbers else ["transformer.resblocks.0.attn.c_qkv.weight"]
    if missing:
        raise errors.Refusal(
            f"the file has a text encoder but no {missing[0]}: it is cut short, or of "
            "a network without it, which GLIDE's published ones are not"
        )
    vocabulary, width = shapes[TOKENS]
    return {
        "model.text_width": width,
        "model.text_layers": 1 + max(numbers),
        "model.text_context": shapes[POSITIONS][0],
        "model.text_vocabulary": vocabulary,
    }


DROPPED = 0.2
"""Share of captions that GLIDE left out in fine-tuning, section 2.3."""


def usual(fields: Mapping[str, object]) -> tuple[dict[str, object], str]:
    """Return what networks of GLIDE have in common, and whose word it is.

    Its upsamplers were trained on captions throughout: nothing leads them away from
    none. Of the tokenizer nothing is known where the vocabulary is not that of GPT-2.

    Args:
        fields: model.kind and what `text_fields` returned.
    """
    if not fields.get("model.text_layers"):
        return {}, ""
    is_upsampler = fields["model.kind"] == "upsampler"
    known = {"train.label_dropout": 0.0 if is_upsampler else DROPPED}
    if fields["model.text_vocabulary"] == VOCABULARY:
        known["data.tokenizer"] = "gpt2"
    return known, "the GLIDE code"


def inpainting(shapes: Mapping[str, Shape], seen: int, given: int):
    """Return (model.kind, data.channels, whether the variance is learned), or None.

    Args:
        shapes: by key.
        seen: channels that the network reads.
        given: channels that it returns.

    Returns:
        None for a network that is not one of inpainting.
    """
    if not has_text(shapes):
        return None
    for kind, images in (("unet", 2), ("upsampler", 3)):
        channels, rest = divmod(seen - 1, images)
        if rest == 0 and channels > 0 and given in (channels, 2 * channels):
            return kind, channels, given == 2 * channels
    return None
