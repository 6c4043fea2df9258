"""What unet/config.json and scheduler_config.json of diffusers mean in our fields.

Whatever our network or process cannot express is refused by the key that stands in the
way. A key that is missing has the default of its class in diffusers, which is said;
but for attention_head_dim, whose default silently spoils the published DDPM models.
"""

from collections.abc import Mapping

from ddpm_jax.convert import names
from ddpm_jax.convert.formats import diffusers_solvers
from ddpm_jax.core import errors

UNET = "unet/config.json"
SCHEDULER = diffusers_solvers.SCHEDULER


def read(source, findings) -> tuple[int, ...]:
    """Take what the JSON beside a file says; return the levels with attention.

    Args:
        source: an `open.Source`.
        findings: a `recognise.Findings`.

    Raises:
        Refusal: it is not there, or says what cannot be imported.
    """
    if "config.json" not in source.configs:
        raise errors.Refusal(
            f"{source.path} is of diffusers and has no config.json beside it, without "
            "which its heads, padding and time embedding are unknown: give the folder "
            "that save_pretrained wrote"
        )
    fields, assumed = unet_fields(source.configs["config.json"])
    attended = fields.pop("facts.attended_levels")
    findings.require(fields, UNET)
    findings.assumed += assumed
    if "scheduler_config.json" in source.configs:
        fields, assumed = scheduler_fields(source.configs["scheduler_config.json"])
        findings.prefer(fields, SCHEDULER)
        findings.assumed += assumed
    return attended


# ---- the network ---------------------------------------------------------------------

UNET_DEFAULTS = {
    "sample_size": None,
    "in_channels": 3,
    "out_channels": 3,
    "center_input_sample": False,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "down_block_types": (
        "DownBlock2D",
        "AttnDownBlock2D",
        "AttnDownBlock2D",
        "AttnDownBlock2D",
    ),
    "mid_block_type": "UNetMidBlock2D",
    "up_block_types": (
        "AttnUpBlock2D",
        "AttnUpBlock2D",
        "AttnUpBlock2D",
        "UpBlock2D",
    ),
    "block_out_channels": (224, 448, 672, 896),
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "downsample_padding": 1,
    "downsample_type": "conv",
    "upsample_type": "conv",
    "dropout": 0.0,
    "act_fn": "silu",
    "norm_num_groups": 32,
    "attn_norm_num_groups": None,
    "norm_eps": 1e-5,
    "resnet_time_scale_shift": "default",
    "add_attention": True,
    "class_embed_type": None,
    "num_class_embeds": None,
}
ONLY = {
    # Keys that our network has one value of.
    "center_input_sample": (False,),
    "time_embedding_type": ("positional",),
    "mid_block_type": ("UNetMidBlock2D",),
    "mid_block_scale_factor": (1,),
    "act_fn": ("silu", "swish"),
    "freq_shift": (0, 1),
    "downsample_padding": (0, 1),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "class_embed_type": (None,),
}
DOWN = {
    # Type → (has attention, how it resamples; None: as downsample_type says).
    "DownBlock2D": (False, "conv"),
    "AttnDownBlock2D": (True, None),
    "ResnetDownsampleBlock2D": (False, "resnet"),
}
UP = {
    "UpBlock2D": (False, "conv"),
    "AttnUpBlock2D": (True, None),
    "ResnetUpsampleBlock2D": (False, "resnet"),
}


def unet_fields(config: Mapping[str, object]) -> tuple[dict[str, object], list[str]]:
    """Return the fields of a UNet2DModel's config, and what had to be assumed.

    Beside config names: "facts.attended_levels" and "facts.num_classes", see
    `openai.recognise`. Without attention_head_dim the heads are left out.

    Raises:
        Refusal: a key has a value that our network cannot express.
    """
    if config.get("_class_name", "UNet2DModel") != "UNet2DModel":
        raise _refusal(UNET, config, "_class_name", "UNet2DModel")
    values, assumed = _with_defaults(config, UNET_DEFAULTS, UNET)
    for key, choices in ONLY.items():
        if values[key] not in choices:
            raise _refusal(UNET, values, key, " or ".join(map(repr, choices)))
    widths = values["block_out_channels"]
    attended, resampling = _blocks(values)
    fields = {
        "model.kind": "unet",
        "model.channels": widths[0],
        "model.channel_mult": tuple(names.multiple(w, widths[0]) for w in widths),
        "model.num_res_blocks": _int(values, "layers_per_block"),
        "facts.attended_levels": attended,
        "model.resblock_updown": resampling == "resnet",
        "model.resample": "conv",
        "model.norm_groups": _int(values, "norm_num_groups"),
        "model.norm_epsilon": float(values["norm_eps"]),
        "model.scale_shift": values["resnet_time_scale_shift"] == "scale_shift",
        "model.sinusoid": "cos_sin" if values["flip_sin_to_cos"] else "sin_cos",
        "model.sinusoid_shift": values["freq_shift"],
        "model.downsample_padding": "both" if values["downsample_padding"] else "end",
        "model.qkv_order": "new",
        "model.attention_scale": "product",
        "model.attention_positions": False,
        "model.middle_attention": _middle(values),
        "model.initialisation": "torch",
        "model.dropout": float(values["dropout"]),
        "model.class_conditional": values["num_class_embeds"] is not None,
        "data.channels": values["in_channels"],
    }
    if values["time_embedding_dim"] not in (None, 4 * widths[0]):
        raise _refusal(UNET, values, "time_embedding_dim", f"null or {4 * widths[0]}")
    if values["num_class_embeds"] is not None:
        fields["facts.num_classes"] = values["num_class_embeds"]
    size = values["sample_size"]
    if size is not None:
        fields["data.image_size"] = (
            (size, size) if isinstance(size, int) else tuple(size)
        )
    return {**fields, **_heads(values)}, assumed


