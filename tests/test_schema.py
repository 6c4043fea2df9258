"""Lists that are kept by hand beside the schema: nothing may be forgotten in them."""

import pytest

from ddpm_jax import config as config_lib
from ddpm_jax.builders import data as build_data
from ddpm_jax.builders import network as build_network
from ddpm_jax.builders import sampling as build_sampling
from ddpm_jax.builders import trained_run
from ddpm_jax.config import reading, rules
from ddpm_jax.evaluation import sample_scorer
from ddpm_jax.sampling import recipe as recipe_lib

FACTS = build_data.DataInfo((8, 8, 1), 256, 100, 3, ("cat", "dog", "owl"), "…")

CHANGE_NO_IMAGE = set(build_sampling.CHANGE_NO_IMAGE)
OF_THE_WEIGHTS = set(build_sampling.OF_WEIGHTS)
# They need another run: see tests/modes/test_modes_guidance.py.
OF_OTHER_RUNS = {
    *("classifier", "classifier_scale", "guidance_t_max", "weaker", "weaker_scale")
}
# They need images to enlarge: see tests/builders/test_builders_low_res.py.
OF_UPSAMPLERS = {"low_res", "low_res_t", "low_res_sigma"}
OF_TEXT_RUNS = {"prompts"}  # see tests/modes/test_modes_text.py
# For every other field: settings that belong to it, and another value.
OTHER_VALUES = {
    "method": ({}, "ddim"),
    "steps": ({}, 7),
    "respacing": ({}, "5,5"),
    "spacing": ({"steps": 7}, "trailing"),
    "temperature": ({}, 0.997),
    "eta": ({"method": "ddim"}, 0.5),
    "labels": ({}, ("dog",)),
    "per_class": ({}, 4),
    "guidance_scale": ({}, 2.0),
    "guidance_w": ({}, 1.0),
    "guidance_interval": ({"guidance_scale": 2.0}, (0.0, 0.5)),
    "guidance_rescale": ({"guidance_scale": 2.0}, 0.7),
    "negative": ({"guidance_scale": 2.0}, "dog"),
    "clip": ({}, False),
    "dynamic_threshold": ({}, 1.5),
    "seed": ({}, 1),
}


def conditional(**sampling):
    config = config_lib.base()
    config.model.class_conditional = True
    config.train.label_dropout = 0.1
    config.diffusion.num_steps = 40
    config.sampling.update(sampling)
    return config


WEIGHTS = recipe_lib.Weights({}, "ema", "EMA weights", step=3)


def request_and_tag(config):
    recipe = build_sampling.recipe(config, FACTS)
    return recipe.request(WEIGHTS), recipe.tag(WEIGHTS)


def test_every_sampling_field_is_tried():
    fields = set(config_lib.base().sampling)
    assert fields == (
        CHANGE_NO_IMAGE
        | OF_THE_WEIGHTS
        | OF_OTHER_RUNS
        | OF_UPSAMPLERS
        | OF_TEXT_RUNS
        | OTHER_VALUES.keys()
    )


@pytest.mark.parametrize("field", sorted(OTHER_VALUES))
def test_a_field_that_changes_images_changes_request_tag_and_score_protocol(field):
    context, other = OTHER_VALUES[field]
    usual, changed = conditional(**context), conditional(**context, **{field: other})
    request, tag = request_and_tag(usual)
    other_request, other_tag = request_and_tag(changed)
    assert other_request != request
    assert other_tag != tag
    before, after = (sample_scorer.protocol(c, "fid") for c in (usual, changed))
    assert before != after


@pytest.mark.parametrize("field", sorted(CHANGE_NO_IMAGE))
def test_a_field_that_changes_no_image_changes_neither(field):
    assert request_and_tag(conditional(**{field: 7})) == request_and_tag(conditional())


