"""Our U-Net as the config.json of a diffusers `UNet2DModel`, or why it is none."""

from collections.abc import Mapping
from typing import Any

from ddpm_jax.core import errors
from ddpm_jax.diffusion import reverse
from ddpm_jax.models import parts

LAYERS = {  # (encoder, decoder) of a level without attention, by model.resblock_updown
    False: ("DownBlock2D", "UpBlock2D"),
    True: ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D"),
}
ATTENTION_LAYERS = ("AttnDownBlock2D", "AttnUpBlock2D")


def config(
    fields: Mapping[str, Any],
    image_shape: tuple[int, int, int],
    *,
    label_rows: int | None = None,
) -> dict[str, Any]:
    """Return the unet/config.json of a network.

    Args:
        fields: values by dotted config name.
        image_shape: (H, W, C).
        label_rows: of the label embedding, None without one.

    Raises:
        Refusal: names the field that `UNet2DModel` has no word for.
    """
    model = {
        name.removeprefix("model."): value
        for name, value in fields.items()
        if name.startswith("model.")
    }
    plan = parts.Plan.of(
        image_size=image_shape[:2],
        channels=model["channels"],
        channel_mult=model["channel_mult"],
        attention_resolutions=model["attention_resolutions"],
    )
    _check(model, plan)
    updown = model["resblock_updown"]
    types = [
        ATTENTION_LAYERS if attended else LAYERS[updown] for attended in plan.attended
    ]
    resampling = "resnet" if updown else "conv"
    middle = model["middle_attention"]
    channels = image_shape[-1]
    learned = fields["diffusion.variance"] in reverse.LEARNED_VARIANCES
    return {
        "_class_name": "UNet2DModel",
        "sample_size": list(image_shape[:2]),
        "in_channels": channels,
        "out_channels": 2 * channels if learned else channels,
        "block_out_channels": list(plan.widths),
        "layers_per_block": model["num_res_blocks"],
        "down_block_types": [down for down, _ in types],
        "up_block_types": [up for _, up in reversed(types)],
        "downsample_type": resampling,
        "upsample_type": resampling,
        "downsample_padding": 1 if model["downsample_padding"] == "both" else 0,
        "dropout": model["dropout"],
        "flip_sin_to_cos": model["sinusoid"] == "cos_sin",
        "freq_shift": model["sinusoid_shift"],
        "norm_num_groups": model["norm_groups"],
        "norm_eps": model["norm_epsilon"],
        "resnet_time_scale_shift": "scale_shift" if model["scale_shift"] else "default",
        "add_attention": middle != "none",
        # Without a number, scale-shift networks would lose the norm in the middle.
        "attn_norm_num_groups": model["norm_groups"] if middle == "normed" else None,
        "attention_head_dim": _head_channels(model, plan),
        "num_class_embeds": label_rows,
    }


def _check(model, plan):
    def refuse(name, why):
        raise errors.Refusal(
            f"model.{name}={model[name]!r}: a diffusers UNet2DModel {why}; "
            "--format=safetensors keeps everything"
        )

    if model["kind"] != "unet":
        refuse("kind", "is a plain U-Net, neither upsampler nor classifier")
    for name, what in (("text_layers", "text"), ("inpainting", "known pixels")):
        if model.get(name):
            refuse(name, f"reads no {what}")
    if plan.widths[0] != model["channels"]:
        refuse(
            "channel_mult",
            "embeds timesteps as wide as its first level, so the first entry must be 1",
        )
    if model["resample"] != "conv" and not model["resblock_updown"]:
        refuse("resample", "resamples by convolutions or inside residual blocks")
    if model["middle_attention"] == "plain" and not model["scale_shift"]:
        refuse("middle_attention", "leaves that norm out with scale_shift only")
    if model["head_channels"] == 0 and model["num_heads"] > 1:
        widths = sorted(_attended_widths(model, plan))
        if len(widths) > 1:
            refuse(
                "num_heads",
                "has one number of channels per head, but with attention at widths "
                f"{', '.join(map(str, widths))} the same number of heads gives several",
            )


def _head_channels(model, plan):
    """Return attention_head_dim; None there means a single head."""
    if model["head_channels"]:
        return model["head_channels"]
    widths = _attended_widths(model, plan)
    if model["num_heads"] == 1 or not widths:
        return None
    return widths.pop() // model["num_heads"]


def _attended_widths(model, plan):
    pairs = zip(plan.widths, plan.attended, strict=True)
    middle = {plan.widths[-1]} if model["middle_attention"] != "none" else set()
    return middle | {width for width, attended in pairs if attended}