def _heads(config):
    if "attention_head_dim" not in config:
        return {}
    size = config["attention_head_dim"]
    if size is None:
        return {"model.num_heads": 1, "model.head_channels": 0}
    return {"model.head_channels": _int(config, "attention_head_dim")}


def _blocks(values):
    """Return the levels with attention, and how all levels resample."""
    down, up = values["down_block_types"], values["up_block_types"]
    levels = len(values["block_out_channels"])
    for key, types, known in (
        ("down_block_types", down, DOWN),
        ("up_block_types", up, UP),
    ):
        if len(types) != levels or not set(types) <= known.keys():
            raise _refusal(UNET, values, key, f"{levels} of {', '.join(known)}")
    attended = tuple(i for i, kind in enumerate(down) if DOWN[kind][0])
    if attended != tuple(i for i, kind in enumerate(reversed(up)) if UP[kind][0]):
        raise _refusal(UNET, values, "up_block_types", "attention at the same levels")
    # The last of either way resamples nothing.
    ways = {DOWN[kind][1] or values["downsample_type"] or "conv" for kind in down[:-1]}
    ways |= {UP[kind][1] or values["upsample_type"] or "conv" for kind in up[:-1]}
    if len(ways) > 1 or not ways <= {"conv", "resnet"}:
        raise errors.Refusal(
            f"{UNET}: levels resample by {', '.join(sorted(ways))} (down_block_types, "
            "up_block_types, downsample_type, upsample_type): our network resamples "
            "all by conv or all by resnet"
        )
    return attended, ways.pop() if ways else "conv"


def _middle(values):
    if not values["add_attention"]:
        return "none"
    groups = values["attn_norm_num_groups"]
    if groups is None:
        # diffusers leaves the norm out where time scales and shifts.
        shifting = values["resnet_time_scale_shift"] == "scale_shift"
        return "plain" if shifting else "normed"
    if groups != values["norm_num_groups"]:
        raise _refusal(
            UNET, values, "attn_norm_num_groups", f"null or {values['norm_num_groups']}"
        )
    return "normed"


def _int(values, key):
    if not isinstance(values[key], int):
        raise _refusal(UNET, values, key, "one integer")
    return values[key]


# ---- the process ---------------------------------------------------------------------

SCHEDULER_DEFAULTS = {
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
    "clip_sample": True,
    "clip_sample_range": 1.0,
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
    "sample_max_value": 1.0,
    "rescale_betas_zero_snr": False,
}
SCHEDULES = {
    "linear": "linear_fixed",
    "scaled_linear": "quad",
    "squaredcos_cap_v2": "cosine",
    "sigmoid": "sigmoid",
}
PREDICTIONS = {"epsilon": "noise", "sample": "x_0", "v_prediction": "v"}
VARIANCES = {
    # fixed_large_log and learned are no choices: diffusers takes the square root of a
    # logarithm, and of what the network returns.
    "fixed_small": "fixed_small",
    "fixed_small_log": "fixed_small",
    "fixed_large": "fixed_large",
    "learned_range": "learned_range",
}
OF_PROCESSES = ("DDPMScheduler", "DDIMScheduler")


