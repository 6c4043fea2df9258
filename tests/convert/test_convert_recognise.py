"""What a checkpoint tells of itself, what must be given, and what is contradicted."""

import dataclasses
import inspect
import json
import pathlib

import from_fields
import pytest

from ddpm_jax.convert import (
    diffusers_configs,
    files,
    ho,
    native,
    openai,
    published,
    recognise,
)
from ddpm_jax.core import errors

TENSORS = from_fields.published_tensors()


def source(family, shapes, path="somewhere/model.pt", **configs):
    """Return a source with shapes and no numbers, which recognising never reads."""
    return files.Source(
        path=pathlib.Path(path),
        family=family,
        tensors={},
        shapes=dict(shapes),
        dtypes={},
        configs=configs,
        sha256="",
        bytes=0,
        notes=[],
    )


def of_fields(family, fields, **options):
    """Return a source with the tensors of the network of some fields."""
    our_shapes = from_fields.shapes_of(from_fields.network_of(fields))
    return source(
        family, from_fields.their_shapes(family, our_shapes, fields), **options
    )


# ---- published -----------------------------------------------------------------------


@pytest.mark.parametrize("name", TENSORS)
def test_published_files_are_recognised_without_a_word(name):
    told = recognise.recognise(
        source("openai", TENSORS[name]["tensors"], f"x/{name}.pt"), {}
    )
    assert told.published == name
    wanted = published.PUBLISHED[name].fields
    assert {key: told.fields[key] for key in wanted} == wanted
    assert told.origin["model.channels"] == "shapes"
    assert name in told.sentences()[0]


def test_shapes_alone_tell_what_the_table_says():
    # With the table's own answer withheld.
    for name, file in TENSORS.items():
        fields = published.PUBLISHED[name].fields
        told = openai.recognise(file["tensors"])
        side = fields["data.image_size"][0]
        levels = told.pop("facts.attended_levels")
        assert (
            tuple(side // 2**i for i in levels) == fields["model.attention_resolutions"]
        )
        told.pop("facts.learned_variance", None)
        assert {key: fields.get(key) for key in told} == told


def test_files_of_equal_shapes_are_told_apart_by_name():
    tensors = TENSORS["256x256_diffusion_uncond"]["tensors"]
    for name, dropout in (("lsun_cat", 0.1), ("lsun_horse_nodropout", 0.0)):
        told = recognise.recognise(source("openai", tensors, f"/x/{name}.pt"), {})
        assert (told.published, told.fields["model.dropout"]) == (name, dropout)
    told = recognise.recognise(source("openai", tensors, "model.pt"), {})
    assert told.published is None
    assert told.fields["diffusion.schedule"] == "linear"
    assert "lsun_cat" in told.assumed[0]


def test_a_given_value_overrules_the_table_aloud():
    tensors = TENSORS["64x64_diffusion"]["tensors"]
    given = {"diffusion.schedule": "linear", "model.num_heads": 8}
    told = recognise.recognise(source("openai", tensors), given)
    assert told.fields["diffusion.schedule"] == "linear"
    assert told.origin["diffusion.schedule"] == "given"
    assert told.fields["model.num_heads"] == 8
    assert told.fields["model.head_channels"] == 0
    assert any("'linear' as given" in line for line in told.assumed)
    assert any("model.num_heads is 8 as given" in line for line in told.assumed)


# ---- unknown files of the OpenAI code ------------------------------------------------

BASE = {
    **openai.DIALECT,
    "data.image_size": (32, 32),
    "data.channels": 3,
    "model.kind": "unet",
    "model.channels": 32,
    "model.channel_mult": (1, 2, 2),
    "model.num_res_blocks": 2,
    "model.attention_resolutions": (16, 8),
    "model.num_heads": 2,
    "model.head_channels": 0,
    "model.scale_shift": True,
    "model.resblock_updown": True,
    "model.resample": "conv",
    "model.class_conditional": False,
    "diffusion.variance": "fixed_large",
}
GIVEN = {
    "data.image_size": (32,),
    "model.num_heads": 2,
    "model.qkv_order": "legacy",
    "diffusion.schedule": "cosine",
    "diffusion.num_steps": 4000,
    "diffusion.rescale_timesteps": True,
    "diffusion.prediction": "noise",
    "diffusion.variance": "fixed_large",
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model.resblock_updown": False},
        {"model.resblock_updown": False, "model.resample": "pool"},
        {"model.scale_shift": False, "model.channel_mult": (0.5, 1, 3)},
        {"model.attention_resolutions": ()},
        {"model.attention_resolutions": (32,), "model.num_res_blocks": 1},
        {"model.class_conditional": True, "facts.num_classes": 7},
        {"model.kind": "upsampler"},
        {"model.channel_mult": (1,), "model.attention_resolutions": (32,)},
        {"data.channels": 1, "model.channel_mult": (1, 1, 1, 1)},
        {"data.image_size": (32, 64), "model.attention_resolutions": (8,)},
    ],
)
@pytest.mark.parametrize("variance", ["fixed_small", "learned_range"])
def test_shapes_tell_every_field_that_makes_them(changes, variance):
    fields = {**BASE, **changes, "diffusion.variance": variance}
    groups = 16 if 0.5 in fields["model.channel_mult"] else 32
    fields["model.norm_groups"] = groups
    given = {
        **GIVEN,
        "data.image_size": fields["data.image_size"],
        "diffusion.variance": variance,
        "model.norm_groups": groups,
    }
    told = recognise.recognise(of_fields("openai", fields), given)
    if fields["model.channel_mult"] == (1,):
        del fields["model.resblock_updown"]  # one level never resamples
    wanted = {name: value for name, value in fields.items() if name != "facts.layout"}
    assert {name: told.fields.get(name) for name in wanted} == wanted
    assert told.fields["diffusion.loss"] == (
        "hybrid" if variance == "learned_range" else "simple"
    )
    from_fields.network_of(told.fields)


