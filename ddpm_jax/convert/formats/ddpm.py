"""Checkpoints of the DDPM code: the TensorFlow originals, and their PyTorch copies.

Both hold the same network. TensorFlow's arrays lie as ours; the copies are PyTorch's.
"""

import dataclasses
import itertools
from collections.abc import Mapping

from ddpm_jax.convert import mapping, names, torch_reference
from ddpm_jax.convert.format import Format
from ddpm_jax.core import errors

Shape = tuple[int, ...]

DIALECT = {
    # What every network of this code has in common and its shapes cannot tell.
    "model.kind": "unet",
    "model.sinusoid": "sin_cos",
    "model.sinusoid_shift": 1,
    "model.norm_groups": 32,
    "model.norm_epsilon": 1e-6,
    "model.downsample_padding": "end",
    "model.qkv_order": "new",
    "model.attention_scale": "product",
    "model.attention_positions": False,
    "model.middle_attention": "normed",
    "model.initialisation": "ddpm",
    "model.num_heads": 1,
    "model.head_channels": 0,
    "model.scale_shift": False,
    "model.resblock_updown": False,
    "model.class_conditional": False,
    "diffusion.rescale_timesteps": False,
}

# ---- the map -------------------------------------------------------------------------

TENSORFLOW = names.Names(
    separator="/",
    outside={
        "time_embedding/dense_1": "temb/dense0",
        "time_embedding/dense_2": "temb/dense1",
        "conv_in": "conv_in",
        "norm_out": "norm_out",
        "conv_out": "conv_out",
    },
    places={
        "down/blocks": "down_{level}/block_{i}",
        "down/attentions": "down_{level}/attn_{i}",
        "down/resample": "down_{level}/downsample",
        "middle/block_1": "mid/block_1",
        "middle/attention": "mid/attn_1",
        "middle/block_2": "mid/block_2",
        "up/blocks": "up_{level}/block_{i}",
        "up/attentions": "up_{level}/attn_{i}",
        "up/resample": "up_{level}/upsample",
    },
    parts={
        "norm_1": "norm1",
        "conv_1": "conv1",
        "embed": "temb_proj",
        "norm_2": "norm2",
        "conv_2": "conv2",
        "shortcut": "nin_shortcut",
    },
)
PYTORCH = dataclasses.replace(
    TENSORFLOW,
    separator=".",
    outside={
        **TENSORFLOW.outside,
        "time_embedding/dense_1": "temb.dense.0",
        "time_embedding/dense_2": "temb.dense.1",
    },
    places={
        "down/blocks": "down.{level}.block.{i}",
        "down/attentions": "down.{level}.attn.{i}",
        "down/resample": "down.{level}.downsample",
        "middle/block_1": "mid.block_1",
        "middle/attention": "mid.attn_1",
        "middle/block_2": "mid.block_2",
        "up/blocks": "up.{level}.block.{i}",
        "up/attentions": "up.{level}.attn.{i}",
        "up/resample": "up.{level}.upsample",
    },
)


def entries(
    our_shapes: Mapping[str, Shape], fields: Mapping[str, object]
) -> list[mapping.Entry]:
    """Return where each of our parameters stands in a checkpoint of this code.

    "facts.layout" is "pytorch" for the copies; else TensorFlow is meant.
    """
    layout = names.Layout.of(our_shapes)
    make = _pytorch if fields.get("facts.layout") == "pytorch" else _tensorflow
    return [make(path, our_shapes, layout) for path in our_shapes]


def _tensorflow(path, our_shapes, layout):
    module, _, leaf = path.rpartition("/")
    if f"{module}/scale" in our_shapes:
        leaf = {"scale": "gamma", "bias": "beta"}[leaf]
    else:
        leaf = {"kernel": "W", "bias": "b"}[leaf]
    rule = "pixelwise" if path.endswith("/shortcut/kernel") else "copy"
    keys = [f"{name}/{leaf}" for name in _modules(TENSORFLOW, module, layout)]
    return mapping.Entry(path, tuple(keys), rule)


def _pytorch(path, our_shapes, layout):
    module, _, leaf = path.rpartition("/")
    rule = "copy"
    if leaf == "kernel" and "attention" in module:
        rule = "conv1x1"
    elif leaf == "kernel":
        rule = "conv" if len(our_shapes[path]) == 4 else "transpose"
    leaf = "bias" if leaf == "bias" else "weight"
    keys = [f"{name}.{leaf}" for name in _modules(PYTORCH, module, layout)]
    return mapping.Entry(path, tuple(keys), rule)


