"""The rules turn numbers and nothing else; differences are found and explained."""

import from_fields
import numpy as np
import pytest

from ddpm_jax.convert import mapping, published
from ddpm_jax.convert.formats import ddpm, diffusers, openai
from ddpm_jax.core import errors

RNG = np.random.default_rng(0)


def numbers(*shape):
    return RNG.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("rule", "shape", "place"),
    # Where our entry [-1, ..., i, o] stands in theirs.
    [
        ("conv", (5, 4, 3, 2), lambda a: a[4, 3, 2, 1]),  # O I H W
        ("transpose", (5, 4), lambda a: a[4, 3]),
        ("conv1d", (5, 4, 1), lambda a: a[4, 3, 0]),
        ("conv1x1", (5, 4, 1, 1), lambda a: a[4, 3, 0, 0]),
        ("pixelwise", (4, 5), lambda a: a[3, 4]),
        ("copy", (5,), lambda a: a[4]),
    ],
)
def test_rules_turn_and_turn_back(rule, shape, place):
    theirs = numbers(*shape)
    entry = mapping.Entry("x/kernel", ("key",), rule)
    ours = mapping.to_ours(entry, {"key": theirs})
    assert ours.dtype == np.float32
    assert ours.reshape(-1)[-1] == place(theirs)  # (H−1, W−1, I−1, O−1)
    back = mapping.to_theirs(entry, ours)["key"]
    assert back.tobytes() == theirs.tobytes()
    assert mapping.their_shapes(entry, ours.shape) == {"key": shape}


def test_queries_keys_and_values_lie_side_by_side():
    entry = mapping.Entry("qkv/kernel", ("q", "k", "v"), "transpose")
    theirs = {key: numbers(4, 4) for key in "qkv"}
    ours = mapping.to_ours(entry, theirs)
    x = numbers(4)
    wanted = np.concatenate([theirs[key] @ x for key in "qkv"])
    np.testing.assert_allclose(x @ ours, wanted, rtol=1e-5)
    back = mapping.to_theirs(entry, ours)
    assert all(back[key].tobytes() == theirs[key].tobytes() for key in "qkv")


SMALL = {
    "data.image_size": (16, 16),
    "data.channels": 3,
    "model.channels": 8,
    "model.channel_mult": (1, 2),
    "model.num_res_blocks": 1,
    "model.attention_resolutions": (8,),
    "model.num_heads": 1,
    "model.norm_groups": 8,
    "diffusion.variance": "fixed_large",
}


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        (openai, {"model.resblock_updown": True, "model.class_conditional": True}),
        (openai, {"model.channel_mult": (0.5, 1, 2), "model.norm_groups": 4}),
        (openai, {"model.kind": "upsampler", "model.resample": "pool"}),
        *[
            (openai, {"model.kind": "classifier", "model.pool": pool})
            for pool in ("attention", "adaptive", "spatial", "spatial_v2")
        ],
        (diffusers, {"model.scale_shift": True, "model.resblock_updown": True}),
        (diffusers, {"model.middle_attention": "plain"}),
        (ddpm, {"model.scale_shift": False, "facts.layout": "tensorflow"}),
        (ddpm, {"model.scale_shift": False, "facts.layout": "pytorch"}),
    ],
)
def test_whole_networks_come_back_bit_by_bit(family, changes):
    fields = {**SMALL, "facts.num_classes": 5, **changes}
    our_shapes = from_fields.shapes_of(from_fields.network_of(fields))
    ours = from_fields.random_tensors(our_shapes)
    entries = family.entries(our_shapes, fields)
    theirs = {}
    for entry in entries:
        found = mapping.to_theirs(entry, ours[entry.path])
        shapes = mapping.their_shapes(entry, our_shapes[entry.path])
        assert {key: value.shape for key, value in found.items()} == shapes
        theirs |= found
    mapping.check(entries, our_shapes, {k: v.shape for k, v in theirs.items()}, fields)
    for entry in entries:
        back = mapping.to_ours(entry, theirs)
        assert back.tobytes() == ours[entry.path].tobytes()


