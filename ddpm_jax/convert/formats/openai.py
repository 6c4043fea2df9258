"""State dicts of Improved DDPM and ADM: U-Nets, upsamplers, noisy classifiers.

Those of GLIDE are U-Nets and upsamplers with a text encoder, see `glide`.

`input_blocks.i.j` counts the encoder's blocks and downsamplings, `output_blocks.i.j`
the decoder's blocks from the deepest level up; j counts the modules of a block: the
residual block, its attention where there is one, the upsampling last.

References: improved-diffusion and guided-diffusion, the published code.
"""

import collections
import re
from collections.abc import Mapping

from ddpm_jax.convert import mapping, names, torch_glide, torch_reference
from ddpm_jax.convert.format import Content, Export, Format
from ddpm_jax.convert.formats import glide, openai_pools
from ddpm_jax.core import errors

Shape = tuple[int, ...]

DIALECT = {
    # What every network of this code has in common and its shapes cannot tell.
    "model.sinusoid": "cos_sin",
    "model.sinusoid_shift": 0,
    "model.norm_groups": 32,
    "model.norm_epsilon": 1e-5,
    "model.downsample_padding": "both",
    "model.attention_scale": "split",
    "model.attention_positions": False,
    "model.text_relative": False,
    "model.middle_attention": "normed",
    "model.initialisation": "openai",
}

# ---- the map -------------------------------------------------------------------------

NAMES = names.Names(
    separator=".",
    outside={
        "time_embedding/dense_1": "time_embed.0",
        "time_embedding/dense_2": "time_embed.2",
        "label_embedding": "label_emb",
        "conv_in": "input_blocks.0.0",
        "norm_out": "out.0",
        "conv_out": "out.2",
    },
    places={
        "down/blocks": "input_blocks.{number}.0",
        "down/attentions": "input_blocks.{number}.1",
        "down/resample": "input_blocks.{number}.0",
        "middle/block_1": "middle_block.0",
        "middle/attention": "middle_block.1",
        "middle/block_2": "middle_block.2",
        "up/blocks": "output_blocks.{number}.0",
        "up/attentions": "output_blocks.{number}.1",
        "up/resample": "output_blocks.{number}.{slot}",
    },
    parts={
        "norm_1": "in_layers.0",
        "conv_1": "in_layers.2",
        "embed": "emb_layers.1",
        "norm_2": "out_layers.0",
        "conv_2": "out_layers.3",
        "shortcut": "skip_connection",
        "conv": {"down/resample": "op", "up/resample": "conv"},
    },
)


def entries(
    our_shapes: Mapping[str, Shape], fields: Mapping[str, object]
) -> list[mapping.Entry]:
    """Return where each of our parameters stands in a state dict of this code."""
    del fields  # the paths tell the levels, blocks and attentions
    layout = names.Layout.of(our_shapes)
    pool = [path for path in our_shapes if path.startswith("pool/")]
    text = [path for path in our_shapes if path.startswith("text/")]
    return [
        *openai_pools.entries(pool),
        *glide.entries(text),
        *(
            _entry(path, shape, layout)
            for path, shape in our_shapes.items()
            if not path.startswith(("pool/", "text/"))
        ),
    ]


def _entry(path, shape, layout):
    module, _, leaf = path.rpartition("/")
    key = f"{NAMES.module(module, layout)}.{'bias' if leaf == 'bias' else 'weight'}"
    return mapping.Entry(path, (key,), _rule(path, shape))


def _rule(path, shape):
    if not path.endswith("/kernel"):
        return "copy"
    if len(shape) == 4:
        return "conv"
    in_attention = ("/qkv/kernel", "/proj_out/kernel", "/encoder_kv/kernel")
    return "conv1d" if path.endswith(in_attention) else "transpose"


# ---- recognising ---------------------------------------------------------------------


def recognise(shapes: Mapping[str, Shape]) -> dict[str, object]:
    """Return the fields that the tensors of a state dict tell by their shapes.

    Beside config names: "facts.num_classes", and "facts.attended_levels", which become
    `model.attention_resolutions` once the image size is known.

    Raises:
        Refusal: the tensors are not those of one of this code's networks.
    """
    _check_whole(shapes)
    channels = shapes["time_embed.0.weight"][1]
    kind, data_channels, learned, inpainting = _kind(shapes)
    fields = {
        "model.kind": kind,
        "model.channels": channels,
        "data.channels": data_channels,
        **_levels(shapes, channels),
        **_labels(shapes, kind),
        **glide.text_fields(shapes),
    }
    if glide.has_text(shapes):
        fields["model.inpainting"] = inpainting
    embed = shapes["input_blocks.1.0.emb_layers.1.weight"][0]
    width = shapes["input_blocks.1.0.out_layers.0.weight"][0]
    fields["model.scale_shift"] = embed == 2 * width
    if kind == "classifier":
        fields |= openai_pools.recognise(shapes, fields)
    else:
        fields["facts.learned_variance"] = learned
    return fields