def scheduler_fields(
    config: Mapping[str, object],
) -> tuple[dict[str, object], list[str]]:
    """Return the fields of a scheduler's config, and what had to be assumed.

    The variance is left out where the scheduler has none, as DDIMScheduler.

    Raises:
        Refusal: a key has a value that our process cannot express.
    """
    kind = config.get("_class_name", "DDPMScheduler")
    if kind not in OF_PROCESSES and "beta_schedule" not in config:
        raise _refusal(SCHEDULER, config, "_class_name", " or ".join(OF_PROCESSES))
    values, assumed = _with_defaults(config, SCHEDULER_DEFAULTS, SCHEDULER)
    if values["clip_sample"] and values["clip_sample_range"] != 1:
        raise _refusal(SCHEDULER, values, "clip_sample_range", "1.0")
    fields = {
        "diffusion.num_steps": values["num_train_timesteps"],
        "diffusion.prediction": _chosen(values, "prediction_type", PREDICTIONS),
        "diffusion.rescale_timesteps": False,
        "diffusion.log_var_floor": "1e-20",
        "diffusion.zero_terminal_snr": bool(values["rescale_betas_zero_snr"]),
        "sampling.clip": bool(values["clip_sample"]),
        **_betas(values),
        **_threshold(values),
    }
    if kind not in OF_PROCESSES:
        assumed.append(diffusers_solvers.of_another_class(kind))
    assumed += diffusers_solvers.not_carried(config, SCHEDULER_DEFAULTS)
    if kind == "DDPMScheduler" and config.get("variance_type", "") is None:
        # Of neither branch, its variance stays that of the posterior.
        fields["diffusion.variance"] = "fixed_small"
        assumed.append(f"variance_type is null in {SCHEDULER}: 'fixed_small'")
    elif config.get("variance_type") is not None:
        fields["diffusion.variance"] = _chosen(config, "variance_type", VARIANCES)
    elif kind == "DDPMScheduler":
        fields["diffusion.variance"] = "fixed_small"
        assumed.append(f"variance_type is not in {SCHEDULER}: 'fixed_small'")
    return fields, assumed


def _betas(values):
    betas = values["trained_betas"]
    if betas is not None:
        if not isinstance(betas, list) or not all(map(_is_number, betas)):
            raise _refusal(SCHEDULER, values, "trained_betas", "a list of numbers")
        numbers = tuple(map(float, betas))
        return {"diffusion.schedule": "custom", "diffusion.betas": numbers}
    return {
        "diffusion.schedule": _chosen(values, "beta_schedule", SCHEDULES),
        "diffusion.beta_start": float(values["beta_start"]),
        "diffusion.beta_end": float(values["beta_end"]),
    }


def _threshold(values):
    if not values["thresholding"]:
        return {}
    if values["dynamic_thresholding_ratio"] != 0.995:
        raise _refusal(SCHEDULER, values, "dynamic_thresholding_ratio", "0.995")
    return {"sampling.dynamic_threshold": float(values["sample_max_value"])}


def _chosen(values, key, table):
    if values[key] not in table:
        raise _refusal(SCHEDULER, values, key, " or ".join(map(repr, table)))
    return table[values[key]]


def _with_defaults(config, defaults, where):
    config = {key: _whole(value, defaults.get(key)) for key, value in config.items()}
    for key, default in defaults.items():
        if not _is_alike(config.get(key, default), default):
            raise _refusal(where, config, key, f"a value like {default!r}")
    missing = [key for key in defaults if key not in config]
    telling = [key for key in missing if key in TOLD_WHEN_MISSING]
    assumed = [f"{key} is not in {where}: {defaults[key]!r}" for key in telling]
    return {**defaults, **config}, assumed


def _whole(value, default):
    """Return 1 for the 1.0 of other writers, where no float is meant."""
    if isinstance(default, float):
        return value
    if isinstance(value, list | tuple):
        return type(value)(_whole(one, default) for one in value)
    is_whole = isinstance(value, float) and value.is_integer()
    return int(value) if is_whole else value


def _is_alike(value, default):
    """Return whether a value of JSON has the type that the default tells."""
    if default is None or isinstance(value, type(default)):
        return True
    if isinstance(default, tuple):
        return isinstance(value, list | tuple)
    is_float = isinstance(default, float)
    return is_float and _is_number(value)


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


TOLD_WHEN_MISSING = (
    # Other keys came with later versions of diffusers, whose defaults keep the old.
    "freq_shift",
    "flip_sin_to_cos",
    "downsample_padding",
    "norm_eps",
    "norm_num_groups",
    "layers_per_block",
    "block_out_channels",
    "down_block_types",
    "up_block_types",
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "prediction_type",
    "clip_sample",
)


def _refusal(where, values, key, wanted):
    return errors.Refusal(
        f"{where}: {key} = {values.get(key)!r} stands in the way; what can be imported "
        f"has {wanted}"
    )