# ---- differences ---------------------------------------------------------------------


def complaint_about(name, **changes):
    """Return what is said of a published file with other fields than its own."""
    fields = {
        **published.PUBLISHED[name].fields,
        **{key.replace("__", "."): value for key, value in changes.items()},
    }
    if fields.get("model.kind") == "unet":  # what a U-Net does not have is refused
        fields["data.low_res_factor"] = 0
    our_shapes = from_fields.shapes_of(from_fields.network_of(fields))
    entries = openai.entries(our_shapes, fields)
    tensors = from_fields.published_tensors()[name]["tensors"]
    with pytest.raises(errors.Refusal) as caught:
        mapping.check(entries, our_shapes, tensors, fields)
    message = str(caught.value)
    assert len(message.splitlines()) <= 17
    return message


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("64x64_diffusion", "model.scale_shift", False),
        ("lsun_uncond_100M_1200K_bs128", "model.scale_shift", True),
        ("64x64_diffusion", "model.resblock_updown", False),
        ("cifar10_uncond_50M_500K", "model.resblock_updown", True),
        ("64x64_diffusion", "model.class_conditional", False),
        ("64x64_diffusion", "facts.num_classes", 10),
        ("cifar10_uncond_50M_500K", "diffusion.variance", "fixed_large"),
        ("64_256_upsampler", "model.kind", "unet"),
        ("cifar10_uncond_50M_500K", "model.attention_resolutions", (16,)),
        ("cifar10_uncond_50M_500K", "model.num_res_blocks", 2),
        ("cifar10_uncond_50M_500K", "model.channel_mult", (1, 2, 2, 4)),
        ("cifar10_uncond_50M_500K", "model.channels", 64),
        ("128x128_classifier", "model.pool", "spatial"),
    ],
)
def test_a_difference_names_the_field_that_explains_it(name, field, value):
    message = complaint_about(name, **{field.replace(".", "__"): value})
    assert f"{field} " in message.splitlines()[-1]
    if field in published.PUBLISHED[name].fields:
        assert f"(now {value!r})" in message.splitlines()[-1]


def test_the_table_tells_block_and_both_shapes():
    message = complaint_about("64x64_diffusion", model__scale_shift=False)
    lines = message.splitlines()
    assert lines[1].split() == ["block", "tensor", "network", "file"]
    row = next(line for line in lines if "input_blocks.1.0" in line)
    assert "emb_layers.1.weight and 1 more" in row
    assert row.split()[-2:] == ["192×768", "384×768"]
    assert "lines more" in lines[-2]


def test_missing_and_superfluous_tensors_are_counted():
    fields = {**SMALL}
    our_shapes = from_fields.shapes_of(from_fields.network_of(fields))
    entries = openai.entries(our_shapes, fields)
    theirs = from_fields.their_shapes("openai", our_shapes, fields)
    mapping.check(entries, our_shapes, theirs, fields)
    del theirs["out.0.bias"]
    theirs["middle_block.3.weight"] = (3,)
    with pytest.raises(errors.Refusal, match=r"1 tensors .* missing, 1 of the file"):
        mapping.check(entries, our_shapes, theirs, fields)
    # A layer without its bias is explained by no field.
    del theirs["middle_block.3.weight"]
    with pytest.raises(errors.Refusal, match=r"explain it: no field .* fetch it again"):
        mapping.check(entries, our_shapes, theirs, fields)


def test_a_wrong_map_is_a_defect():
    entries = [mapping.Entry("a", ("x",), "copy"), mapping.Entry("b", ("x",), "copy")]
    with pytest.raises(ValueError, match="twice") as caught:
        mapping.check(entries, {"a": (1,), "b": (1,)}, {"x": (1,)}, {})
    assert not isinstance(caught.value, errors.Refusal)
    with pytest.raises(ValueError, match="'b'"):
        mapping.check(entries[:1], {"a": (1,), "b": (1,)}, {"x": (1,)}, {})
