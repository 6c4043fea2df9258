"""The PyTorch networks against the published codes' outputs and against diffusers."""

import pathlib

import ddpm_names
import numpy as np
import pytest
import random_diffusers

from ddpm_jax.convert import torch_reference

torch = pytest.importorskip("torch")

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "networks"
UNETS = {
    "gd_adm": {"num_res_blocks": 1, "head_channels": 16},
    "id_cifar_like": {"num_res_blocks": 3, "num_heads": 4},
}
CLASSIFIER = {"num_res_blocks": 1, "head_channels": 16}


def golden(name):
    """Return (arrays as tensors, weights by their published names)."""
    arrays = np.load(GOLDEN / f"{name}.npz")
    weights = np.load(GOLDEN / f"{name}_weights.npz")
    return {key: torch.from_numpy(arrays[key]) for key in arrays}, dict(weights)


def check(got, wanted, scale=1.0):
    np.testing.assert_allclose(
        got.detach(), wanted, rtol=1e-4 * scale, atol=2e-5 * scale
    )


@pytest.mark.parametrize("name", UNETS)
def test_openai_unets_equal_the_published_code(name):
    arrays, weights = golden(name)
    y = arrays.get("y") if "label_emb.weight" in weights else None
    got = torch_reference.openai_unet(
        weights, arrays["x"], arrays["t"], y, **UNETS[name]
    )
    check(got, arrays["out"])


def test_the_order_of_qkv_and_the_heads_matter():
    arrays, weights = golden("gd_adm")
    for wrong in ({"qkv_order": "new"}, {"head_channels": 32}):
        got = torch_reference.openai_unet(
            weights,
            arrays["x"],
            arrays["t"],
            arrays["y"],
            **{**UNETS["gd_adm"], **wrong},
        )
        assert (got - arrays["out"]).abs().max() > 1e-2


def test_the_classifier_equals_the_published_code_and_so_does_its_gradient():
    arrays, weights = golden("gd_classifier_attention")
    x = arrays["x"].requires_grad_()
    logits = torch_reference.openai_classifier(weights, x, arrays["t"], **CLASSIFIER)
    check(logits, arrays["logits"])
    log_prob = logits.log_softmax(-1)[torch.arange(2), arrays["y"]].sum()
    (gradient,) = torch.autograd.grad(log_prob, x)
    largest = arrays["grad"].abs().max()
    assert (gradient - arrays["grad"]).abs().max() < 1e-4 * largest


def test_low_resolution_images_are_stretched_as_published():
    # A constant image is constant at any size: joining it by hand must give the same.
    _, weights = golden("id_cifar_like")
    weights["input_blocks.0.0.weight"] = np.concatenate(
        [weights["input_blocks.0.0.weight"]] * 2, axis=1
    )
    x, t = torch.randn(1, 3, 8, 8), torch.tensor([5])
    low_res = torch.randn(1, 3, 1, 1).expand(1, 3, 4, 4)
    got = torch_reference.openai_unet(
        weights, x, t, low_res=low_res, **UNETS["id_cifar_like"]
    )
    joined = torch.cat([x, low_res[..., :1, :1].expand(1, 3, 8, 8)], 1)
    wanted = torch_reference.openai_unet(weights, joined, t, **UNETS["id_cifar_like"])
    check(got, wanted)


# ---- diffusers, and the code of DDPM -------------------------------------------------


@pytest.mark.parametrize("name", [*random_diffusers.CONFIGS, *random_diffusers.OTHERS])
def test_diffusers_networks_equal_the_library(name):
    model, inputs = random_diffusers.make(name)
    with torch.no_grad():
        wanted = model(*inputs).sample
    got = torch_reference.diffusers_unet(
        model.state_dict(), dict(model.config), *inputs
    )
    check(got, wanted)


def test_a_diffusers_config_without_a_name_means_the_default():
    model, inputs = random_diffusers.make("plain")
    config = {k: v for k, v in model.config.items() if k != "attention_head_dim"}
    wanted = torch_reference.diffusers_unet(
        model.state_dict(), {**config, "attention_head_dim": 8}, *inputs
    )
    got = torch_reference.diffusers_unet(model.state_dict(), config, *inputs)
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("rename", [ddpm_names.tensorflow, ddpm_names.pytorch_copy])
def test_the_network_of_ddpm_equals_the_library(rename):
    model, inputs = random_diffusers.make("ddpm")
    with torch.no_grad():
        wanted = model(*inputs).sample
    tensors = dict(
        rename(key, value.numpy()) for key, value in model.state_dict().items()
    )
    got = torch_reference.ddpm_unet(tensors, *inputs[:2])
    check(got, wanted)
    if rename is ddpm_names.tensorflow:
        assert "down_1/attn_0/q/W" in tensors
    else:
        assert "up.2.block.1.nin_shortcut.weight" in tensors
