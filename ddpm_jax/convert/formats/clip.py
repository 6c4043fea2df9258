"""State dicts of GLIDE's noised CLIP: a file of the image encoder, one of the text's.

As one state dict, the names of the two begin with "image." and "text.".

Reference: GLIDE (Nichol et al. 2021), published code.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.convert import mapping, torch_clip
from ddpm_jax.convert.format import NEEDED, Format
from ddpm_jax.core import errors
from ddpm_jax.models import clip

Shape = tuple[int, ...]

OUTSIDE = {
    # Module beside the blocks → (theirs within "blocks.", how a kernel turns).
    "timesteps/embedding": ("input.w_t", "copy"),
    "patches/kernel": ("input.patch_proj", "conv"),
    "tokens/embedding": ("input.w_voc", "copy"),
    "positions/embedding": ("input.w_pos", "copy"),
    "norm_in/scale": ("input.ln.g", "copy"),
    "norm_in/bias": ("input.ln.b", "copy"),
    "norm_out/scale": ("output.ln.g", "copy"),
    "norm_out/bias": ("output.ln.b", "copy"),
    "project/kernel": ("output.f.w", "transpose"),
}
OF_BLOCKS = {
    # Module of a block of ours → theirs.
    "norm_1": "f_attn.ln",
    "query": "f_attn.f_q",
    "key": "f_attn.f_k",
    "value": "f_attn.f_v",
    "project": "f_attn.f_c",
    "norm_2": "f_mlp.ln",
    "dense_1": "f_mlp.f_1",
    "dense_2": "f_mlp.f_2",
}
LEAVES = {"kernel": "w", "scale": "g", "bias": "b"}


MARKS = {"image": "blocks.input.patch_proj", "text": "blocks.input.w_voc"}
"""Part → a name that its file alone has."""

DIALECT = {
    # What no shape tells. It was trained on the noise of GLIDE's base model.
    "diffusion.schedule": "cosine",
    "diffusion.rescale_timesteps": False,
}


def part_of(names: Iterable[str]) -> str | None:
    """Return which of the two files has these names: "image", "text", or None."""
    names = set(names)
    return next((part for part, mark in MARKS.items() if mark in names), None)


def entries(
    our_shapes: Mapping[str, Shape], fields: Mapping[str, object]
) -> list[mapping.Entry]:
    """Return where each of our parameters stands in the two files as one."""
    del fields
    return [
        dataclasses.replace(entry, keys=tuple(f"{part}.{key}" for key in entry.keys))
        for part in MARKS
        for entry in entries_of(part, our_shapes)
    ]


def recognise(shapes: Mapping[str, Shape]) -> dict[str, object]:
    """Return the fields that the tensors of both files tell by their shapes.

    Raises:
        Refusal: a part of an encoder is not there, or the two do not end in one space.
    """
    needed = [
        *(f"{part}.{mark}" for part, mark in MARKS.items()),
        *(f"{part}.blocks.input.w_pos" for part in MARKS),
        *(f"{part}.blocks.output.f.w" for part in MARKS),
        "image.blocks.input.w_t",
    ]
    missing = [key for key in needed if key not in shapes]
    if missing:
        raise errors.Refusal(
            f"the files are of GLIDE's noised CLIP and have no {missing[0]}: one of "
            "them is cut short, fetch it again"
        )
    width, channels, patch, _ = shapes["image.blocks.input.patch_proj"]
    patches = shapes["image.blocks.input.w_pos"][0] - 1  # the first is of the timestep
    side = math.isqrt(patches) * patch
    spaces = {part: shapes[f"{part}.blocks.output.f.w"][0] for part in MARKS}
    if len(set(spaces.values())) > 1:
        raise errors.Refusal(
            f"the image encoder ends in {spaces['image']} channels and that of the "
            f"text in {spaces['text']}: they are not of one CLIP; give two files of one"
        )
    vocabulary, text_width = shapes["text.blocks.input.w_voc"]
    return {
        "model.kind": "clip",
        "data.image_size": (side, side),
        "data.channels": channels,
        "model.channels": width,
        "model.patch_size": patch,
        "model.image_layers": _layers(shapes, "image"),
        "model.embedding": spaces["image"],
        "model.text_width": text_width,
        "model.text_layers": _layers(shapes, "text"),
        "model.text_context": shapes["text.blocks.input.w_pos"][0],
        "model.text_vocabulary": vocabulary,
        "diffusion.num_steps": shapes["image.blocks.input.w_t"][0],
    }


def _layers(shapes, part):
    pattern = re.compile(rf"{part}\.blocks\.block_(\d+)\.")
    return len({m[1] for key in shapes if (m := pattern.match(key))})


def entries_of(part: str, our_shapes: Mapping[str, Shape]) -> list[mapping.Entry]:
    """Return the map of one of the two files.

    Args:
        part: "image" or "text".
        our_shapes: shape of every parameter of `models.clip.clip` by path; those of the
            other part are skipped.
    """
    paths = [path for path in our_shapes if path.startswith(f"{part}/")]
    return [
        mapping.Entry(path, *_place(path.removeprefix(f"{part}/"))) for path in paths
    ]


def _place(path):
    if path in OUTSIDE:
        key, rule = OUTSIDE[path]
        return (f"blocks.{key}",), rule
    _, number, module, leaf = path.split("/")
    key = f"blocks.block_{number}.{OF_BLOCKS[module]}.{LEAVES[leaf]}"
    return (key,), "transpose" if leaf == "kernel" else "copy"


def reference(opened, fields, inputs):
    """Return what PyTorch's encoders end in, see `format.Format`."""
    heads = fields["model.num_heads"]
    if fields["model.head_channels"]:
        heads = fields["model.channels"] // fields["model.head_channels"]
    both = torch_clip.embeddings(
        opened.tensors,
        inputs["x"],
        inputs["t"],
        inputs[clip.TOKENS],
        inputs[clip.LENGTH],
        image_heads=heads,
        text_heads=fields["model.text_heads"],
    )
    return both[0].new_tensor(np.concatenate(both, axis=-1))


def embeddings(network):
    """Return `(params, x, t, condition) → [B, 2E]`, what image and text end in."""

    def run(params, x, t, condition):
        text = network.prepare(params, condition)

        def agreement(text):
            return jnp.sum(network.apply(params, x, t, text)) / clip.LOGIT_SCALE

        # It is linear in the embedding of the text: its slope is that of the image.
        image = jax.grad(agreement)(text)
        return jnp.concatenate([image[clip.EMBEDDING], text[clip.EMBEDDING]], axis=-1)

    return run


FORMAT = Format(
    name="clip",
    about="GLIDE's noised CLIP",
    recognise=recognise,
    code="the GLIDE code",
    dialect=DIALECT,
    needed={
        "model.num_heads": "12 (GLIDE), heads of the image encoder",
        "model.text_heads": "8 (GLIDE), heads of the text encoder",
        "diffusion.schedule": NEEDED["diffusion.schedule"],
        "diffusion.num_steps": NEEDED["diffusion.num_steps"],
    },
    entries=entries,
    reference=reference,
    output=embeddings,
)
