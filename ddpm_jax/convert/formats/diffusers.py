"""State dicts of diffusers' UNet2DModel; `diffusers_configs` reads its JSON."""

import re
from collections.abc import Iterable, Mapping

from ddpm_jax.convert import format as format_lib
from ddpm_jax.convert import mapping, names, torch_reference
from ddpm_jax.convert.export import diffusers_config, diffusers_scheduler
from ddpm_jax.convert.format import NEEDED, Content, Export, Format
from ddpm_jax.convert.formats import diffusers_configs, native
from ddpm_jax.core import errors
from ddpm_jax.runtime import files

Shape = tuple[int, ...]

NAMES = names.Names(
    separator=".",
    outside={
        "time_embedding/dense_1": "time_embedding.linear_1",
        "time_embedding/dense_2": "time_embedding.linear_2",
        "label_embedding": "class_embedding",
        "conv_in": "conv_in",
        "norm_out": "conv_norm_out",
        "conv_out": "conv_out",
    },
    places={
        "down/blocks": "down_blocks.{level}.resnets.{i}",
        "down/attentions": "down_blocks.{level}.attentions.{i}",
        "down/resample": "down_blocks.{level}.downsamplers.0",
        "middle/block_1": "mid_block.resnets.0",
        "middle/attention": "mid_block.attentions.0",
        "middle/block_2": "mid_block.resnets.1",
        "up/blocks": "up_blocks.{upward}.resnets.{i}",
        "up/attentions": "up_blocks.{upward}.attentions.{i}",
        "up/resample": "up_blocks.{upward}.upsamplers.0",
    },
    parts={
        "norm_1": "norm1",
        "conv_1": "conv1",
        "embed": "time_emb_proj",
        "norm_2": "norm2",
        "conv_2": "conv2",
        "shortcut": "conv_shortcut",
        "norm": "group_norm",
        "proj_out": "to_out.0",
    },
)
OLD = (
    # Names of earlier versions, and the present ones.
    (re.compile(r"(\.attentions\.\d+)\.query\."), r"\1.to_q."),
    (re.compile(r"(\.attentions\.\d+)\.key\."), r"\1.to_k."),
    (re.compile(r"(\.attentions\.\d+)\.value\."), r"\1.to_v."),
    (re.compile(r"(\.attentions\.\d+)\.proj_attn\."), r"\1.to_out.0."),
    (re.compile(r"^mid\.(resnets|attentions)\."), r"mid_block.\1."),
    (re.compile(r"^downsample_blocks\."), "down_blocks."),
    (re.compile(r"^upsample_blocks\."), "up_blocks."),
)
ATTENTION_WEIGHT = re.compile(r"\.attentions\.\d+\.to_(q|k|v|out\.0)\.weight$")


def present_name(key: str) -> str:
    """Return the present name of a tensor that earlier versions of diffusers wrote."""
    for pattern, present in OLD:
        key = pattern.sub(present, key)
    return key