def _modules(scheme, module, layout):
    """Return the modules that hold one of ours: q, k and v are three."""
    parent, _, part = module.rpartition("/")
    if part == "qkv":
        return [scheme.module(f"{parent}/{one}", layout) for one in "qkv"]
    return [scheme.module(module, layout)]


# ---- choosing among the variables of a TensorFlow checkpoint -------------------------

AVERAGE = "/ExponentialMovingAverage"
SLOTS = ("/Adam", "/Adam_1", "/RMSProp", "/RMSProp_1", "/Momentum")
COUNTERS = ("global_step", "beta1_power", "beta2_power")


def select(shapes: Mapping[str, Shape]) -> tuple[dict[str, str], list[str]]:
    """Return the network's variables among those of a TensorFlow checkpoint.

    Where a variable has a moving average, that is taken. Counters and the optimizer's
    slots are left.

    Args:
        shapes: shape of every variable of the checkpoint by name.

    Returns:
        The variables' names by name without scope and suffix, and notes.
    """
    plain = {
        name.removeprefix("model/"): name
        for name in shapes
        if not name.endswith((*SLOTS, AVERAGE))
        and name.rpartition("/")[2] not in COUNTERS
    }
    averages = {
        name.removesuffix(AVERAGE).removeprefix("model/"): name
        for name in shapes
        if name.endswith(AVERAGE)
    }
    chosen = plain | averages
    slots = sum(name.endswith(SLOTS) for name in shapes)
    notes = []
    if averages:
        notes.append(
            f"averaged weights (EMA) were taken for {len(averages)} of {len(chosen)} "
            "variables"
        )
    else:
        notes.append("there are no averaged weights (EMA): the raw ones were taken")
    if slots:
        notes.append(f"{slots} slots of the optimizer were left")
    return chosen, notes


# ---- recognising ---------------------------------------------------------------------


def recognise(shapes: Mapping[str, Shape]) -> dict[str, object]:
    """Return the fields that a checkpoint of this code tells, see `openai.recognise`.

    Raises:
        Refusal: tensors that every network of this code has are missing.
    """
    pytorch = "temb.dense.0.weight" in shapes
    scheme = PYTORCH if pytorch else TENSORFLOW
    leaf = "weight" if pytorch else "W"
    # The axes of channels out and in: OIHW and [O, I], or HWIO and [I, O].
    out, into = (0, 1) if pytorch else (-1, -2)

    def kernel(*name):
        key = scheme.separator.join((*name, leaf))
        if key not in shapes:
            raise errors.Refusal(
                f"the file looks like one of the DDPM code but has no {key}: it is "
                "cut short or of another network"
            )
        return shapes[key]

    def has(place, part, **numbers):
        name = scheme.places[place].format(**numbers)
        return scheme.separator.join((name, part, leaf)) in shapes

    def block(level):
        return scheme.places["down/blocks"].format(level=level, i=0)

    def count(test):
        return next(n for n in itertools.count() if not test(n))

    channels = kernel(scheme.outside["time_embedding/dense_1"])[into]
    levels = count(lambda level: has("down/blocks", "conv1", level=level, i=0))
    widths = [kernel(block(level), "conv1")[out] for level in range(levels)]
    data_channels = kernel("conv_in")[into]
    fields = {
        "model.kind": "unet",
        "facts.layout": "pytorch" if pytorch else "tensorflow",
        "model.channels": channels,
        "model.channel_mult": tuple(names.multiple(w, channels) for w in widths),
        "model.num_res_blocks": count(
            lambda i: has("down/blocks", "conv1", level=0, i=i)
        ),
        "model.resample": (
            "conv" if levels == 1 or has("down/resample", "conv", level=0) else "pool"
        ),
        "facts.attended_levels": tuple(
            level
            for level in range(levels)
            if has("down/attentions", "q", level=level, i=0)
        ),
        "data.channels": data_channels,
    }
    fields["facts.learned_variance"] = kernel("conv_out")[out] == 2 * data_channels
    return fields


def reference(opened, fields, inputs):
    """Return the output of PyTorch, see `format.Format`."""
    del fields
    return torch_reference.ddpm_unet(opened.tensors, inputs["x"], inputs["t"])


FORMAT = Format(
    name="ddpm",
    about="weights of the DDPM code",
    marks=(
        frozenset({"temb/dense0/W", "conv_in/W"}),
        frozenset({"temb.dense.0.weight", "conv_in.weight"}),
    ),
    recognise=recognise,
    code="the DDPM code",
    dialect=DIALECT,
    entries=entries,
    reference=reference,
)
