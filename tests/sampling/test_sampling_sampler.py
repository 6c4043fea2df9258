"""Image i is image i: in any batch, on any mesh; and what a recipe refuses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.core import errors
from ddpm_jax.data import images as images_lib
from ddpm_jax.diffusion import process, respacing, schedules
from ddpm_jax.runtime import sharding
from ddpm_jax.sampling import sampler as sampler_lib

SHAPE = (4, 4, 1)
LABELS = (2, 0, 1)
NUM_IMAGES = 8
NULL = 3


def normals(*shape, seed):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


PARAMS = {
    "in": normals(16, 32, seed=0) / 4,
    "labels": normals(NULL + 1, 32, seed=1),
    "out": normals(32, 32, seed=2) / 4,
}


def mixing(params, x, t_seen, labels=None):
    """A network in which every pixel depends on every other, with two outputs."""
    hidden = x.reshape(len(x), -1) @ params["in"] + 0.1 * t_seen[:, None]
    if labels is not None:
        hidden += params["labels"][labels]
    return (jnp.tanh(hidden) @ params["out"]).reshape(len(x), *SHAPE[:2], 2)


def make_recipe(steps=4, **options):
    betas = schedules.make_betas("cosine", 20)
    schedule = process.Schedule.from_betas(betas)
    return sampler_lib.Recipe(
        **{
            "schedule": respacing.respace(schedule, steps),
            "prediction": "noise",
            "variance": "learned_range",
            "image_shape": SHAPE,
            **options,
        }
    )


def make_sampler(recipe, apply):
    # LLVM's optimisations would take most of the time of these tests.
    return jax.jit(
        sampler_lib.make_sampler(recipe, apply),
        compiler_options={"xla_backend_optimization_level": 0},
    )


def make_mesh(shape):
    return sharding.make_mesh(*shape, devices=jax.devices()[: shape[0] * shape[1]])


def make_images(
    sampler, batch_size=8, mesh_shape=(1, 1), labels=LABELS, first=0, count=NUM_IMAGES
):
    """Images first … first+count−1 in batches of one size, as sampling makes them."""
    mesh = make_mesh(mesh_shape)
    params = jax.device_put(PARAMS, sharding.replicated(mesh))
    end = first + count
    made = [
        sampler_lib.images(
            sampler,
            mesh,
            params,
            start=start,
            stop=min(start + batch_size, end),
            batch_size=batch_size,
            labels=labels,
        )
        for start in range(first, end, batch_size)
    ]
    return np.concatenate(made)


# ---- image i is image i --------------------------------------------------------------

PLACEMENTS = [(1, (1, 1)), (3, (1, 1)), (8, (8, 1)), (16, (2, 4))]


def show_start(params, x, t_seen, labels):
    return x


def show_step(params, x, t_seen, labels):
    return jnp.where(t_seen.reshape(-1, 1, 1, 1) == 0, x, 0)


@functools.cache
def noise_sampler(which, seed=0):
    """A sampler whose images are a draw itself, not touched by any sum.

    "start": one step to x̂_0, for which the network takes x_T. "step": the network says
    that x_{t−1} has mean 0, so that only the last draw, times σ, is left of a chain.
    """
    if which == "start":
        recipe = make_recipe(
            1, prediction="x_0", variance="fixed_small", clip=False, seed=seed
        )
        return make_sampler(recipe, show_start)
    recipe = make_recipe(4, prediction="x_prev", variance="fixed_large", seed=seed)
    return make_sampler(recipe, show_step)


@functools.cache
def mixing_sampler(**options):
    return make_sampler(make_recipe(**options), mixing)


@pytest.mark.parametrize("which", ["start", "step"])
@pytest.mark.parametrize(("batch_size", "mesh_shape"), PLACEMENTS)
def test_noise_is_the_same_to_the_bit(batch_size, mesh_shape, which):
    expected = make_images(noise_sampler(which))
    actual = make_images(noise_sampler(which), batch_size, mesh_shape)
    assert actual.dtype == np.float32
    assert actual.shape == (NUM_IMAGES, *SHAPE)
    assert actual.tobytes() == expected.tobytes()


@pytest.mark.parametrize("which", ["start", "step"])
def test_noise_is_new_for_each_image_and_seed(which):
    noise = make_images(noise_sampler(which), batch_size=64, count=64)
    assert len(np.unique(noise)) == noise.size
    if which == "start":
        assert abs(noise.mean()) < 5 / np.sqrt(noise.size)
        assert abs(noise.var() - 1) < 5 * np.sqrt(2 / noise.size)
    other = make_images(noise_sampler(which, seed=1), batch_size=64, count=64)
    assert not np.any(other == noise)


@pytest.mark.parametrize(("batch_size", "mesh_shape"), PLACEMENTS)
def test_pixels_are_the_same_to_rounding(batch_size, mesh_shape):
    sampler = mixing_sampler(guidance_scale=2.5, null_label=NULL)
    expected = make_images(sampler)
    assert np.std(expected) > 0.1  # not all black, not all white
    actual = make_images(sampler, batch_size, mesh_shape)
    np.testing.assert_allclose(actual, expected, atol=1e-4)
    bytes_apart = np.int64(images_lib.to_uint8(actual)) - images_lib.to_uint8(expected)
    assert np.max(np.abs(bytes_apart)) <= 1


def test_a_part_is_that_part_of_the_whole():
    sampler = mixing_sampler(guidance_scale=2.5, null_label=NULL)
    whole = make_images(sampler)
    part = make_images(sampler, first=3, count=4)
    np.testing.assert_allclose(part, whole[3:7], atol=1e-4)


# ---- labels and guidance -------------------------------------------------------------


def label_network(params, x, t_seen, labels):
    """x̂_0 is the label everywhere."""
    return jnp.broadcast_to(labels.astype(jnp.float32).reshape(-1, 1, 1, 1), x.shape)


@functools.cache
def label_sampler(scale, null_label=None):
    recipe = make_recipe(
        1,
        prediction="x_0",
        variance="fixed_small",
        clip=False,
        guidance_scale=scale,
        null_label=null_label,
    )
    return make_sampler(recipe, label_network)


@pytest.mark.parametrize(("batch_size", "mesh_shape"), [(3, (1, 1)), (16, (2, 4))])
def test_labels_are_cycled(batch_size, mesh_shape):
    made = make_images(label_sampler(1.0), batch_size, mesh_shape)
    expected = [2, 0, 1, 2, 0, 1, 2, 0]
    np.testing.assert_array_equal(
        made, np.broadcast_to(np.reshape(expected, (-1, 1, 1, 1)), made.shape)
    )


def test_labels_of():
    labels = sampler_lib.labels_of((4, 7), np.array([0, 1, 2, 5, 100]))
    assert labels.dtype == np.int32
    assert labels.tolist() == [4, 7, 4, 7, 4]


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 3.0])
def test_guidance_extrapolates_from_the_null_label(scale):
    made = make_images(label_sampler(scale, NULL), labels=(1,))
    # GLIDE eq. 8: unconditional + s·(conditional − unconditional), here of labels.
    np.testing.assert_allclose(made, NULL + scale * (1 - NULL), atol=1e-6)


# ---- recipes -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"method": "ancestral"},
        {"method": "ddim"},
        {"method": "ddim", "eta": 1.0},
        {"method": "ancestral", "dynamic_threshold": 2.0},
    ],
)
def test_every_method_gives_finite_images(options):
    made = make_images(mixing_sampler(**options), labels=None)
    assert np.all(np.isfinite(made))
    assert np.all(np.std(made, axis=(1, 2, 3)) > 0.01)
    # x̂_0 is clipped, and the last step returns its mean, which is x̂_0.
    assert np.max(np.abs(made)) <= 1 + 1e-6


def test_all_methods_are_tried():
    assert set(sampler_lib.METHODS) == {"ancestral", "ddim"}


def test_methods_and_options_make_a_difference():
    made = [
        make_images(mixing_sampler(**options), labels=None)
        for options in ({}, {"method": "ddim"}, {"method": "ddim", "eta": 1.0})
    ]
    for a, b in ((0, 1), (1, 2)):
        assert np.mean(np.abs(made[a] - made[b])) > 0.01


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"method": "euler"}, r"'euler'.*ancestral, ddim"),
        ({"eta": 0.5}, r"eta=0.5 with method 'ancestral'.*'ddim'"),
        ({"method": "ddim", "eta": 1.5}, r"eta=1.5.*0 … 1"),
        ({"method": "ddim", "eta": -0.1}, r"eta=-0.1.*0 … 1"),
        ({"guidance_scale": 2.0}, r"guidance_scale=2.0.*label_dropout=0.1"),
        ({"guidance_scale": 0.0}, r"guidance_scale=0.0.*label_dropout=0.1"),
    ],
)
def test_refusals(options, told):
    with pytest.raises(errors.Refusal, match=told):
        make_recipe(**options)


def test_thresholding_comes_before_clipping():
    """After clipping there would be nothing left to threshold."""
    x_0 = jnp.linspace(-3, 3, 16).reshape(1, *SHAPE)
    hooked = x_0
    for hook in make_recipe(dynamic_threshold=2.0).hooks:
        hooked = hook(hooked, None, None)
    # Imagen: the 99.5th percentile of |x̂_0| is above 2, so x̂_0 is clipped to 2 and
    # divided by it.
    np.testing.assert_allclose(hooked, np.clip(x_0, -2, 2) / 2, rtol=1e-6)
    assert make_recipe(clip=False).hooks == ()


@pytest.mark.parametrize(
    ("batch_size", "mesh_shape", "rounded"),
    [(1, (1, 1), 1), (5, (1, 1), 5), (1, (8, 1), 8), (8, (2, 4), 8), (9, (2, 4), 16)],
)
def test_rounded_batch(batch_size, mesh_shape, rounded):
    assert sampler_lib.rounded_batch(batch_size, make_mesh(mesh_shape)) == rounded