@pytest.mark.parametrize("pool", ["attention", "adaptive", "spatial", "spatial_v2"])
def test_classifiers(pool):
    fields = {**BASE, "model.kind": "classifier", "model.pool": pool}
    fields["facts.num_classes"] = 7
    given = {
        "model.num_heads": 2,
        "model.qkv_order": "legacy",
        "diffusion.schedule": "linear",
        "diffusion.num_steps": 1000,
        "diffusion.rescale_timesteps": False,
    }
    if pool != "attention":  # whose positional embedding tells the size
        given["data.image_size"] = 32
    told = recognise.recognise(of_fields("openai", fields), given)
    for name in fields.keys() - {"diffusion.variance"}:
        assert told.fields[name] == fields[name], name


def test_everything_missing_is_named_at_once():
    with pytest.raises(errors.Refusal) as caught:
        recognise.recognise(of_fields("openai", BASE), {})
    message = str(caught.value)
    for name in GIVEN:
        assert f"--config.{name}=" in message
    assert "--config.model.head_channels=64" in message
    assert "fixed_large or fixed_small" in message
    without = {name: value for name, value in GIVEN.items() if "steps" not in name}
    with pytest.raises(errors.Refusal) as caught:
        recognise.recognise(of_fields("openai", BASE), without)
    flags = [line for line in str(caught.value).splitlines() if "--config" in line]
    assert len(flags) == 2  # num_steps, rescale_timesteps


def test_twice_the_channels_mean_learned_range_aloud():
    fields = {**BASE, "diffusion.variance": "learned"}
    given = {k: v for k, v in GIVEN.items() if k != "diffusion.variance"}
    told = recognise.recognise(of_fields("openai", fields), given)
    assert told.fields["diffusion.variance"] == "learned_range"
    assert any("learned_range" in line for line in told.assumed)
    given["diffusion.variance"] = "learned"
    told = recognise.recognise(of_fields("openai", fields), given)
    assert told.fields["diffusion.variance"] == "learned"


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("model.channels", 64, "32"),
        ("model.scale_shift", False, "True"),
        ("model.kind", "classifier", "'unet'"),
        ("model.channel_mult", (1, 2, 4), "(1, 2, 2)"),
        ("model.attention_resolutions", (16,), "(16, 8)"),
        ("data.channels", 1, "3"),
        ("diffusion.variance", "learned_range", "fixed_large, fixed_small"),
    ],
)
def test_a_given_value_that_contradicts_the_shapes_is_refused(field, value, told):
    with pytest.raises(errors.Refusal) as caught:
        recognise.recognise(of_fields("openai", BASE), {**GIVEN, field: value})
    message = str(caught.value)
    assert field in message
    assert repr(value) in message
    assert told in message