NEEDED = (
    "time_embed.0.weight",
    "input_blocks.0.0.weight",
    "input_blocks.1.0.in_layers.2.weight",
    "input_blocks.1.0.emb_layers.1.weight",
    "input_blocks.1.0.out_layers.0.weight",
    "middle_block.0.in_layers.2.weight",
    "middle_block.1.qkv.weight",
)


def _check_whole(shapes):
    missing = [key for key in NEEDED if key not in shapes]
    if any(key.startswith("output_blocks.") for key in shapes):
        missing += [key for key in ("out.2.weight",) if key not in shapes]
    if missing:
        raise errors.Refusal(
            f"the file looks like one of the OpenAI code but has no {missing[0]}: it "
            "is cut short or of another network"
        )


def _kind(shapes):
    """Return (model.kind, data.channels, is variance learned, is it inpainting)."""
    seen = shapes["input_blocks.0.0.weight"][1]
    if not any(key.startswith("output_blocks.") for key in shapes):
        return "classifier", seen, False, False
    given = shapes["out.2.weight"][0]
    if given == seen != 6:
        return "unet", seen, False, False
    if given == 2 * seen:
        return "unet", seen, True, False
    if given == seen:  # six channels: an image and its condition; mean and variance
        return "upsampler", seen // 2, True, False
    if seen == 2 * given:
        return "upsampler", given, False, False
    found = glide.inpainting(shapes, seen, given)
    if found is not None:
        return *found, True
    raise errors.Refusal(
        f"the network reads {seen} channels and returns {given}: an image model "
        "returns as many or twice as many, an upsampler half as many or as many; "
        "inpainting models (7 or 10 channels in) are understood if they are GLIDE's, "
        "with a text encoder"
    )


def _labels(shapes, kind):
    if kind == "classifier":
        return {"model.class_conditional": False}
    if "label_emb.weight" not in shapes:
        return {"model.class_conditional": False}
    return {
        "model.class_conditional": True,
        "facts.num_classes": shapes["label_emb.weight"][0],
    }


# The encoder's blocks are a line of res blocks and downsamplings; where the latter are
# res blocks too, only their places tell them apart.


def _levels(shapes, channels):
    """Return the fields of levels, blocks, attention and resampling."""
    blocks = _encoder(shapes)
    resample, candidates = _candidates(shapes, blocks)
    if not candidates:
        raise errors.Refusal(
            "the blocks of the file do not divide into levels of equal length; it is "
            "not a network of the published Improved DDPM or ADM code"
        )
    fields = {
        "model.resblock_updown": resample == "resblock",
        "model.resample": "pool" if resample == "pool" else "conv",
    }
    if len(candidates) == 1:
        (stride,) = candidates
        levels = [blocks[i : i + stride] for i in range(1, len(blocks) + 1, stride)]
        blocks_of = [level[: stride - 1] for level in levels]
        fields["model.num_res_blocks"] = stride - 1
        fields["model.channel_mult"] = tuple(
            names.multiple(level[0].width, channels) for level in blocks_of
        )
        fields["facts.attended_levels"] = tuple(
            i for i, level in enumerate(blocks_of) if level[0].attention
        )
    return fields


_Block = collections.namedtuple("_Block", "kind width changes attention")


def _encoder(shapes):
    """Return the encoder's modules in order; a number without tensors is a pooling."""
    numbers = [
        int(match[1])
        for match in (re.match(r"input_blocks\.(\d+)\.", key) for key in shapes)
        if match
    ]
    return [_encoder_block(shapes, i) for i in range(max(numbers) + 1)]


def _encoder_block(shapes, i):
    conv = shapes.get(f"input_blocks.{i}.0.in_layers.2.weight")
    if conv is not None:
        attention = f"input_blocks.{i}.1.qkv.weight" in shapes
        return _Block("block", conv[0], conv[0] != conv[1], attention)
    strided = f"input_blocks.{i}.0.op.weight" in shapes
    return _Block("strided" if strided else "nothing", 0, False, False)


