"""The table of published checkpoints against their tensors, and maps against both."""

import hashlib
import json

import from_fields
import pytest

from ddpm_jax.config import reading
from ddpm_jax.convert import mapping, published
from ddpm_jax.convert.formats import FORMATS
from ddpm_jax.core import errors
from ddpm_jax.models import functional

TENSORS = from_fields.published_tensors()
ROOT = from_fields.GOLDEN.parents[1]

# (file's family, images) → parameters, tensors: counted with diffusers and the port.
DDPM = {32: (35_746_307, 328), 256: (113_673_219, 450)}


@pytest.mark.parametrize("name", TENSORS)
def test_the_whole_file_has_its_place(name):
    entry, file = published.PUBLISHED[name], TENSORS[name]
    net = from_fields.network_of(entry.fields)
    our_shapes = from_fields.shapes_of(net)
    entries = FORMATS[entry.format].entries(our_shapes, entry.fields)
    mapping.check(entries, our_shapes, file["tensors"], entry.fields)
    assert (
        functional.num_parameters(net.shapes) == file["parameters"] == entry.parameters
    )
    assert len(file["tensors"]) == entry.tensors


@pytest.mark.parametrize("name", TENSORS)
def test_signatures_are_of_the_files(name):
    tensors = TENSORS[name]["tensors"]
    text = json.dumps([[key, list(tensors[key])] for key in sorted(tensors)])
    wanted = hashlib.sha256(text.encode()).hexdigest()
    assert published.PUBLISHED[name].signature == wanted
    found = published.find("openai", tensors)
    assert name in [entry.name for entry in found]


FLAGS = {
    # Flag of the OpenAI codes → our field; flags that are there count.
    "num_channels": "model.channels",
    "num_res_blocks": "model.num_res_blocks",
    "num_heads": "model.num_heads",
    "num_head_channels": "model.head_channels",
    "use_scale_shift_norm": "model.scale_shift",
    "resblock_updown": "model.resblock_updown",
    "class_cond": "model.class_conditional",
    "dropout": "model.dropout",
    "diffusion_steps": "diffusion.num_steps",
    "noise_schedule": "diffusion.schedule",
    "rescale_timesteps": "diffusion.rescale_timesteps",
    "classifier_width": "model.channels",
    "classifier_depth": "model.num_res_blocks",
    "classifier_pool": "model.pool",
}


@pytest.mark.parametrize("name", TENSORS)
def test_fields_are_the_flags(name):
    flags, fields = TENSORS[name]["flags"], published.PUBLISHED[name].fields
    size = flags.get("image_size", flags.get("large_size"))
    assert fields["data.image_size"] == (size, size)
    for flag, field in FLAGS.items():
        if flag in flags:
            assert fields[field] == flags[flag], flag
    listed = flags.get("attention_resolutions") or flags.get(
        "classifier_attention_resolutions", "16,8"
    )
    assert fields["model.attention_resolutions"] == tuple(map(int, listed.split(",")))
    assert (fields["model.qkv_order"] == "new") == flags.get(
        "use_new_attention_order", False
    )
    assert (fields["model.kind"] == "upsampler") == ("large_size" in flags)
    assert (fields["model.kind"] == "classifier") == ("classifier_width" in flags)
    if "learn_sigma" in flags:
        assert fields["diffusion.variance"] == "learned_range"


@pytest.mark.parametrize(
    "name",
    [
        "ddpm_cifar10",
        "ddpm_lsun_cat",
        "ema_cifar10",
        "lsun_church_ddpm",
        "ddpm-cifar10-32",
        "ddpm-ema-cat-256",
    ],
)
def test_ddpm_counts_and_signatures(name):
    entry = published.PUBLISHED[name]
    net = from_fields.network_of(entry.fields)
    layout = "pytorch" if entry.file.endswith(".ckpt") else "tensorflow"
    theirs = from_fields.their_shapes(
        entry.format,
        from_fields.shapes_of(net),
        {**entry.fields, "facts.layout": layout},
    )
    parameters, tensors = DDPM[entry.fields["data.image_size"][0]]
    assert (entry.parameters, entry.tensors) == (parameters, tensors)
    assert functional.num_parameters(net.shapes) == parameters
    assert len(theirs) == tensors
    assert entry in published.find(entry.format, theirs)


@pytest.mark.parametrize("size", [32, 256])
def test_ddpm_on_the_hub_has_the_tensors_of_diffusers(size):
    diffusers = pytest.importorskip("diffusers")
    torch = pytest.importorskip("torch")
    large = (128, 128, 256, 256, 512, 512)
    widths = (128, 256, 256, 256) if size == 32 else large
    down = ["DownBlock2D"] * len(widths)
    down[1 if size == 32 else 4] = "AttnDownBlock2D"
    up = [kind.replace("Down", "Up") for kind in reversed(down)]
    with torch.device("meta"):
        model = diffusers.UNet2DModel(
            sample_size=size,
            block_out_channels=widths,
            down_block_types=down,
            up_block_types=up,
            attention_head_dim=None,
            layers_per_block=2,
        )
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    names = [entry.name for entry in published.find("diffusers", shapes)]
    assert len(names) == (1 if size == 32 else 8)


def test_names_files_and_numbers_are_whole():
    names = published.PUBLISHED
    openai = [entry for entry in names.values() if entry.format == "openai"]
    assert len(openai) == 8 + 11 + 4 + 4
    assert len({entry.file for entry in names.values()}) == len(names)
    assert all(entry.expected and entry.parameters for entry in names.values())


def test_configs_of_published_files():
    made = reading.from_file(f"{ROOT}/configs/published.py:lsun_bedroom")
    assert made.model.dropout == 0.1
    assert tuple(made.data.image_size) == (256, 256)
    with pytest.raises(errors.Refusal, match="64x64_diffusion"):
        reading.from_file(f"{ROOT}/configs/published.py")
    with pytest.raises(errors.Refusal, match=r"unknown published .* lsun_bedroom"):
        reading.from_file(f"{ROOT}/configs/published.py:bedroom")