@pytest.mark.parametrize(
    ("broken", "match"),
    [
        ("middle_block.1.qkv.weight", "cut short or of another network"),
        ("input_blocks.0.0.weight", "no input_blocks.0.0.weight"),
        ("out.2.weight", "no out.2.weight"),
    ],
)
def test_a_file_that_lacks_a_part_is_refused(broken, match):
    whole = of_fields("openai", BASE)
    shapes = {key: shape for key, shape in whole.shapes.items() if key != broken}
    with pytest.raises(errors.Refusal, match=match):
        recognise.recognise(dataclasses.replace(whole, shapes=shapes), GIVEN)


def test_an_inpainting_network_is_refused():
    whole = of_fields("openai", BASE)
    shapes = {**whole.shapes, "input_blocks.0.0.weight": (32, 7, 3, 3)}
    with pytest.raises(errors.Refusal, match="reads 7 channels and returns 3"):
        recognise.recognise(dataclasses.replace(whole, shapes=shapes), GIVEN)


# ---- the DDPM code -------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["tensorflow", "pytorch"])
@pytest.mark.parametrize("name", ["ddpm_cifar10", "ddpm_lsun_cat"])
def test_ddpm_files_are_recognised(name, layout):
    wanted = {**published.PUBLISHED[name].fields, "facts.layout": layout}
    found = of_fields("ho", wanted, path="model.ckpt-1")
    told = recognise.recognise(found, {})
    assert {key: told.fields[key] for key in wanted} == wanted
    shapes = {**found.shapes}
    del shapes["conv_in/W" if layout == "tensorflow" else "conv_in.weight"]
    with pytest.raises(errors.Refusal, match="has no conv_in"):
        recognise.recognise(dataclasses.replace(found, shapes=shapes), {})


def test_averages_are_preferred_slots_and_counters_left():
    average = "/ExponentialMovingAverage"
    shapes = {
        name: (1,)
        for name in (
            "model/a/W",
            f"model/a/W{average}",
            "model/a/W/Adam",
            "model/a/W/Adam_1",
            "model/b/W",
            "global_step",
            "train/beta1_power",
        )
    }
    chosen, notes = ho.select(shapes)
    assert chosen == {"a/W": f"model/a/W{average}", "b/W": "model/b/W"}
    assert "taken for 1 of 2" in notes[0]
    chosen, notes = ho.select({"model/b/W": (1,)})
    assert chosen == {"b/W": "model/b/W"}
    assert "raw ones were taken" in notes[0]


# ---- diffusers -----------------------------------------------------------------------

UNET = {
    "sample_size": 16,
    "block_out_channels": [32, 64],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "attention_head_dim": 8,
    "norm_num_groups": 32,
}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("_class_name", "UNet2DConditionModel"),
        ("center_input_sample", True),
        ("time_embedding_type", "fourier"),
        ("time_embedding_dim", 64),
        ("mid_block_type", None),
        ("mid_block_scale_factor", 1.4),
        ("act_fn", "gelu"),
        ("downsample_padding", 2),
        ("resnet_time_scale_shift", "ada_group"),
        ("class_embed_type", "timestep"),
        ("down_block_types", ["SkipDownBlock2D", "AttnDownBlock2D"]),
        ("up_block_types", ["UpBlock2D", "UpBlock2D"]),
        ("attn_norm_num_groups", 4),
        ("layers_per_block", [1, 2]),
        ("down_block_types", ["ResnetDownsampleBlock2D", "AttnDownBlock2D"]),
    ],
)
def test_what_our_network_cannot_express_is_refused_by_its_key(key, value):
    with pytest.raises(errors.Refusal, match=f"unet/config.json: .*{key}"):
        diffusers_configs.unet_fields({**UNET, key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("_class_name", "KarrasVeScheduler"),
        ("beta_schedule", "laplace"),
        ("prediction_type", "flow"),
        ("variance_type", "learned"),
        ("variance_type", "fixed_large_log"),
        ("clip_sample_range", 2.0),
    ],
)
def test_what_our_process_cannot_express_is_refused_by_its_key(key, value):
    with pytest.raises(errors.Refusal, match=key):
        diffusers_configs.scheduler_fields({key: value})


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({"beta_schedule": "squaredcos_cap_v2"}, {"diffusion.schedule": "cosine"}),
        ({"beta_schedule": "scaled_linear"}, {"diffusion.schedule": "quad"}),
        (
            {"trained_betas": [0.1, 0.2], "num_train_timesteps": 2},
            {"diffusion.betas": (0.1, 0.2), "diffusion.schedule": "custom"},
        ),
        ({"prediction_type": "v_prediction"}, {"diffusion.prediction": "v"}),
        ({"variance_type": "learned_range"}, {"diffusion.variance": "learned_range"}),
        ({"clip_sample": False}, {"sampling.clip": False}),
        ({"rescale_betas_zero_snr": True}, {"diffusion.zero_terminal_snr": True}),
        (
            {"thresholding": True, "sample_max_value": 1.5},
            {"sampling.dynamic_threshold": 1.5},
        ),
    ],
)
def test_schedulers(config, wanted):
    fields, _ = diffusers_configs.scheduler_fields(config)
    assert {key: fields[key] for key in wanted} == wanted