def test_what_a_run_lets_change_is_in_the_schema():
    fields = dict(reading.leaves(config_lib.base().to_dict()))
    for rule in config_lib.MUTABLE:
        assert any(
            name == rule or (rule.endswith(".*") and name.startswith(rule[:-1]))
            for name in fields
        ), rule


def test_choices_are_those_of_the_modules_that_take_them():
    from ddpm_jax.data import sources
    from ddpm_jax.diffusion import respacing
    from ddpm_jax.metrics import resize
    from ddpm_jax.models import unet
    from ddpm_jax.training import optim

    taken = {
        "sampling.spacing": ("", *respacing.SPACINGS),
        "data.crop": sources.CROPS,
        "train.mu_dtype": optim.MU_DTYPES,
        "model.remat": unet.REMAT,
        "evaluation.resize": resize.RULES,
    }
    for field, choices in taken.items():
        assert set(rules.CHOICES[field]) == set(choices), field


def test_metrics_are_known_by_these_names():
    from ddpm_jax.metrics import table

    # Configs, cards and best.json of runs hold them.
    names = (
        "bits_per_dim accuracy bound psnr consistency fid sfid inception_score "
        "precision_recall kid proxy_fd"
    )
    of_texts = ("prompt_accuracy", "prompt_swap")
    assert {*names.split(), "proxy_fd_random", *of_texts} == {*table.NAMES}


# Every field of config.model, with a value that differs from the network below.
OTHER_NETWORKS = {
    "channels": 64,
    "channel_mult": (1, 1),
    "num_res_blocks": 1,
    "attention_resolutions": (),
    "num_heads": 2,
    "head_channels": 16,
    "norm_groups": 16,
    "scale_shift": False,
    "resblock_updown": True,
    "kind": "upsampler",
    "guides": "runs/digits",
    "sinusoid": "sin_cos",
    "sinusoid_shift": 1,
    "norm_epsilon": 1e-6,
    "downsample_padding": "end",
    "resample": "pool",
    "qkv_order": "new",
    "attention_scale": "product",
    "attention_positions": True,
    "middle_attention": "none",
    "initialisation": "ddpm",
    "inpainting": True,
    "low_res_noise": True,
    "text_layers": 1,
    "text_width": 16,
    "text_heads": 4,
    "text_context": 5,
    "text_relative": True,
    "text_vocabulary": 30,
    "dropout": 0.1,
    "class_conditional": False,
    "dtype": "bfloat16",
    "remat": "blocks",
}
# Rounding, memory, training or the first draw: the arrays mean the same.
MEAN_THE_SAME = {
    *("dropout", "dtype", "remat", "attention_scale", "initialisation", "guides")
}


def shapes_of(**model):
    config = conditional()
    config.train.label_dropout = 0.0  # which unconditional networks cannot have
    config.model.update(channels=32, channel_mult=(1, 2), attention_resolutions=(4,))
    config.model.update(model)
    return build_network.network(config, FACTS).shapes


OF_OTHER_KINDS = {
    *("pool", "patch_size", "image_layers", "embedding"),
    *("network", "hidden_layers", "readouts", "scales", "dense_channels"),
    "mean_form",
}


@pytest.mark.parametrize("field", sorted(config_lib.base().model))
def test_what_shapes_do_not_tell_is_compared_before_weights_are_taken(field):
    if field in OF_OTHER_KINDS:  # their arrays have other names
        return
    sized = {"text_layers": 2, "text_context": 4, "text_vocabulary": 9}
    beside = sized if field.startswith("text_") else {}
    beside |= {"kind": "upsampler"} if field.startswith("low_res_") else {}
    changed = {**beside, field: OTHER_NETWORKS[field]}
    is_seen = shapes_of(**changed) != shapes_of(**beside)
    is_compared = f"model.{field}" in trained_run.HIDDEN_IN_SHAPES
    assert is_seen or is_compared or field in MEAN_THE_SAME
    assert not (is_compared and field in MEAN_THE_SAME)