def present_shapes(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Return the shapes with dense layers of attention stored as 1×1 as [O, I]."""
    return {
        key: shape[:2]
        if ATTENTION_WEIGHT.search(key) and shape[2:] == (1, 1)
        else shape
        for key, shape in shapes.items()
    }


def entries(
    our_shapes: Mapping[str, Shape], fields: Mapping[str, object]
) -> list[mapping.Entry]:
    """Return where each of our parameters stands in a state dict of UNet2DModel."""
    del fields  # the paths tell the levels, blocks and attentions
    layout = names.Layout.of(our_shapes)
    return [_entry(path, shape, layout) for path, shape in our_shapes.items()]


def _entry(path, shape, layout):
    module, _, leaf = path.rpartition("/")
    rule = "copy"
    if leaf == "kernel":
        rule = "conv" if len(shape) == 4 else "transpose"
    leaf = "bias" if leaf == "bias" else "weight"
    parent, _, part = module.rpartition("/")
    parts = ("to_q", "to_k", "to_v") if part == "qkv" else (part,)
    keys = [
        f"{NAMES.module(f'{parent}/{one}' if parent else one, layout)}.{leaf}"
        for one in parts
    ]
    return mapping.Entry(path, tuple(keys), rule)


def recognise(shapes: Mapping[str, Shape]) -> dict[str, object]:
    """Return the fields that shapes alone tell; the JSON tells the others.

    Raises:
        Refusal: tensors that every UNet2DModel has are missing.
    """
    _require(
        shapes, ("conv_in.weight", "conv_out.weight", "time_embedding.linear_1.weight")
    )
    seen, given = shapes["conv_in.weight"][1], shapes["conv_out.weight"][0]
    if given not in (seen, 2 * seen):
        raise errors.Refusal(
            f"the network reads {seen} channels and returns {given}: an image model "
            "returns as many or twice as many"
        )
    fields = {
        "model.kind": "unet",
        "model.channels": shapes["time_embedding.linear_1.weight"][1],
        "model.class_conditional": "class_embedding.weight" in shapes,
        "data.channels": seen,
        "facts.learned_variance": given == 2 * seen,
    }
    if fields["model.class_conditional"]:
        fields["facts.num_classes"] = shapes["class_embedding.weight"][0]
    return fields


def _require(shapes: Iterable[str], keys):
    missing = [key for key in keys if key not in shapes]
    if missing:
        raise errors.Refusal(
            f"the file looks like one of diffusers but has no {missing[0]}: it is cut "
            "short or of another network"
        )


# ---- compared and written ------------------------------------------------------------


def reference(opened, fields, inputs):
    """Return the output of PyTorch, see `format.Format`."""
    # The source's own word, and the fields where it has none.
    shape = (*format_lib.image_size(fields), fields["data.channels"])
    config = diffusers_config.config(fields, shape) | opened.configs.get(
        "config.json", {}
    )
    return torch_reference.diffusers_unet(
        opened.tensors, config, inputs["x"], inputs["t"], inputs.get("labels")
    )


def check(fields, image_shape) -> None:
    """Refuse what diffusers has no word for."""
    diffusers_scheduler.config(fields)
    diffusers_config.config(fields, image_shape)


def save(path, content: Content) -> tuple[str, ...]:
    """Write the folder of a pipeline; return what to know to use it."""
    fields = content.fields
    scheduler = diffusers_scheduler.config(fields)
    labels = content.tensors.get("class_embedding.weight")
    unet = diffusers_config.config(
        fields,
        content.image_shape,
        label_rows=None if labels is None else len(labels),
    )
    index = {
        "_class_name": "DDPMPipeline",
        "scheduler": ["diffusers", scheduler["_class_name"]],
        "unet": ["diffusers", unet["_class_name"]],
    }
    files.write_json(path / "model_index.json", index)
    files.write_json(path / "scheduler" / "scheduler_config.json", scheduler)
    files.write_json(path / "unet" / "config.json", unet)
    native.save_safetensors(
        path / "unet" / "diffusion_pytorch_model.safetensors",
        content.tensors,
        # diffusers asks for the first.
        {"format": "pt", "provenance": native.to_json(content.provenance)},
    )
    steps = scheduler["num_train_timesteps"]
    lines = [
        f"load it with diffusers.DDPMPipeline.from_pretrained, and give it "
        f"num_inference_steps of 1 … {steps}: it takes 1000 by itself"
    ]
    if labels is not None:
        lines = [
            "load it with diffusers.UNet2DModel and DDPMScheduler and give the network "
            "class_labels: DDPMPipeline does not; set_timesteps takes 1 … "
            f"{steps} of them"
        ]
    if fields["diffusion.variance"] == "learned_range":
        lines.append(
            "the network returns its variance beside the mean, which DDIMScheduler and "
            "DDIMPipeline fail at: keep DDPMScheduler, or give others the first half "
            "of the channels"
        )
    return tuple(lines)


FORMAT = Format(
    name="diffusers",
    about="weights of diffusers",
    marks=(frozenset({"time_embedding.linear_1.weight", "conv_in.weight"}),),
    present_name=present_name,
    present_shapes=present_shapes,
    recognise=recognise,
    read_configs=diffusers_configs.read,
    needed={
        **NEEDED,
        "model.num_heads": "1 (DDPM), or --config.model.head_channels=8, what "
        "diffusers takes as config.json lacks attention_head_dim",
    },
    entries=entries,
    reference=reference,
    export=Export("diffusers", "", save, check, splits_qkv=True),
)