def _candidates(shapes, blocks):
    """Return how the network resamples, and the possible lengths of its levels."""
    inner = blocks[1:]
    kinds = {block.kind for block in inner}
    lengths = [n for n in range(2, len(blocks) + 1) if len(blocks) % n == 0]
    if "strided" in kinds or "nothing" in kinds:
        resample = "conv" if "strided" in kinds else "pool"
        fits = [
            n
            for n in lengths
            if all((b.kind != "block") == (i % n == n - 1) for i, b in enumerate(inner))
        ]
        return resample, fits
    fits = [n for n in lengths if _fits_updown(inner, n)]
    if any(key.startswith("output_blocks.") for key in shapes):
        ups = _upward_blocks(shapes)
        fits = [n for n in fits if len(blocks) // n == ups + 1]
    one_level = fits == [len(blocks)]
    return "conv" if one_level else "resblock", fits


def _fits_updown(inner, n):
    """Return whether every n-th block can be a downsampling."""
    for i, block in enumerate(inner):
        if i % n == n - 1 and (block.changes or block.attention):
            return False
        first = inner[i - i % n]
        if i % n and i % n != n - 1:
            alike = block.width == first.width and block.attention == first.attention
            if block.changes or not alike:
                return False
    return True


def _upward_blocks(shapes):
    """Return how many blocks of the decoder end in an upsampling residual block."""
    return sum(
        bool(re.fullmatch(r"output_blocks\.\d+\.[12]\.in_layers\.2\.weight", key))
        for key in shapes
    )


# ---- the classifier's head -----------------------------------------------------------


# ---- compared and written ------------------------------------------------------------

INDIFFERENT = ("model.attention_scale", "model.initialisation")
"""Fields of the dialect that change no output but by rounding."""


def reference(opened, fields, inputs):
    """Return the output of PyTorch, see `format.Format`."""
    options = {
        "num_res_blocks": fields["model.num_res_blocks"],
        "num_heads": fields["model.num_heads"],
        "head_channels": fields["model.head_channels"] or None,
        "qkv_order": fields["model.qkv_order"],
    }
    x, t = inputs["x"], inputs["t"]
    if fields["model.kind"] == "classifier":
        return torch_reference.openai_classifier(opened.tensors, x, t, **options)
    if fields.get("model.text_layers"):
        names = ("tokens", "token_mask", "low_res", "known", "known_mask")
        more = {name: inputs[name] for name in names if name in inputs}
        options |= {"text_heads": fields["model.text_heads"], "y": inputs.get("labels")}
        return torch_glide.glide_unet(opened.tensors, x, t, **more, **options)
    more = (inputs.get("labels"), inputs.get("low_res"))
    return torch_reference.openai_unet(opened.tensors, x, t, *more, **options)


def check(fields, image_shape) -> None:
    """Refuse what the OpenAI code has no word for."""
    del image_shape
    if fields["model.kind"] == "clip":
        raise errors.Refusal(
            "--format=openai of a CLIP, which is two files there: "
            "--format=safetensors keeps everything in one"
        )
    for field, value in DIALECT.items():
        if field not in INDIFFERENT and fields[field] != value:
            raise errors.Refusal(
                f"{field}={fields[field]!r}: the OpenAI code has {value!r} alone; "
                "--format=safetensors keeps everything"
            )
    _torch()


def save(path, content: Content) -> tuple[str, ...]:
    """Write a state dict; return what to know to use it."""
    torch = _torch()
    state = {key: torch.tensor(array) for key, array in content.tensors.items()}
    torch.save(state, path)
    return ("load it with torch.load and load_state_dict of the OpenAI code",)


def _torch():
    try:
        import torch
    except ImportError as error:
        raise errors.Refusal(
            "--format=openai writes a PyTorch file, and PyTorch is not installed: "
            "pip install 'ddpm-jax[convert]'"
        ) from error
    return torch


FORMAT = Format(
    name="openai",
    about="weights of the OpenAI code",
    marks=(frozenset({"time_embed.0.weight", "input_blocks.0.0.weight"}),),
    recognise=recognise,
    code="the OpenAI code",
    dialect=DIALECT,
    usual=glide.usual,
    entries=entries,
    reference=reference,
    export=Export("openai", ".pt", save, check),
)
