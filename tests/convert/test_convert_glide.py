"""GLIDE's text-conditional networks: read, computed, certified, written back."""

import gzip
import json

import from_fields
import jax
import numpy as np
import pytest
import small_networks

from ddpm_jax.convert import certificate, mapping, published, recognise
from ddpm_jax.convert import open as open_lib
from ddpm_jax.convert.export import writing
from ddpm_jax.convert.formats import FORMATS
from ddpm_jax.core import errors
from ddpm_jax.models import functional

NETWORKS = from_fields.GOLDEN / "networks"
NAMES = ("glide_upsampler", "glide_inpaint")
GIVEN = {
    # What the shapes of these small networks cannot tell.
    "data.image_size": (16, 16),
    "model.head_channels": 16,
    "model.text_heads": 3,
    "model.qkv_order": "legacy",
    "diffusion.schedule": "linear",
    "diffusion.num_steps": 1000,
    "diffusion.rescale_timesteps": False,
    "diffusion.prediction": "noise",
}
KEYS = {
    # Condition → the golden array.
    "tokens": "tokens",
    "token_mask": "mask",
    "low_res": "low_res",
    "known": "inpaint_image",
    "known_mask": "inpaint_mask",
}


def ours(array):
    """Return images as we lay them out, and whole numbers as int32."""
    if array.ndim == 4:
        return np.moveaxis(array, 1, -1)
    return array.astype(np.int32) if array.dtype == np.int64 else array


@pytest.fixture(scope="module", params=NAMES)
def golden(request, tmp_path_factory):
    """Return (its file as a source, fields, our network, parameters, arrays)."""
    torch = pytest.importorskip("torch")
    with np.load(NETWORKS / f"{request.param}_weights.npz") as found:
        tensors = {key: torch.from_numpy(found[key]) for key in found}
    path = tmp_path_factory.mktemp("glide") / f"{request.param}.pt"
    torch.save(tensors, path)
    source = open_lib.open_source(path)
    fields = recognise.recognise(source, GIVEN).fields
    net = from_fields.network_of(fields)
    params = from_fields.imported(source, net, fields)
    with np.load(NETWORKS / f"{request.param}.npz") as arrays:
        return source, fields, net, params, dict(arrays)


def test_a_file_tells_its_text_encoder(golden):
    source, fields, *_ = golden
    assert source.format == "openai"
    upsampler = "upsampler" in source.path.name
    wanted = {
        "model.kind": "upsampler" if upsampler else "unet",
        "model.inpainting": not upsampler,
        "model.text_layers": 2,
        "model.text_width": 48,
        "model.text_heads": 3,
        "model.text_context": 12,
        "model.text_vocabulary": 200,
        "model.resblock_updown": True,
        "model.attention_resolutions": (8,),
        "data.channels": 3,
        "diffusion.variance": "learned_range",
    }
    assert {name: fields[name] for name in wanted} == wanted


def test_it_computes_what_the_published_code_computed(golden):
    # A full, a short and an empty prompt; the last mask of inpainting is empty.
    *_, net, params, arrays = golden
    condition = {
        key: ours(arrays[name]) for key, name in KEYS.items() if name in arrays
    }
    assert arrays["mask"].sum(axis=1).tolist() == [12, 5, 0]
    if "known_mask" in condition:
        assert condition["known_mask"].any(axis=(1, 2, 3)).tolist() == [1, 1, 0]
    fast = {"xla_backend_optimization_level": 0}

    def both(params, x, t, condition):
        prepared = net.prepare(params, condition)
        return net.apply(params, x, t, condition), net.apply(params, x, t, prepared)

    made = jax.jit(both, compiler_options=fast)(
        params, ours(arrays["x"]), ours(arrays["t"]), condition
    )
    for got in made:
        np.testing.assert_allclose(got, ours(arrays["out"]), rtol=1e-4, atol=2e-5)


def test_the_certificate_agrees(golden):
    source, fields, *_, params, _ = golden
    small = certificate.small_fields(fields)
    assert small["data.image_size"] == (6, 6)
    net = from_fields.network_of(small)
    made = certificate.certify(source, small, net, params)
    assert made.within_tolerance
    assert made.max_abs_reference > 0.1


def test_the_reference_equals_the_published_code(golden):
    import torch

    from ddpm_jax.convert import torch_glide

    source, *_, arrays = golden
    given = {key: torch.from_numpy(arrays[n]) for key, n in KEYS.items() if n in arrays}

    def reference(**changes):
        options = {"num_res_blocks": 1, "head_channels": 16, "text_heads": 3}
        inputs = (torch.from_numpy(arrays[name]) for name in ("x", "t"))
        with torch.no_grad():
            return torch_glide.glide_unet(
                source.tensors, *inputs, **given, **options | changes
            ).numpy()

    np.testing.assert_allclose(reference(), arrays["out"], rtol=1e-4, atol=2e-5)
    # What the shapes do not tell matters.
    for wrong in ({"text_heads": 4}, {"head_channels": 32}, {"qkv_order": "new"}):
        assert np.abs(reference(**wrong) - arrays["out"]).max() > 1e-3, wrong


