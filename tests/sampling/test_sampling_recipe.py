"""What a recipe is named by, what it refuses, and that it survives JSON."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from test_sampling_sampler import CLIP, guided, make_recipe

from ddpm_jax import config as config_lib
from ddpm_jax import runtime
from ddpm_jax.builders import data as build_data
from ddpm_jax.builders import sampling as build_sampling
from ddpm_jax.core import errors
from ddpm_jax.sampling import generation
from ddpm_jax.sampling import recipe as recipe_lib

FACTS = build_data.DataInfo((4, 4, 1), 256, 100, 3, ("cat", "dog", "owl"), "…")
WEIGHTS = recipe_lib.Weights({}, "ema", "EMA weights", step=60)
# What version 0.1 wrote beside images, and the name of their folder.
OLD_REQUEST = {
    "checkpoint": 60,
    "clip": False,
    "dynamic_threshold": 0.0,
    "eta": 0.0,
    "guidance_scale": 0.0,
    "labels": [0, 1, 2],
    "method": "ancestral",
    "respacing": "10,5",
    "seed": 3,
    "steps": 40,
    "weights": "ema",
}
OLD_TAG = "ancestral-respacing10.5-ema-guidance0-noclip-seed3-step60"


def asked(dropout=0.1, **sampling):
    config = config_lib.base()
    config.model.class_conditional = True
    config.train.label_dropout = dropout
    config.diffusion.num_steps = 40
    config.sampling.update(sampling)
    return build_sampling.recipe(config, FACTS)


def old():
    return asked(respacing="10,5", guidance_scale=0.0, clip=False, seed=3)


def test_a_folder_of_version_0_1_is_found_and_continued(tmp_path):
    assert old().tag(WEIGHTS) == OLD_TAG
    folder = tmp_path / OLD_TAG
    (folder / "parts").mkdir(parents=True)
    (folder / "request.json").write_text(json.dumps(OLD_REQUEST))
    images = np.arange(2 * 16, dtype=np.uint8).reshape(2, 4, 4, 1)
    np.save(folder / "parts" / "000000000-000000002.npy", images)
    store = generation.open_store(tmp_path, old(), WEIGHTS)
    assert store.count() == 2
    np.testing.assert_array_equal(store.first(2), images)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"clip": True}, "clip is True there and False here"),
        ({"labels": [1]}, r"labels is \[1\] there"),
        ({"checkpoint": 30}, "checkpoint is 30 there and 60 here"),
        ({"unknown": 0.5}, "unknown is 0.5 there and None here"),
        ({"numerics": 7}, "numerics is 7 there and 1 here"),
        ({"version": 99}, "its version is 99 and ours 2"),
    ],
)
def test_images_of_another_request_are_refused(tmp_path, change, told):
    folder = tmp_path / OLD_TAG
    folder.mkdir()
    request = json.dumps(OLD_REQUEST | change)
    (folder / "request.json").write_text(request)
    with pytest.raises(errors.Refusal, match=told):
        generation.open_store(tmp_path, old(), WEIGHTS)
    assert (folder / "request.json").read_text() == request


def test_what_goes_without_saying_is_not_written():
    request = asked().request(WEIGHTS)
    assert request == {
        "version": 2,
        "method": "ancestral",
        "steps": 40,
        "seed": 0,
        "weights": "ema",
        "checkpoint": 60,
    }
    assert asked().differences(request, WEIGHTS) == []
    assert asked(eta=0.5, method="ddim").request(WEIGHTS)["eta"] == 0.5


@pytest.mark.parametrize(
    ("sampling", "tag"),
    [
        ({}, "ancestral-40-ema-guidance1-seed0-step60"),
        (
            {"method": "ddim", "steps": 7, "eta": 0.5, "labels": ("owl", 1)},
            "ddim-7-eta0.5-ema-guidance1-labels2.1-seed0-step60",
        ),
        (
            {"guidance_scale": 2.0, "dynamic_threshold": 1.5},
            "ancestral-40-ema-guidance2-threshold1.5-seed0-step60",
        ),
        (
            {"dynamic_threshold": 2.0, "clip": False, "labels": (1,)},
            "ancestral-40-ema-guidance1-labels1-noclip-threshold2-seed0-step60",
        ),
        # Asked for by name, though all classes are what goes without saying.
        ({"labels": (0, 1, 2)}, "ancestral-40-ema-guidance1-labels0.1.2-seed0-step60"),
    ],
)
def test_tags_are_those_of_version_0_1(sampling, tag):
    assert asked(**sampling).tag(WEIGHTS) == tag


@pytest.mark.parametrize(
    ("sampling", "tag", "told"),
    [
        (
            {"method": "dpmpp_2m", "steps": 8},
            "dpmpp_2m-8-ema-guidance1-spacinglogsnr-seed0-step60",
            {"spacing": "logsnr"},
        ),
        (
            {"method": "dpmpp_2m", "steps": 8, "spacing": "even"},
            "dpmpp_2m-8-ema-guidance1-seed0-step60",
            {},
        ),
        # Every step is taken: there is nothing to space.
        (
            {"method": "dpmpp_2m", "spacing": "trailing"},
            "dpmpp_2m-40-ema-guidance1-seed0-step60",
            {},
        ),
        (
            {"steps": 8, "spacing": "even"},
            "ancestral-8-ema-guidance1-seed0-step60",
            {},
        ),
        (
            {"method": "dpmpp_2m", "respacing": "10,5"},
            "dpmpp_2m-respacing10.5-ema-guidance1-seed0-step60",
            {},
        ),
        (
            {"steps": 8, "temperature": 0.997},
            "ancestral-8-ema-guidance1-temperature0.997-seed0-step60",
            {"temperature": 0.997},
        ),
    ],
)
def test_spacing_and_temperature_are_named_where_they_change_images(
    sampling, tag, told
):
    recipe = asked(**sampling)
    assert recipe.tag(WEIGHTS) == tag
    request = recipe.request(WEIGHTS)
    named = {k: request[k] for k in ("spacing", "temperature") if k in request}
    assert named == told


def test_other_numerics_have_folders_of_their_own(monkeypatch):
    monkeypatch.setattr(runtime, "NUMERICS", 2)
    assert asked().tag(WEIGHTS).endswith("-step60-numerics2")
    assert asked().request(WEIGHTS)["numerics"] == 2
    assert asked().differences(OLD_REQUEST, WEIGHTS)


def test_a_recipe_survives_json():
    recipe = asked(
        method="ddim", eta=0.3, steps=5, guidance_scale=2.0, dynamic_threshold=1.5
    )
    path = ((4, 3, "step"), (3, 4, "renoise"), (4, 3, "step", False))
    for made in (recipe, dataclasses.replace(recipe, path=path)):
        stored = json.loads(json.dumps(made.to_json()))
        assert recipe_lib.Recipe.from_json(stored) == made
        assert hash(recipe_lib.Recipe.from_json(stored)) == hash(made)


def test_structure_is_what_numbers_do_not_change():
    structure = make_recipe(4, (1,), guidance=guided(2.0)).structure()
    same = make_recipe(20, (2, 1), guidance=guided(3.5), seed=5).structure()
    assert same == structure
    others = [
        make_recipe(4, (1,)),
        make_recipe(4, (1,), guidance=(recipe_lib.part("unconditional"),)),
        make_recipe(4, (1,), guidance=guided(2.0), hooks=()),
        make_recipe(
            4, (1,), guidance=guided(2.0), solver=recipe_lib.part("ddim", eta=0.0)
        ),
        make_recipe(4, (1,), guidance=guided(2.0), variance="fixed_small"),
    ]
    assert structure not in [other.structure() for other in others]


def test_settings_that_are_floats_are_inputs():
    settings = asked(guidance_scale=3.0, steps=5).inputs()["settings"]
    wanted = {"eta": 0, "guidance_scale": 3, "dynamic_threshold": 0, "temperature": 1}
    assert {name: settings[name] for name in wanted} == wanted
    assert {value.dtype.name for value in settings.values()} == {"float32"}


def test_inputs_have_one_shape_for_any_number_of_steps():
    shapes = []
    for steps in (1, 7, 20):
        inputs = make_recipe(steps).inputs()
        shapes.append([np.shape(v) for v in (*inputs["entries"], inputs["tables"].snr)])
        assert inputs["count"] == steps
        assert inputs["entries"].t_next[steps - 1] == -1
        assert all(not isinstance(v, jnp.ndarray) for v in inputs["entries"])
    assert shapes[0] == shapes[1] == shapes[2]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"method": "euler"}, ["'euler'", "ancestral, ddim"]),
        ({"eta": 0.5}, ["eta=0.5", "'ancestral'", "'ddim'"]),
        ({"method": "ddim", "eta": 1.5}, ["eta=1.5", "0 … 1"]),
        ({"method": "ddim", "eta": -0.1}, ["eta=-0.1", "0 … 1"]),
        ({"guidance_scale": 2.0, "dropout": 0.0}, ["2.0", "label_dropout=0.1"]),
        ({"guidance_scale": 0.0, "dropout": 0.0}, ["0.0", "label_dropout=0.1"]),
        ({"dynamic_threshold": 0.5}, ["dynamic_threshold=0.5", "at least 1"]),
    ],
)
def test_refusals(options, told):
    with pytest.raises(errors.Refusal) as refusal:
        asked(**options)
    assert [word for word in told if word not in str(refusal.value)] == []


def test_thresholding_comes_before_clipping():
    """After clipping there would be nothing left to threshold."""
    x_0 = jnp.linspace(-3, 3, 16).reshape(1, 4, 4, 1)
    hooked = x_0
    for hook in asked(dynamic_threshold=2.0).make_hooks():
        hooked = hook(hooked, None, None)
    # Imagen: the 99.5th percentile of |x̂_0| is above 2, so x̂_0 is clipped to 2 and
    # divided by it.
    np.testing.assert_allclose(hooked, np.clip(x_0, -2, 2) / 2, rtol=1e-6)
    assert asked(clip=False).hooks == ()
    assert asked().hooks == (CLIP,)


def test_a_hook_without_effect_is_refused():
    hooks = (recipe_lib.part("dynamic_threshold", maximum=2.0),)
    recipe = make_recipe(prediction="x_prev", hooks=hooks)
    with pytest.raises(errors.Refusal, match="DDIM"):
        recipe.check()
