"""Certificates: they pass for published networks and fail for any wrong map."""

import json
import pathlib
import sys

import from_fields
import numpy as np
import pytest
import safetensors.numpy
import small_networks

from ddpm_jax.convert import certificate
from ddpm_jax.convert import open as open_lib

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "networks"
COMMON = {
    "data.image_size": (32, 32),
    "model.channels": 32,
    "model.channel_mult": (1, 2, 2),
    "model.norm_groups": 32,
    "diffusion.variance": "learned_range",
}
FIELDS = {
    "gd_adm": {
        "model.num_res_blocks": 1,
        "model.attention_resolutions": (32, 16),
        "model.head_channels": 16,
        "model.resblock_updown": True,
        "model.class_conditional": True,
        "facts.num_classes": 10,
    },
    "gd_classifier_attention": {
        "model.kind": "classifier",
        "model.num_res_blocks": 1,
        "model.attention_resolutions": (16, 8),
        "model.head_channels": 16,
        "model.resblock_updown": True,
        "facts.num_classes": 10,
    },
}


def source(folder, tensors):
    safetensors.numpy.save_file(dict(tensors), folder / "published.safetensors")
    return open_lib.open_source(folder / "published.safetensors")


def published(folder, name, **changes):
    """Return a published network as (source, fields of a small image)."""
    fields = small_networks.tiny({**COMMON, **FIELDS[name], **changes})
    opened = source(folder, np.load(GOLDEN / f"{name}_weights.npz"))
    return opened, certificate.small_fields(fields)


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.mark.usefixtures("torch")
def test_a_published_classifier_agrees(tmp_path):
    opened, fields = published(tmp_path, "gd_classifier_attention")
    network = from_fields.network_of(fields)
    params = from_fields.imported(opened, network, fields)
    made = certificate.certify(opened, fields, network, params)
    assert made.within_tolerance
    assert made.image_shape == (32, 32, 3)  # the attention pool has 65 positions


@pytest.mark.usefixtures("torch")
@pytest.mark.parametrize("pool", ["adaptive", "spatial", "spatial_v2"])
def test_the_other_pools_agree(tmp_path, pool):
    # No published network has them: both codes were written from the description.
    fields = small_networks.tiny({**COMMON, **FIELDS["gd_classifier_attention"]})
    fields |= {"model.pool": pool, "data.image_size": (4, 4)}
    fields |= {"model.channel_mult": (1, 2), "model.attention_resolutions": (2,)}
    network = from_fields.network_of(fields)
    shapes = from_fields.their_shapes("openai", from_fields.shapes_of(network), fields)
    opened = source(tmp_path, from_fields.random_tensors(shapes))
    params = from_fields.imported(opened, network, fields)
    made = certificate.certify(opened, fields, network, params)
    assert made.within_tolerance
    assert made.max_abs_reference > 1e-3


@pytest.mark.usefixtures("torch")
def test_upsamplers_and_plain_resampling_agree(tmp_path):
    changes = {
        "model.kind": "upsampler",
        "model.resample": "pool",
        "model.channel_mult": (1, 2),
        "data.image_size": (4, 4),
        "model.attention_resolutions": (2,),
    }
    fields = small_networks.tiny({**COMMON, **changes})
    network = from_fields.network_of(fields)
    shapes = from_fields.their_shapes("openai", from_fields.shapes_of(network), fields)
    opened = source(tmp_path, from_fields.random_tensors(shapes))
    params = from_fields.imported(opened, network, fields)
    assert certificate.certify(opened, fields, network, params).within_tolerance


@pytest.mark.usefixtures("torch")
def test_a_published_network_agrees_and_wrong_maps_do_not(tmp_path):
    opened, fields = published(tmp_path, "gd_adm")
    network = from_fields.network_of(fields)
    params = from_fields.imported(opened, network, fields)
    made = certificate.certify(opened, fields, network, params)
    assert made.within_tolerance
    assert made.acceptable
    assert f"agrees with PyTorch {made.torch_version}" in made.sentence()
    assert "random 12×12 inputs" in made.sentence()
    assert json.loads(json.dumps(made.to_dict()))["reason"] == ""

    other = from_fields.network_of({**fields, "model.qkv_order": "new"})
    made = certificate.certify(opened, fields, other, params)
    assert made.within_tolerance is False
    assert not made.acceptable
    assert "DISAGREES" in made.sentence()

    kernel = params["middle"]["block_1"]["conv_1"]["kernel"]
    params["middle"]["block_1"]["conv_1"]["kernel"] = kernel.swapaxes(0, 1)
    made = certificate.certify(opened, fields, network, params)
    assert made.within_tolerance is False


def test_without_pytorch_it_says_how_to_get_one(tmp_path, monkeypatch):
    opened, fields = published(tmp_path, "gd_adm")
    monkeypatch.setitem(sys.modules, "torch", None)
    made = certificate.certify(opened, fields, None, None)
    assert made.within_tolerance is None
    assert made.acceptable
    assert "no parity certificate: PyTorch is not installed" in made.sentence()
    assert "pip install 'ddpm-jax[convert]'" in made.sentence()


@pytest.mark.parametrize(
    ("size", "levels", "attention", "small", "small_attention"),
    [
        ((256, 256), 6, (32, 16, 8), (96, 96), (12, 6, 3)),
        ((512, 512), 7, (32, 16, 8), (192, 192), (12, 6, 3)),
        ((32, 32), 4, (16, 8), (24, 24), (12, 6)),
        ((64, 256), 5, (16,), (48, 48), (12,)),
        ((16, 16), 4, (8,), (16, 16), (8,)),
        ((8, 24), 4, (8,), (8, 24), (8,)),
    ],
)
def test_the_smallest_image_keeps_attention_at_its_levels(
    size, levels, attention, small, small_attention
):
    fields = small_networks.tiny(
        {
            "data.image_size": size,
            "model.channel_mult": (1,) * levels,
            "model.attention_resolutions": attention,
        }
    )
    got = certificate.small_fields(fields)
    assert got["data.image_size"] == small
    assert got["model.attention_resolutions"] == small_attention
    fields["model.kind"] = "classifier"
    assert certificate.small_fields(fields) == fields
