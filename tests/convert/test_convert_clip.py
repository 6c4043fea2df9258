"""GLIDE's noised CLIP against the numbers of its own code, and its published sizes."""

import dataclasses

import from_fields
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_networks

from ddpm_jax.convert import mapping, recognise
from ddpm_jax.convert.formats import clip as format_lib
from ddpm_jax.core import errors
from ddpm_jax.models import clip, functional

NETWORKS = from_fields.GOLDEN / "networks"
SMALL = clip.Clip(
    image_size=16,
    image_width=24,
    image_layers=2,
    image_heads=3,
    text_width=16,
    text_layers=2,
    text_heads=2,
    context=10,
    vocabulary=150,
    embedding=24,
)


def arrays(name):
    with np.load(NETWORKS / f"{name}.npz") as found:
        return dict(found)


@pytest.fixture(scope="module")
def golden():
    return arrays("glide_clip")


@pytest.fixture(scope="module")
def net():
    return clip.clip(SMALL)


@pytest.fixture(scope="module")
def params(net):
    shapes, found = from_fields.shapes_of(net), {}
    for part in ("image", "text"):
        tensors = arrays(f"glide_clip_{part}_weights")
        entries = format_lib.entries_of(part, shapes)
        ours = {path: s for path, s in shapes.items() if path.startswith(f"{part}/")}
        mapping.check(entries, ours, {k: v.shape for k, v in tensors.items()}, {})
        for entry in entries:
            found[entry.path] = mapping.to_ours(entry, tensors)
            (key,) = entry.keys
            back = mapping.to_theirs(entry, found[entry.path])[key]
            assert back.tobytes() == tensors[key].tobytes(), key
    return small_networks.nested(found)


def condition(golden):
    return {
        "clip_tokens": golden["tokens"].astype(np.int32),
        "clip_length": golden["lengths"].astype(np.int32),
    }


def compiled(function):
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def close(got, wanted):
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=2e-5)


def test_embeddings_agreement_and_gradient_are_those_of_the_published_code(
    net, params, golden
):
    x, t = np.moveaxis(golden["x"], 1, -1), golden["t"].astype(np.int32)
    made = compiled(net.prepare)(params, condition(golden))
    close(made["clip_embedding"], golden["text_embedding"])

    def agreement(x, given):
        each = net.apply(params, x, t, given)
        return jnp.sum(each), each

    run = compiled(jax.value_and_grad(agreement, has_aux=True))
    (_, each), gradient = run(x, made)
    texts, images = golden["text_embedding"], golden["image_embedding"]
    close(each, 100 * np.sum(texts * images, axis=-1))
    wanted = np.moveaxis(golden["grad"], 1, -1)
    assert np.abs(gradient - wanted).max() < 1e-3 * np.abs(wanted).max()
    # Against the axes of the common space it is the image's embedding.
    for axis in range(0, 24, 5):
        unit = np.tile(np.eye(24, dtype=np.float32)[axis], (2, 1))
        (_, each), _ = run(x, {"clip_embedding": unit})
        close(each / 100, images[:, axis])


def test_what_stands_behind_the_end_is_not_read(net, params, golden):
    given = condition(golden)
    prepare = compiled(net.prepare)
    other = given["clip_tokens"].copy()
    other[1, 4:] = 77
    np.testing.assert_array_equal(
        prepare(params, {**given, "clip_tokens": other})["clip_embedding"],
        prepare(params, given)["clip_embedding"],
    )


def test_every_parameter_has_a_gradient(golden):
    net = clip.clip(dataclasses.replace(SMALL, image_layers=1, text_layers=1))
    x, t = np.moveaxis(golden["x"], 1, -1), golden["t"].astype(np.int32)

    def total(params):
        weights = jnp.array([1.0, -0.5])
        return jnp.sum(weights * net.apply(params, x, t, condition(golden)))

    gradient = compiled(jax.grad(total))(small_networks.random_params(net))
    leaves = functional.by_path(gradient)
    assert [path for path, leaf in leaves.items() if not np.any(leaf)] == []


def test_the_published_sizes():
    shapes = from_fields.shapes_of(clip.clip(clip.Clip()))
    counts = {
        part: sum(
            int(np.prod(shape))
            for path, shape in shapes.items()
            if path.startswith(part)
        )
        for part in ("image/", "text/")
    }
    assert round(counts["image/"] / 1e6, 1) == 86.4
    assert round(counts["text/"] / 1e6, 1) == 71.7
    keys = {
        key: shape
        for part in ("image", "text")
        for entry in format_lib.entries_of(part, shapes)
        for key, shape in mapping.their_shapes(entry, shapes[entry.path]).items()
        if part == "image"
    }
    assert keys["blocks.input.w_t"] == (1000, 768)
    assert keys["blocks.input.patch_proj"] == (768, 3, 4, 4)
    assert keys["blocks.input.w_pos"] == (257, 768)
    assert keys["blocks.block_11.f_mlp.f_1.w"] == (3072, 768)
    assert keys["blocks.output.f.w"] == (512, 768)
    assert "blocks.block_0.f_attn.f_k.b" not in keys


def test_the_published_pair_is_known_by_its_shapes():
    shapes = from_fields.shapes_of(clip.clip(clip.Clip()))
    theirs = {}
    for entry in format_lib.entries(shapes, {}):
        theirs |= mapping.their_shapes(entry, shapes[entry.path])
    told = recognise.recognise(from_fields.source("clip", theirs), {})
    assert told.published == "glide_clip"
    assert (told.fields["model.num_heads"], told.fields["model.text_heads"]) == (12, 8)
    assert told.fields["diffusion.schedule"] == "cosine"
    assert told.fields["data.image_size"] == (64, 64)
    assert "the paper's 3.5 B model was never released" in told.sentences()[0]
    cut = {k: s for k, s in theirs.items() if k != "image.blocks.input.w_t"}
    with pytest.raises(errors.Refusal, match=r"have no image\.blocks\.input\.w_t"):
        recognise.recognise(from_fields.source("clip", cut), {})
    other = {**theirs, "text.blocks.output.f.w": (256, 512)}
    with pytest.raises(
        errors.Refusal, match="512 channels and that of the text in 256"
    ):
        recognise.recognise(from_fields.source("clip", other), {})


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(errors.Refusal, match="patch_size 5 does not divide image_size"):
        clip.Clip(patch_size=5)
    with pytest.raises(errors.Refusal, match="context is 0"):
        clip.Clip(context=0)


def test_images_of_another_size_are_refused(net, params, golden):
    with pytest.raises(errors.Refusal, match="do not fit a network made for"):
        net.apply(params, np.zeros((2, 8, 8, 3)), golden["t"], condition(golden))
