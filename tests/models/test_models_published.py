"""The networks of the papers: their tensors, their sizes, their outputs."""

import json
import pathlib

import diffusers_names
import jax
import jax.numpy as jnp
import numpy as np
import openai_names
import pytest

from ddpm_jax.models import classifier, network, unet

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "networks"

# ----------------------------------------------------------------------------- dialects

DDPM = {
    "channels": 128,
    "num_res_blocks": 2,
    "attention_resolutions": (16,),
    "num_heads": 1,
    "out_channels": 3,
    "scale_shift": False,
    "sinusoid": "sin_cos",
    "sinusoid_shift": 1,
    "norm_epsilon": 1e-6,
    "downsample_padding": "end",
    "qkv_order": "new",
    "attention_scale": "product",
}
IDDPM = {
    "channels": 128,
    "num_res_blocks": 3,
    "attention_resolutions": (16, 8),
    "out_channels": 6,
}
ADM = {
    "channels": 256,
    "num_res_blocks": 2,
    "attention_resolutions": (32, 16, 8),
    "head_channels": 64,
    "resblock_updown": True,
    "out_channels": 6,
}
UPSAMPLER = {"channels": 192, "num_classes": 1000, "low_res": True}
MULT = {
    32: (1, 2, 2, 2),
    64: (1, 2, 3, 4),
    128: (1, 1, 2, 3, 4),
    256: (1, 1, 2, 2, 4, 4),
    512: (0.5, 1, 1, 2, 2, 4, 4),
}


def sized(side, *dialects, **changes):
    """The arguments of `unet.unet` for square images."""
    arguments = {"image_size": (side, side), "channel_mult": MULT[side]}
    for more in (*dialects, changes):
        arguments |= more
    return {"in_channels": 3, **arguments}


# The published files' names, shapes and numbers of parameters are at hand in full.
PUBLISHED = {
    "cifar10_uncond_50M_500K": sized(32, IDDPM),
    "lsun_uncond_100M_1200K_bs128": sized(
        256,
        IDDPM,
        num_res_blocks=2,
        attention_resolutions=(16,),
        num_heads=1,
        scale_shift=False,
    ),
    "64x64_diffusion": sized(
        64, ADM, channels=192, num_res_blocks=3, num_classes=1000, qkv_order="new"
    ),
    "512x512_diffusion": sized(512, ADM, num_classes=1000),
}

# Of these only the number of parameters.
COUNTED = {
    "DDPM CIFAR-10": (sized(32, DDPM), 35_746_307),
    "DDPM 256": (sized(256, DDPM), 113_673_219),
    "imagenet64_uncond_100M_1500K": (sized(64, IDDPM), 121_063_942),
    "imagenet64_cond_270M_250K": (
        sized(64, IDDPM, channels=192, num_classes=1000),
        273_049_350,
    ),
    "upsample_cond_500K": (
        sized(256, IDDPM, UPSAMPLER, num_res_blocks=2),
        279_792_390,
    ),
    "128x128_diffusion": (
        sized(128, ADM, head_channels=None, num_heads=4, num_classes=1000),
        421_529_606,
    ),
    "256x256_diffusion": (sized(256, ADM, num_classes=1000), 553_838_086),
    "256x256_diffusion_uncond": (sized(256, ADM), 552_814_086),
    "64_256_upsampler": (
        sized(256, ADM, UPSAMPLER, head_channels=None, num_heads=4),
        311_795_910,
    ),
    "128_512_upsampler": (
        sized(
            512,
            ADM,
            UPSAMPLER,
            channel_mult=(1, 1, 2, 2, 4, 4),
            attention_resolutions=(32, 16),
        ),
        308_835_270,
    ),
}

CLASSIFIERS = {
    # side: blocks a level, parameters with attention pool, features of spatial pools
    64: (4, 65_438_568, 6528),
    128: (2, 42_568_040, 4352),
    256: (2, 54_096_360, 5504),
    512: (2, 54_448_360, 5632),
}


