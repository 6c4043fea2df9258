"""diffusers → ours → diffusers: folders that the library wrote and reads again."""

import from_fields
import numpy as np
import pytest
import random_diffusers
import small_networks

from ddpm_jax.convert import certificate, recognise
from ddpm_jax.convert import open as open_lib
from ddpm_jax.convert.export import writing
from ddpm_jax.core import errors
from ddpm_jax.models import functional

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")


def save(folder, model):
    """Write a network and a scheduler as a pipeline's folder."""
    scheduler = diffusers.DDPMScheduler(variance_type="fixed_large")
    if model.config.out_channels > model.config.in_channels:
        scheduler = diffusers.DDPMScheduler(variance_type="learned_range")
    scheduler.save_pretrained(folder / "scheduler")
    model.save_pretrained(folder / "unet")


@pytest.mark.parametrize("name", random_diffusers.CONFIGS)
def test_imported_and_exported_again(tmp_path, name):
    model, inputs = random_diffusers.make(name)
    save(tmp_path / "theirs", model)
    source = open_lib.open_source(tmp_path / "theirs")
    told = recognise.recognise(source, {})
    network = from_fields.network_of(told.fields)
    params = from_fields.imported(source, network, told.fields)

    with torch.no_grad():
        wanted = model(*inputs).sample
    got = small_networks.output(network, params, *inputs)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=2e-5)

    fields = small_networks.tiny(told.fields)
    by_path = {
        path: np.asarray(leaf) for path, leaf in functional.by_path(params).items()
    }
    for format_name, output in (
        ("diffusers", "ours"),
        ("safetensors", "ours.safetensors"),
    ):
        writing.write(
            format_name,
            tmp_path / output,
            params=by_path,
            fields=fields,
            image_shape=(*fields["data.image_size"], fields["data.channels"]),
            provenance={},
        )
        writing.reload_and_compare(format_name, tmp_path / output, by_path, fields)
    again = diffusers.UNet2DModel.from_pretrained(tmp_path / "ours" / "unet")
    assert again.state_dict().keys() == model.state_dict().keys()
    for key, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], tensor), key
    with torch.no_grad():
        assert torch.equal(again(*inputs).sample, wanted)


def test_what_the_network_lacks_is_refused(tmp_path):
    for name, words in {
        "divided middle": "mid_block_scale_factor",
        "centred": "center_input_sample",
    }.items():
        model, _ = random_diffusers.make(name)
        save(tmp_path / name, model)
        with pytest.raises(errors.Refusal, match=words):
            recognise.recognise(open_lib.open_source(tmp_path / name), {})


def test_the_certificate_agrees_until_a_weight_moves(tmp_path):
    model, _ = random_diffusers.make("adm")
    save(tmp_path, model)
    source = open_lib.open_source(tmp_path)
    fields = recognise.recognise(source, {}).fields
    network = from_fields.network_of(fields)
    params = from_fields.imported(source, network, fields)
    made = certificate.certify(source, fields, network, params)
    assert made.within_tolerance
    assert made.max_abs_reference > 0.1
    bias = params["down"]["1"]["attentions"]["0"]["qkv"]["bias"]
    third = bias.shape[0] // 3
    exchanged = [bias[third : 2 * third], bias[:third], bias[2 * third :]]
    params["down"]["1"]["attentions"]["0"]["qkv"]["bias"] = np.concatenate(exchanged)
    assert not certificate.certify(source, fields, network, params).within_tolerance
