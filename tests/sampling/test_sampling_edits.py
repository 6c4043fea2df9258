"""Starts, transforms and conditions that edits are made of, against the formulas."""

import dataclasses

import jax
import numpy as np
import pytest
from test_sampling_sampler import (
    MIXING,
    PARAMS,
    PLAIN_MIXING,
    SHAPE,
    Net,
    make_mesh,
)
from test_sampling_sampler import make_recipe as plain_recipe

from ddpm_jax.core import keys
from ddpm_jax.sampling import noise_maps, starts, transforms
from ddpm_jax.sampling import recipe as recipe_lib
from ddpm_jax.sampling import sampler as sampler_lib

# Optimization is what could make an image depend on its batch.
pytestmark = pytest.mark.usefixtures("optimized")

DDIM = recipe_lib.part("ddim", eta=0.0)
PICTURES = np.linspace(-1, 1, 32, dtype=np.float32).reshape(2, *SHAPE)
NAMES = (
    *(transforms.PICTURE, transforms.MIX, transforms.LEVEL, transforms.OTHER_NOISE),
    *(starts.STATE, starts.MAPPED, starts.NOISE_MAPS, transforms.RESIDUAL),
)


def make_recipe(steps=4, **options):
    prints = tuple((name, "f00d") for name in NAMES)
    return plain_recipe(steps, fingerprints=prints, **options)


def make(recipe, network=PLAIN_MIXING, count=4, batch_size=4, mesh=(1, 1), **given):
    sampler = sampler_lib.Sampler(recipe, network, make_mesh(mesh), **given)
    parts = [
        sampler.make(
            PARAMS, start=i, stop=min(i + batch_size, count), batch_size=batch_size
        )
        for i in range(0, count, batch_size)
    ]
    return np.concatenate([part.images for part in parts]), parts[0]


def drawn(purpose, index, position=None, seed=0):
    stream = keys.key_for(seed, purpose, index=np.asarray(index))
    if position is not None:
        stream = keys.fold_in_each(stream, position)
    return np.asarray(keys.normal_each(stream, SHAPE), np.float64)


SHOW = Net(lambda params, x, t_seen, condition: x)


def test_a_noised_picture_is_a_draw_of_q():
    """One step, whose network says that x̂_0 is what it is given."""
    recipe = make_recipe(
        1, prediction="x_0", variance="fixed_small", hooks=(), start="noised", repeats=2
    )
    made, _ = make(recipe, SHOW, arrays={transforms.PICTURE: PICTURES})
    alpha_bar = recipe.schedule.alpha_bar[0]
    given = PICTURES.astype(float)[[0, 0, 1, 1]]
    noise = drawn("sample/x_T", range(4))
    expected = np.sqrt(alpha_bar) * given + np.sqrt(1 - alpha_bar) * noise
    np.testing.assert_allclose(made, expected, atol=1e-5)


def test_the_first_state_is_that_of_the_sampler():
    recipe = make_recipe(1, prediction="x_0", variance="fixed_small", hooks=())
    made, _ = make(recipe, SHOW)
    found = sampler_lib.first_state(recipe.inputs(), np.arange(4), SHAPE)
    np.testing.assert_array_equal(made, found)


# ---- pictures mixed in x_t -----------------------------------------------------------