def openai_layout(arguments):
    """What `openai_names.openai_key` needs to know of a network."""
    levels = len(arguments["channel_mult"])
    return {
        "levels": levels,
        "num_res_blocks": arguments["num_res_blocks"],
        "attended": [
            arguments["image_size"][0] // 2**level in arguments["attention_resolutions"]
            for level in range(levels)
        ],
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_shapes_equal_the_published_checkpoint(name):
    published = json.loads((GOLDEN / "published_tensors.json").read_text())[name]
    net = unet.unet(**PUBLISHED[name])
    layout = openai_layout(PUBLISHED[name])
    ours = {}
    for path, leaf in network.by_path(net.shapes).items():
        key = openai_names.openai_key(path, **layout)
        there = np.empty(published["tensors"][key], np.bool_)
        assert leaf.shape == openai_names.to_ours(there, path).shape, path
        ours[key] = path
    assert ours.keys() == published["tensors"].keys()
    assert network.num_parameters(net.shapes) == published["parameters"]


@pytest.mark.parametrize("name", COUNTED)
def test_number_of_parameters_is_the_published_one(name):
    arguments, parameters = COUNTED[name]
    assert network.num_parameters(unet.unet(**arguments).shapes) == parameters


@pytest.mark.parametrize("side", CLASSIFIERS)
def test_classifiers_have_the_published_sizes(side):
    num_res_blocks, parameters, features = CLASSIFIERS[side]
    shapes = {
        pool: classifier.classifier(
            image_size=(side, side),
            in_channels=3,
            num_classes=1000,
            channels=128,
            channel_mult=MULT[side],
            num_res_blocks=num_res_blocks,
            attention_resolutions=(32, 16, 8),
            pool=pool,
        ).shapes
        for pool in ("attention", "spatial")
    }
    assert network.num_parameters(shapes["attention"]) == parameters
    attention_pool = shapes["attention"]["pool"]
    assert attention_pool["positional_embedding"].shape == (65, 512)
    assert attention_pool["proj_out"]["kernel"].shape == (512, 1000)
    assert shapes["spatial"]["pool"]["dense_1"]["kernel"].shape == (features, 2048)


# ------------------------------------------------------- outputs of the published codes

CIFAR_LIKE = sized(
    32, IDDPM, channels=32, channel_mult=(1, 2, 2), attention_resolutions=(16, 8)
)
ADM_LIKE = sized(
    32,
    ADM,
    channels=32,
    channel_mult=(1, 2, 2),
    num_res_blocks=1,
    attention_resolutions=(32, 16),
    head_channels=16,
    num_classes=10,
)
DIFFUSERS_LIKE = sized(
    32,
    DDPM,
    image_size=(16, 16),
    channels=32,
    channel_mult=(1, 2, 2),
    num_res_blocks=1,
    attention_resolutions=(8,),
)
CLASSIFIER_LIKE = {
    "image_size": (32, 32),
    "in_channels": 3,
    "num_classes": 10,
    "channels": 32,
    "channel_mult": (1, 2, 2),
    "num_res_blocks": 1,
    "attention_resolutions": (16, 8),
    "head_channels": 16,
}


def golden(name):
    """The inputs and outputs of a network, and its weights."""
    return np.load(GOLDEN / f"{name}.npz"), np.load(GOLDEN / f"{name}_weights.npz")


def as_ours(images):
    return jnp.asarray(images.transpose(0, 2, 3, 1))


@pytest.mark.parametrize(
    ("name", "arguments"), [("id_cifar_like", CIFAR_LIKE), ("gd_adm", ADM_LIKE)]
)
def test_output_equals_the_published_code(name, arguments):
    net = unet.unet(**arguments)
    numbers, weights = golden(name)
    layout = openai_layout(arguments)
    params = openai_names.from_state_dict(weights, net, **layout)
    labels = jnp.asarray(numbers["y"], jnp.int32) if "y" in numbers else None
    got = jax.jit(net.apply)(
        params, as_ours(numbers["x"]), jnp.asarray(numbers["t"]), labels
    )
    np.testing.assert_allclose(got, as_ours(numbers["out"]), rtol=1e-4, atol=2e-5)


def test_output_equals_that_of_diffusers():
    net = unet.unet(**DIFFUSERS_LIKE)
    numbers, weights = golden("diffusers_ddpm_cifar_like")
    params = diffusers_names.from_state_dict(weights, net, levels=3)
    t = jnp.asarray(numbers["t"], jnp.int32)
    got = jax.jit(net.apply)(params, as_ours(numbers["x"]), t)
    np.testing.assert_allclose(got, as_ours(numbers["out"]), rtol=1e-4, atol=2e-5)


def test_classifier_equals_the_published_code():
    net = classifier.classifier(**CLASSIFIER_LIKE)
    numbers, weights = golden("gd_classifier_attention")
    layout = openai_layout(CLASSIFIER_LIKE)
    params = openai_names.from_state_dict(weights, net, **layout)
    t, labels = jnp.asarray(numbers["t"]), jnp.asarray(numbers["y"], jnp.int32)

    @jax.jit
    @jax.grad
    def gradient(x):
        log_p = jax.nn.log_softmax(net.apply(params, x, t))
        return jnp.sum(jnp.take_along_axis(log_p, labels[:, None], axis=1))

    x, wanted = as_ours(numbers["x"]), as_ours(numbers["grad"])
    logits = jax.jit(net.apply)(params, x, t)
    np.testing.assert_allclose(logits, numbers["logits"], rtol=1e-4, atol=2e-5)
    error = np.abs(gradient(x) - wanted).max()
    assert error < 1e-3 * np.abs(wanted).max()