def test_it_is_written_back_bit_for_bit(golden, tmp_path):
    import torch

    source, fields, _, params, _ = golden
    fields = {**small_networks.tiny(), **fields}
    by_path = {k: np.asarray(v) for k, v in functional.by_path(params).items()}
    for format_name, name in (("openai", "back.pt"), ("safetensors", "b.safetensors")):
        writing.write(
            format_name,
            tmp_path / name,
            params=by_path,
            fields=fields,
            image_shape=(16, 16, 3),
            provenance={},
        )
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert back.keys() == source.shapes.keys()
    for key, tensor in back.items():
        assert tensor.numpy().tobytes() == source.tensors[key].tobytes(), key
    native = open_lib.open_source(tmp_path / "b.safetensors")
    told = recognise.recognise(native, {})
    assert told.fields["model.text_heads"] == 3
    again = from_fields.imported(native, from_fields.network_of(told.fields), fields)
    for path, leaf in functional.by_path(again).items():
        assert np.asarray(leaf).tobytes() == by_path[path].tobytes(), path


def test_other_formats_refuse_it(golden, tmp_path):
    _, fields, _, params, _ = golden
    with pytest.raises(errors.Refusal, match="a diffusers UNet2DModel"):
        writing.write(
            "diffusers",
            tmp_path / "folder",
            params=functional.by_path(params),
            fields={**small_networks.tiny(), **fields},
            image_shape=(16, 16, 3),
            provenance={},
        )


# ---- the published files -------------------------------------------------------------

PUBLISHED = json.loads(
    gzip.decompress(
        (from_fields.GOLDEN / "published_checkpoints_glide.json.gz").read_bytes()
    )
)
COUNTS = {
    "glide_base": 385_030_726,
    "glide_upsample": 398_361_286,
    "glide_base_inpaint": 385_037_638,
    "glide_upsample_inpaint": 398_368_198,
}
FLAGS = {
    "num_channels": "model.channels",
    "num_res_blocks": "model.num_res_blocks",
    "num_head_channels": "model.head_channels",
    "use_scale_shift_norm": "model.scale_shift",
    "resblock_updown": "model.resblock_updown",
    "dropout": "model.dropout",
    "text_ctx": "model.text_context",
    "xf_width": "model.text_width",
    "xf_layers": "model.text_layers",
    "xf_heads": "model.text_heads",
    "inpaint": "model.inpainting",
    "diffusion_steps": "diffusion.num_steps",
}
SCHEDULES = {"squaredcos_cap_v2": "cosine", "linear": "linear"}


def shapes_of(name):
    return {key: tuple(shape) for key, shape in PUBLISHED[name]["tensors"].items()}


@pytest.mark.parametrize("name", COUNTS)
def test_the_whole_file_has_its_place(name):
    entry, shapes = published.PUBLISHED[name], shapes_of(name)
    net = from_fields.network_of(entry.fields)
    our_shapes = from_fields.shapes_of(net)
    entries = FORMATS["openai"].entries(our_shapes, entry.fields)
    mapping.check(entries, our_shapes, shapes, entry.fields)
    assert functional.num_parameters(net.shapes) == COUNTS[name] == entry.parameters
    assert PUBLISHED[name]["parameters"] == COUNTS[name]
    assert len(shapes) == entry.tensors


@pytest.mark.parametrize("name", COUNTS)
def test_a_published_file_is_known_by_its_shapes(name):
    source = from_fields.source("openai", shapes_of(name), path="anything.pt")
    told = recognise.recognise(source, {})
    assert told.published == name
    assert told.fields.items() >= dict(published.PUBLISHED[name].fields).items()
    flags = PUBLISHED[name]["flags"]
    assert {field: told.fields[field] for field in FLAGS.values()} == {
        field: flags[flag] for flag, field in FLAGS.items()
    }
    assert told.fields["data.image_size"] == (flags["image_size"],) * 2
    assert told.fields["diffusion.schedule"] == SCHEDULES[flags["noise_schedule"]]
    assert told.fields["model.kind"] == ("upsampler" if flags["super_res"] else "unet")
    for part in (name, "GLIDE (filtered)", "0.3 B", "3.5 B"):
        assert part in told.sentences()[0]


def small_shapes(**changes):
    with np.load(NETWORKS / "glide_inpaint_weights.npz") as found:
        shapes = {key: found[key].shape for key in found}
    return {k: s for k, s in {**shapes, **changes}.items() if s is not None}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"token_embedding.weight": None}, "no token_embedding.weight"),
        ({"padding_embedding": None}, "a text encoder but no padding_embedding"),
        ({"final_ln.bias": None}, "a text encoder but no final_ln.bias"),
        ({"input_blocks.0.0.weight": (32, 8, 3, 3)}, "reads 8 channels and returns 6"),
    ],
)
def test_files_that_lack_a_part_are_refused(changes, match):
    source = from_fields.source("openai", small_shapes(**changes))
    with pytest.raises(errors.Refusal, match=match):
        recognise.recognise(source, GIVEN)


def test_heads_of_the_text_are_asked_for():
    source = from_fields.source("openai", small_shapes())
    given = {k: v for k, v in GIVEN.items() if k != "model.text_heads"}
    with pytest.raises(errors.Refusal, match=r"--config.model.text_heads=…  8 \(GLIDE"):
        recognise.recognise(source, given)