@pytest.mark.parametrize("own_noise", [False, True])
def test_a_chain_leaves_the_mix_of_two_pictures_at_its_level(own_noise):
    shares = np.array([0, 0.25, 0.5, 1] * 2, np.float32)
    levels = np.repeat(np.array([3, 1], np.int32), 4)
    arrays = {
        transforms.PICTURE: PICTURES,
        transforms.MIX: shares,
        transforms.LEVEL: levels,
    }
    other = None
    if own_noise:
        other = np.random.default_rng(1).normal(size=(1, *SHAPE)).astype(np.float32)
        arrays[transforms.OTHER_NOISE] = other
    name = "mixed_preserving" if own_noise else "mixed"
    recipe = make_recipe(
        solver=DDIM, transforms=(recipe_lib.part(name),), shares_noise=True
    )
    _, whole = make(
        recipe, count=8, batch_size=8, arrays=arrays, trajectory=tuple(range(4))
    )
    for image in range(4, 8):
        # Entry 1 of the path reaches t = 1; position 2 of the transform follows it.
        noise = drawn("sample/transform/0", [0], 2)[0]
        other_noise = noise if other is None else other[0].astype(float)
        share = float(shares[image])
        alpha_bar = recipe.schedule.alpha_bar[1]
        mixed = (1 - share) * PICTURES[0] + share * PICTURES[1].astype(float)
        noise = (1 - share) * noise + share * other_noise
        if own_noise:
            noise /= np.hypot(1 - share, share)
        expected = np.sqrt(alpha_bar) * mixed + np.sqrt(1 - alpha_bar) * noise
        np.testing.assert_allclose(whole.states[1][image], expected, atol=1e-5)
    # Others are on their way already.
    assert np.any(np.abs(whole.states[1][:4] - whole.states[1][4:]) > 0.01)


def test_images_of_shared_noise_differ_in_nothing():
    made, _ = make(make_recipe(shares_noise=True))
    alone, _ = make(make_recipe(), count=1, batch_size=1)
    np.testing.assert_allclose(made, np.repeat(alone, 4, axis=0), atol=1e-5)


# ---- between two conditions ----------------------------------------------------------


@pytest.mark.parametrize("scale", [None, 2.0])
def test_between_two_classes_are_their_outputs_in_shares(scale):
    guidance = (recipe_lib.part("classifier_free", scale=scale),) if scale else ()
    parts = {
        "solver": recipe_lib.part("ddim", eta=0.0),
        "guidance": guidance,
        "shares_noise": True,
    }
    ends = [make(make_recipe(labels=(k,), **parts), MIXING)[0] for k in (2, 0)]
    condition = (("label", (2,)), ("other_label", (0,)), ("share", (0.0, 1.0, 0.5)))
    recipe = make_recipe(**parts, condition=condition)
    made, _ = make(recipe, MIXING)
    np.testing.assert_allclose(made[:2], [ends[0][0], ends[1][0]], atol=1e-5)
    assert np.any(np.abs(made[2] - made[0]) > 1e-3)
    # One step is linear in the output: half of each is half way.
    one = {"hooks": (), "prediction": "x_0", **parts}
    ends = [make(make_recipe(1, labels=(k,), **one), MIXING)[0][0] for k in (2, 0)]
    half, _ = make(make_recipe(1, **one, condition=condition), MIXING)
    np.testing.assert_allclose(half[2], (ends[0] + ends[1]) / 2, atol=1e-5)


# ---- noise maps ----------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_noise_maps_return_the_pictures(batch_size):
    recipe = make_recipe(labels=(1,), repeats=2)
    mesh = make_mesh((1, 1))
    maps = noise_maps.of_pictures(
        recipe, MIXING, mesh, PARAMS, PICTURES, 4, batch_size=batch_size
    )
    assert maps[starts.NOISE_MAPS].shape == (4, 4, *SHAPE)
    parts = {"start": "mapped", "transforms": (recipe_lib.part("residual"),)}
    again = dataclasses.replace(recipe, **parts)
    made, _ = make(again, MIXING, batch_size=batch_size, arrays=maps)
    np.testing.assert_allclose(made, PICTURES[[0, 0, 1, 1]], atol=1e-5)
    other = dataclasses.replace(again, condition=(("label", (0,)),))
    edited, _ = make(other, MIXING, arrays=maps)
    assert np.all(np.abs(edited - made).max(axis=(1, 2, 3)) > 1e-3)
    assert np.any(maps[starts.MAPPED][0] != maps[starts.MAPPED][1])


def test_noise_maps_on_a_mesh():
    recipe, devices = make_recipe(labels=(1,)), jax.device_count()
    found = [
        noise_maps.of_pictures(
            recipe, MIXING, make_mesh(shape), PARAMS, PICTURES, 3, batch_size=16
        )
        for shape in ((1, 1), (devices, 1))
    ]
    for name, values in found[0].items():
        np.testing.assert_allclose(values, found[1][name], atol=1e-4, err_msg=name)