def test_defaults_are_those_of_diffusers():
    diffusers = pytest.importorskip("diffusers")
    for ours, theirs in (
        (diffusers_configs.UNET_DEFAULTS, diffusers.UNet2DModel),
        (diffusers_configs.SCHEDULER_DEFAULTS, diffusers.DDPMScheduler),
    ):
        signature = inspect.signature(theirs.__init__).parameters
        for key, value in ours.items():
            assert signature[key].default == value, key


def of_unet(unet, scheduler=None):
    fields = {**BASE, "model.channel_mult": (1, 2), "model.num_res_blocks": 2}
    fields |= {"model.resblock_updown": False, "data.image_size": (16, 16)}
    fields |= {"model.attention_resolutions": (8,), "model.scale_shift": False}
    configs = {"config.json": unet}
    if scheduler is not None:
        configs["scheduler_config.json"] = scheduler
    found = of_fields("diffusers", fields)
    return dataclasses.replace(found, configs=configs)


def test_a_missing_head_dimension_must_be_given():
    # diffusers would take 8, with which the published DDPM models turn to noise.
    unet = {key: value for key, value in UNET.items() if key != "attention_head_dim"}
    with pytest.raises(
        errors.Refusal, match=r"model\.num_heads=… .*attention_head_dim"
    ):
        recognise.recognise(of_unet(unet, {}), {})
    told = recognise.recognise(of_unet(unet, {}), {"model.num_heads": 1})
    assert (told.fields["model.num_heads"], told.fields["model.head_channels"]) == (
        1,
        0,
    )


def test_heads_of_the_json_are_not_overruled():
    told = recognise.recognise(of_unet(UNET, {}), {})
    assert told.fields["model.head_channels"] == 8
    with pytest.raises(errors.Refusal, match="heads are 8 channels wide"):
        recognise.recognise(of_unet(UNET, {}), {"model.num_heads": 1})
    with pytest.raises(errors.Refusal, match=r"head_channels is 8 .* but 16"):
        recognise.recognise(of_unet(UNET, {}), {"model.head_channels": 16})


def test_without_a_scheduler_the_process_must_be_given():
    with pytest.raises(errors.Refusal) as caught:
        recognise.recognise(of_unet(UNET), {})
    for name in ("schedule", "num_steps", "prediction", "variance"):
        assert f"--config.diffusion.{name}=" in str(caught.value)


def test_without_its_json_a_diffusers_file_is_refused():
    found = dataclasses.replace(of_unet(UNET), configs={})
    with pytest.raises(errors.Refusal, match=r"no config\.json beside it"):
        recognise.recognise(found, {})


def test_json_that_contradicts_the_tensors_is_refused():
    unet = {**UNET, "in_channels": 1}
    with pytest.raises(errors.Refusal, match=r"data\.channels is 1 .* 3 by shapes"):
        recognise.recognise(of_unet(unet, {}), {})


# ---- our own -------------------------------------------------------------------------


def test_our_own_files_tell_everything():
    fields = {**BASE, "diffusion.num_steps": 77}
    text = native.metadata(fields)[native.METADATA]
    found = of_fields("ddpm_jax", fields, **{native.METADATA: json.loads(text)})
    told = recognise.recognise(found, {})
    assert {key: told.fields[key] for key in fields} == fields
    with pytest.raises(errors.Refusal, match=r"num_steps is 77 .* 50"):
        recognise.recognise(found, {"diffusion.num_steps": 50})
    newer = {native.METADATA: json.dumps({"version": 2, "fields": {}})}
    with pytest.raises(errors.Refusal, match="update ddpm-jax"):
        native.read_metadata(newer, "x")
    with pytest.raises(errors.Refusal, match="damaged"):
        native.read_metadata({native.METADATA: "{"}, "x")
    assert native.read_metadata({"format": "pt"}, "x") is None
