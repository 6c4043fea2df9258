"""Guidance by CLIP: its gradient from outside, and image i is image i."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_sampling_sampler import Net, make_mesh
from test_sampling_sampler import make_recipe as plain_recipe

from ddpm_jax.convert import mapping, torch_clip
from ddpm_jax.convert.formats import clip as format_lib
from ddpm_jax.diffusion import process, reverse, schedules
from ddpm_jax.models import clip, functional
from ddpm_jax.sampling import branches, transforms
from ddpm_jax.sampling import recipe as recipe_lib
from ddpm_jax.sampling import sampler as sampler_lib

# Optimization is what could make an image depend on its batch.
pytestmark = pytest.mark.usefixtures("optimized")

NETWORKS = pathlib.Path(__file__).parents[1] / "golden" / "networks"
NET = clip.clip(
    clip.Clip(
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
)
TABLES = process.tables(
    process.Schedule.from_betas(schedules.make_betas("cosine", 1000))
)


def quickly(function):
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture(scope="module")
def tensors():
    """The weights of both encoders, their names as those of one file."""
    found = {}
    for part in ("image", "text"):
        with np.load(NETWORKS / f"glide_clip_{part}_weights.npz") as saved:
            found |= {f"{part}.{key}": saved[key] for key in saved}
    return found


@pytest.fixture(scope="module")
def params(tensors):
    shapes = {k: leaf.shape for k, leaf in functional.by_path(NET.shapes).items()}
    tree = {}
    for entry in format_lib.entries(shapes, {}):
        *parents, leaf = entry.path.split("/")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = jnp.asarray(mapping.to_ours(entry, tensors))
    return tree


@pytest.fixture(scope="module")
def golden():
    with np.load(NETWORKS / "glide_clip.npz") as found:
        return dict(found)


@pytest.fixture(scope="module")
def shifted(params, golden):
    """By how much guidance of scale 1 shifts a mean whose variance is 1."""
    condition = {
        clip.TOKENS: golden["tokens"].astype(np.int32),
        clip.LENGTH: golden["lengths"].astype(np.int32),
    }
    x, t = np.moveaxis(golden["x"], 1, -1), golden["t"].astype(np.int32)

    def shift(params, x):
        given = branches.Given.of(NET, params, condition)
        tools = transforms.Tools(
            tables=TABLES,
            index=jnp.arange(2),
            turn=jnp.arange(2),
            condition=condition,
            arrays={},
            networks={transforms.CLASSIFIER: given.alone()},
        )
        make = transforms.TRANSFORMS["clip_mean"].make
        zero = jnp.zeros_like(x)
        before = reverse.Prediction(zero, zero, zero, zero + 1, zero)
        # The timesteps of the two differ, which those of a chain never do.
        return make(tools, scale=1.0, below=1000)(x, t, before).mean

    return np.asarray(quickly(shift)(params, x))


def test_the_gradient_is_that_of_the_published_code(shifted, golden):
    wanted = np.moveaxis(golden["grad"], 1, -1)
    assert np.abs(shifted - wanted).max() < 1e-3 * np.abs(wanted).max()


def test_the_gradient_is_the_slope_of_another_code_in_float64(shifted, tensors, golden):
    torch = pytest.importorskip("torch")
    given = [torch.from_numpy(golden[key]) for key in ("t", "tokens", "lengths")]
    x = torch.from_numpy(golden["x"]).double()

    def agreement(x):
        image, text = torch_clip.embeddings(
            tensors, x, *given, image_heads=3, text_heads=2
        )
        return 100 * (image * text).sum(dim=-1)

    gradient = np.moveaxis(shifted, -1, 1).astype(np.float64)
    largest = np.abs(gradient).max()
    rng = np.random.default_rng(0)
    for _ in range(4):
        direction = rng.choice([-1.0, 1.0], size=gradient.shape)
        step = 1e-5 * torch.from_numpy(direction)
        slope = (agreement(x + step) - agreement(x - step)).numpy() / 2e-5
        along = (gradient * direction).sum(axis=(1, 2, 3))
        # Each of the entries may be off by 1e-3 of the largest, at random.
        allowed = 1e-3 * largest * np.sqrt(gradient[0].size)
        assert np.abs(along - slope).max() < allowed


# ---- images --------------------------------------------------------------------------

TEXTS = np.array([[148, 5, 9, 149, 0], [148, 70, 71, 72, 149], [148, 149, 0, 0, 0]])
LENGTHS = (4, 5, 2)
TOKENS = tuple(map(tuple, np.pad(TEXTS, ((0, 0), (0, 5))).tolist()))
SOFT = Net(lambda params, x, t, given: jnp.concatenate([jnp.tanh(x), 0 * x], axis=-1))
NO_WEIGHTS = {"none": np.zeros(1, np.float32)}


def make(params, texts=slice(None), batch_size=7, mesh_shape=(1, 1), form="score"):
    recipe = plain_recipe(
        shape=(16, 16, 3),
        solver=recipe_lib.part("ddim" if form == "score" else "ancestral"),
        transforms=(recipe_lib.part(f"clip_{form}", scale=3.0, below=4),),
        condition=((clip.TOKENS, TOKENS[texts]), (clip.LENGTH, LENGTHS[texts])),
        fingerprints=((transforms.CLASSIFIER, "f00d"),),
    )
    sampler = sampler_lib.Sampler(
        recipe,
        SOFT,
        make_mesh(mesh_shape),
        others={transforms.CLASSIFIER: (NET, params)},
    )
    count = 8 if batch_size == 8 else 7
    parts = [
        sampler.make(
            NO_WEIGHTS, start=i, stop=min(i + batch_size, count), batch_size=batch_size
        ).images
        for i in range(0, count, batch_size)
    ]
    return np.concatenate(parts)


@pytest.fixture(scope="module")
def seven(params):
    return make(params)


def test_image_i_alone_is_image_i_of_seven(params, seven):
    np.testing.assert_allclose(make(params, batch_size=1), seven, atol=1e-4)


def test_on_eight_devices(params, seven):
    parts = make(params, batch_size=8, mesh_shape=(2, 4))
    np.testing.assert_allclose(parts[:7], seven, atol=1e-4)


def test_images_take_the_texts_in_turn(params, seven):
    second = make(params, texts=slice(1, 2))
    same = [np.allclose(second[i], seven[i], atol=1e-4) for i in range(7)]
    assert same == [i % 3 == 1 for i in range(7)]


def test_images_agree_more_with_their_text(params, seven):
    t = jnp.zeros(7, jnp.int32)
    turn = np.arange(7) % 3
    given = {
        clip.TOKENS: jnp.asarray(np.array(TOKENS)[turn], jnp.int32),
        clip.LENGTH: jnp.asarray(np.array(LENGTHS)[turn], jnp.int32),
    }
    other = {key: jnp.roll(rows, 1, axis=0) for key, rows in given.items()}
    apply = quickly(NET.apply)
    own, others = (apply(params, seven, t, texts) for texts in (given, other))
    assert np.mean(own) > np.mean(others)
