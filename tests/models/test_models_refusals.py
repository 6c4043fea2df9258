"""What a network cannot be built from or called with."""

import jax
import jax.numpy as jnp
import pytest
from small_unet import batch, tiny

from ddpm_jax.core import errors

LABELS = {"label": jnp.zeros(4, jnp.int32)}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"image_size": (30, 30), "channel_mult": (1, 1, 2, 2)},
            r"image size 30x30 is not divisible by 8 \(3 downsamplings\): use 24 or 32",
        ),
        ({"image_size": (9, 8)}, "9x8 is not divisible by 2 .*: use 8x8 or 10x8"),
        ({"image_size": (1, 1)}, r"1x1 is not divisible by 2 .*: use 2, or fewer"),
        ({"image_size": (0, 8)}, "image size 0x8 has no pixels"),
        ({"num_heads": 3}, "num_heads 3 does not divide the 16 channels of level 1"),
        ({"num_heads": 3}, "use 1, 2, 4, 8 or 16"),
        ({"num_heads": 0}, "num_heads is 0"),
        ({"head_channels": 5}, "head_channels 5 does not divide the 16 channels of"),
        (
            {"num_heads": 16, "attention_resolutions": (8,)},
            "num_heads 16 does not divide the 8 channels of level 0, .* 1, 2, 4 or 8",
        ),
        ({"norm_groups": 32}, "norm_groups 32 does not divide the 8 channels of level"),
        ({"norm_groups": 32}, "use 1, 2, 4 or 8"),
        (
            {"attention_resolutions": (4, 16)},
            "attention resolution 16 is not the size of any level: use 8 or 4, or none",
        ),
        ({"dtype": "float16"}, "'float16' overflows above 65,504.*use bfloat16"),
        ({"dtype": "float8"}, "unknown dtype 'float8': choose one of bfloat16, f"),
        ({"qkv_order": "old"}, "unknown qkv_order 'old': choose one of legacy, new"),
        ({"sinusoid": "sin"}, "unknown sinusoid 'sin': choose one of cos_sin, sin_cos"),
        ({"sinusoid_shift": 2}, "unknown sinusoid_shift 2: choose one of 0, 1"),
        ({"downsample_padding": "same"}, "choose one of both, end"),
        ({"resample": "bilinear"}, "unknown resample .*: choose one of conv, pool"),
        ({"attention_scale": "none"}, "choose one of product, split"),
        (
            {"middle_attention": False},
            "unknown middle_attention False: .* none, ",
        ),
        (
            {"initialisation": "he"},
            "unknown initialisation 'he': .* ddpm, openai, torch",
        ),
        ({"remat": "all"}, "unknown remat 'all': .* attention, blocks, dots, none"),
        ({"norm_epsilon": 0.0}, "norm_epsilon is 0.0: give a small positive number"),
        ({"norm_epsilon": float("nan")}, "norm_epsilon is nan"),
        (
            {"channels": 2, "norm_groups": 1, "sinusoid_shift": 1},
            "channels is 2, too few .* with sinusoid_shift 1: use at least 4",
        ),
        ({"dropout": 1.0}, r"dropout 1.0 is outside \[0, 1\)"),
        ({"dropout": -0.1}, r"dropout -0.1 is outside \[0, 1\)"),
        ({"channels": 0}, "channels is 0: give a whole number of at least 1"),
        ({"num_res_blocks": 0}, "num_res_blocks is 0"),
        ({"num_res_blocks": 1.5}, "num_res_blocks is 1.5"),
        ({"num_classes": 0}, "num_classes is 0"),
        ({"in_channels": 0}, "in_channels is 0"),
        ({"channel_mult": ()}, "channel_mult is empty"),
        ({"channel_mult": (0.1, 1)}, "channel_mult entry 0.1 times 8 channels leaves"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, words):
    with pytest.raises(errors.Refusal, match=words):
        tiny(**changes)


@pytest.mark.parametrize(
    ("num_classes", "arguments", "words"),
    [
        (5, {}, r"'label' and got none: give int32\[4\]"),
        (
            5,
            {"condition": LABELS | {"low_res": jnp.zeros((4, 4, 4, 3))}},
            "'low_res' .* reads label:",
        ),
        (
            5,
            {"condition": {"label": jnp.zeros(3, jnp.int32)}},
            r"'label' is int32\[3\]",
        ),
        (5, {"condition": {"label": jnp.zeros(4)}}, r"'label' is float32\[4\]"),
        (None, {"condition": LABELS}, "reads no condition: leave it out"),
        (None, {"t": jnp.zeros((4, 1))}, r"timesteps have shape \(4, 1\)"),
        (None, {"x": jnp.zeros((4, 8, 8, 1))}, r"\(4, 8, 8, 1\) do not fit .* 8, 8, 3"),
        (None, {"x": jnp.zeros((4, 8, 6, 3))}, r"\(4, 8, 6, 3\) do not fit"),
    ],
)
def test_calls_that_do_not_fit_are_refused(num_classes, arguments, words):
    net = tiny(num_classes=num_classes)
    x, t = batch()
    with pytest.raises(errors.Refusal, match=words):
        jax.eval_shape(
            lambda params: net.apply(params, **{"x": x, "t": t, **arguments}),
            net.shapes,
        )


@pytest.mark.parametrize(
    ("low_res", "shape", "words"),
    [
        (True, None, r"'low_res' and got none: give float32\[4, any, any, 3\]"),
        (True, (4, 4, 3), r"'low_res' is float32\[4, 4, 3\]: .*\[4, any, any, 3\]"),
        (True, (3, 4, 4, 3), r"'low_res' is float32\[3, 4, 4, 3\]"),
        (True, (4, 4, 4, 1), r"'low_res' is float32\[4, 4, 4, 1\]"),
        (True, (4, 4, 9, 3), r"low_res has shape \(4, 4, 9, 3\): .* at most 8x8"),
        (True, (4, 16, 8, 3), r"low_res has shape \(4, 16, 8, 3\)"),
        (
            False,
            (4, 4, 4, 3),
            "'low_res' .* reads no condition: leave it out, or build",
        ),
    ],
)
def test_low_res_images_that_do_not_fit_are_refused(low_res, shape, words):
    net = tiny(low_res=low_res)
    x, t = batch()
    condition = {} if shape is None else {"low_res": jnp.zeros(shape)}
    with pytest.raises(errors.Refusal, match=words):
        jax.eval_shape(lambda p: net.apply(p, x, t, condition), net.shapes)
