"""What the JSON files of a diffusers model tell, and what must be given beside them."""

import dataclasses
import inspect

import pytest
from from_fields import BASE, of_fields

from ddpm_jax.convert import differences, places, recognise
from ddpm_jax.convert.formats import diffusers_configs
from ddpm_jax.core import errors

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
        ("layers_per_block", "two"),
        ("block_out_channels", 32),
        ("attention_head_dim", [8, 8]),
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
        ("trained_betas", "abc"),
        ("trained_betas", [0.1, "x"]),
        ("num_train_timesteps", "1000"),
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
    fields = {
        **BASE,
        "model.channel_mult": (1, 2),
        "model.num_res_blocks": 2,
    }
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


def test_a_whole_config_may_be_given():
    # As a config file gives it: with the data's own size left open, and both heads.
    given = {"data.image_size": (), "data.channels": 0}
    given |= {"model.num_heads": 4, "model.head_channels": 8}
    told = recognise.recognise(of_unet(UNET, {}), given)
    assert told.fields["data.image_size"] == (16, 16)
    assert told.fields["data.channels"] == 3
    assert told.fields["model.head_channels"] == 8


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
    with pytest.raises(errors.Refusal, match=r"data\.channels is 1 .* 3 by the shapes"):
        recognise.recognise(of_unet(unet, {}), {})


# ---- what is not carried over --------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"timestep_spacing": "leading"}, "respacing=ddim50"),
        ({}, "respacing=ddim50"),
        ({"timestep_spacing": "trailing"}, "'trailing'"),
        ({"timestep_spacing": "leading", "steps_offset": 1}, "steps_offset = 1"),
        ({"_class_name": "DDIMScheduler", "set_alpha_to_one": False}, "to_one = False"),
        ({"_class_name": "PNDMScheduler", "beta_schedule": "linear"}, "PNDMScheduler"),
        ({"use_karras_sigmas": True}, "use_karras_sigmas = True"),
    ],
)
def test_what_a_scheduler_does_otherwise_is_named(told, words):
    _, assumed = diffusers_configs.scheduler_fields(told)
    assert any(words in line for line in assumed)


def test_what_is_as_here_is_not_named():
    config = {
        "_class_name": "DDIMScheduler",
        "_diffusers_version": "0.30.0",
        "timestep_spacing": "linspace",
        "steps_offset": 0,
        "set_alpha_to_one": True,
        "use_karras_sigmas": False,
    }
    _, assumed = diffusers_configs.scheduler_fields(config)
    assert not [line for line in assumed if "carried over" in line or "passed" in line]


def test_whole_numbers_may_be_written_as_floats():
    whole = {"num_train_timesteps": 50, "clip_sample": True}
    floats = {"num_train_timesteps": 50.0, "clip_sample": True}
    read = diffusers_configs.scheduler_fields
    assert read(floats) == read(whole)
    whole = {
        "block_out_channels": [32, 64, 64, 64],
        "layers_per_block": 1,
        "freq_shift": 1,
        "norm_num_groups": 8,
        "attention_head_dim": 8,
        "sample_size": 16,
        "norm_eps": 1e-5,
    }
    floats = {
        key: [float(v) for v in value] if isinstance(value, list) else float(value)
        for key, value in whole.items()
    }
    fields, assumed = diffusers_configs.unet_fields(floats)
    assert (fields, assumed) == diffusers_configs.unet_fields(whole)
    assert isinstance(fields["model.channels"], int)


def test_a_variance_of_null_is_that_of_the_posterior():
    config = {"_class_name": "DDPMScheduler", "variance_type": None}
    fields, assumed = diffusers_configs.scheduler_fields(config)
    assert fields["diffusion.variance"] == "fixed_small"
    assert any("null" in line for line in assumed)


@pytest.mark.parametrize("text", ["[]", "[{}]", '"unet"', "3", "null"])
def test_json_without_keys_is_refused(text, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(errors.Refusal, match="holds a JSON"):
        places.read_json(path)


@pytest.mark.parametrize(
    ("extra", "field"),
    [
        (["null_token"], None),
        (["ema.decay", "logvar"], None),
        (["mid_block.resnets.2.conv1.weight"], None),
        (["class_embedding.weight"], "model.class_conditional"),
        (
            [f"down_blocks.0.resnets.2.{layer}.weight" for layer in ("norm1", "conv1")],
            "model.num_res_blocks",
        ),
    ],
)
def test_an_extra_tensor_is_no_other_depth(extra, field):
    differing = {key: (None, (8,)) for key in extra}
    told = differences.complaint(differing, {}, ["conv_in.weight"])
    told = told.rpartition("what would explain it")[2]
    assert ("extra tensors" in told) == (field is None)
    assert (field or extra[0]) in told
    assert ("num_res_blocks" in told) == (field == "model.num_res_blocks")
