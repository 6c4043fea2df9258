"""What a checkpoint tells of itself, what must be given, and what is contradicted."""

import dataclasses
import json

import from_fields
import pytest
from from_fields import BASE, of_fields, source

from ddpm_jax.convert import published, recognise
from ddpm_jax.convert.formats import ddpm, native, openai
from ddpm_jax.core import errors

TENSORS = from_fields.published_tensors()


# ---- published -----------------------------------------------------------------------


@pytest.mark.parametrize("name", TENSORS)
def test_published_files_are_recognised_without_a_word(name):
    told = recognise.recognise(
        source("openai", TENSORS[name]["tensors"], f"x/{name}.pt"), {}
    )
    assert told.published == name
    wanted = published.PUBLISHED[name].fields
    assert {key: told.fields[key] for key in wanted} == wanted
    assert told.origin["model.channels"] == recognise.SHAPES
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
    assert told.origin["diffusion.schedule"] == recognise.GIVEN
    assert told.fields["model.num_heads"] == 8
    assert told.fields["model.head_channels"] == 0
    assert any("'linear' as given" in line for line in told.assumed)
    assert any("model.num_heads is 8 as given" in line for line in told.assumed)


# ---- unknown files of the OpenAI code ------------------------------------------------

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
    found = of_fields("ddpm", wanted, path="model.ckpt-1")
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
    chosen, notes = ddpm.select(shapes)
    assert chosen == {"a/W": f"model/a/W{average}", "b/W": "model/b/W"}
    assert "taken for 1 of 2" in notes[0]
    chosen, notes = ddpm.select({"model/b/W": (1,)})
    assert chosen == {"b/W": "model/b/W"}
    assert "raw ones were taken" in notes[0]


# ---- our own -------------------------------------------------------------------------


def test_our_own_files_tell_everything():
    fields = {**BASE, "diffusion.num_steps": 77}
    text = native.metadata(fields)[native.METADATA]
    found = of_fields("ddpm_jax", fields, **{native.METADATA: json.loads(text)})
    told = recognise.recognise(found, {})
    assert {key: told.fields[key] for key in fields} == fields
    with pytest.raises(errors.Refusal, match=r"num_steps is 77 .* 50"):
        recognise.recognise(found, {"diffusion.num_steps": 50})
    # What the weights do not depend on may be another here.
    whole = {**fields, "model.dropout": 0.1, "sampling.clip": True}
    text = native.metadata(whole)[native.METADATA]
    found = of_fields("ddpm_jax", fields, **{native.METADATA: json.loads(text)})
    given = {"model.dropout": 0.0, "sampling.clip": False}
    told = recognise.recognise(found, given)
    assert {name: told.fields[name] for name in given} == given
    assert any("sampling.clip is False as given" in line for line in told.assumed)
    newer = {native.METADATA: json.dumps({"version": 2, "fields": {}})}
    with pytest.raises(errors.Refusal, match="update ddpm-jax"):
        native.read_metadata(newer, "x")
    with pytest.raises(errors.Refusal, match="damaged"):
        native.read_metadata({native.METADATA: "{"}, "x")
    assert native.read_metadata({"format": "pt"}, "x") is None


def test_an_old_name_in_our_own_file_is_translated():
    old = {**BASE, "model.initialisation": "ho"}
    text = native.metadata(old)[native.METADATA]
    found = of_fields("ddpm_jax", BASE, **{native.METADATA: json.loads(text)})
    told = recognise.recognise(found, {"model.initialisation": "ddpm"})
    assert told.fields["model.initialisation"] == "ddpm"
    assert told.assumed == []
