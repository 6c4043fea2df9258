"""Image i is image i: in any batch, on any mesh; and no setting compiles anew."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.core import conditions, errors
from ddpm_jax.data import images as images_lib
from ddpm_jax.diffusion import inpainting, process, respacing, schedules
from ddpm_jax.runtime import sharding
from ddpm_jax.sampling import recipe as recipe_lib
from ddpm_jax.sampling import sampler as sampler_lib

# Loops over batches of other sizes are optimized otherwise.
pytestmark = pytest.mark.usefixtures("optimized")
SHAPE = (4, 4, 1)
LABELS = (2, 0, 1)
NUM_IMAGES = 8
NULL = 3
CLIP = recipe_lib.part("clip", low=-1.0, high=1.0)


def normals(*shape, seed):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


PARAMS = {
    "in": normals(16, 32, seed=0) / 4,
    "labels": normals(NULL + 1, 32, seed=1),
    "out": normals(32, 32, seed=2) / 4,
}


@dataclasses.dataclass(frozen=True, eq=False)
class Net:
    """What a sampler knows of a network."""

    apply: object
    condition_spec: dict = dataclasses.field(default_factory=dict)

    def prepare(self, params, condition):
        return condition


LABELLED = {"label": conditions.Spec((), "int32", NULL)}


def mix(params, x, t_seen, condition):
    """A network in which every pixel depends on every other, with two outputs."""
    hidden = x.reshape(len(x), -1) @ params["in"] + 0.1 * t_seen[:, None]
    if "label" in condition:
        hidden += params["labels"][condition["label"]]
    return (jnp.tanh(hidden) @ params["out"]).reshape(len(x), *SHAPE[:2], 2)


MIXING, PLAIN_MIXING = Net(mix, LABELLED), Net(mix)


def make_recipe(steps=4, labels=None, **options):
    betas = schedules.make_betas("cosine", 20)
    schedule = process.Schedule.from_betas(betas)
    return recipe_lib.Recipe(
        **{
            "schedule": respacing.respace(schedule, steps),
            "prediction": "noise",
            "variance": "learned_range",
            "shape": SHAPE,
            "hooks": (CLIP,),
            "condition": () if labels is None else (("label", labels),),
            **options,
        }
    )


def guided(scale):
    return (recipe_lib.part("classifier_free", scale=scale),)


def make_mesh(shape):
    return sharding.make_mesh(*shape, devices=jax.devices()[: shape[0] * shape[1]])


def make_images(
    recipe, network, batch_size=8, mesh_shape=(1, 1), first=0, count=NUM_IMAGES
):
    """Images first … first+count−1 in batches of one size, as sampling makes them."""
    mesh = make_mesh(mesh_shape)
    params = jax.device_put(PARAMS, sharding.replicated(mesh))
    sampler = sampler_lib.Sampler(recipe, network, mesh)
    end = first + count
    made = [
        sampler.make(
            params,
            start=start,
            stop=min(start + batch_size, end),
            batch_size=batch_size,
        ).images
        for start in range(first, end, batch_size)
    ]
    return np.concatenate(made)


# ---- image i is image i --------------------------------------------------------------

PLACEMENTS = [(1, (1, 1)), (3, (1, 1)), (8, (8, 1)), (16, (2, 4))]


SHOW_START = Net(lambda params, x, t_seen, condition: x)
SHOW_STEP = Net(
    lambda params, x, t_seen, condition: jnp.where(
        t_seen.reshape(-1, 1, 1, 1) == 0, x, 0
    )
)


def noise_of(which, seed=0):
    """A recipe and network whose images are a draw itself, not touched by any sum.

    "start": one step to x̂_0, for which the network takes x_T. "step": the network says
    that x_{t−1} has mean 0, so that only the last draw, times σ, is left of a chain.
    """
    if which == "start":
        return make_recipe(
            1, prediction="x_0", variance="fixed_small", hooks=(), seed=seed
        ), SHOW_START
    return make_recipe(
        4, prediction="x_prev", variance="fixed_large", seed=seed
    ), SHOW_STEP


@pytest.mark.parametrize("which", ["start", "step"])
@pytest.mark.parametrize(("batch_size", "mesh_shape"), PLACEMENTS)
def test_noise_is_the_same_to_the_bit(batch_size, mesh_shape, which):
    expected = make_images(*noise_of(which))
    actual = make_images(*noise_of(which), batch_size, mesh_shape)
    assert actual.dtype == np.float32
    assert actual.shape == (NUM_IMAGES, *SHAPE)
    assert actual.tobytes() == expected.tobytes()


@pytest.mark.parametrize("which", ["start", "step"])
def test_noise_is_new_for_each_image_and_seed(which):
    noise = make_images(*noise_of(which), batch_size=64, count=64)
    assert len(np.unique(noise)) == noise.size
    if which == "start":
        assert abs(noise.mean()) < 5 / np.sqrt(noise.size)
        assert abs(noise.var() - 1) < 5 * np.sqrt(2 / noise.size)
    other = make_images(*noise_of(which, seed=1), batch_size=64, count=64)
    assert not np.any(other == noise)


@pytest.mark.parametrize(("batch_size", "mesh_shape"), PLACEMENTS)
def test_pixels_are_the_same_to_rounding(batch_size, mesh_shape):
    recipe = make_recipe(labels=LABELS, guidance=guided(2.5))
    expected = make_images(recipe, MIXING)
    assert np.std(expected) > 0.1  # not all black, not all white
    actual = make_images(recipe, MIXING, batch_size, mesh_shape)
    np.testing.assert_allclose(actual, expected, atol=1e-4)
    bytes_apart = np.int64(images_lib.to_uint8(actual)) - images_lib.to_uint8(expected)
    assert np.max(np.abs(bytes_apart)) <= 1


def test_a_part_is_that_part_of_the_whole():
    recipe = make_recipe(labels=LABELS, guidance=guided(2.5))
    whole = make_images(recipe, MIXING)
    part = make_images(recipe, MIXING, first=3, count=4)
    np.testing.assert_allclose(part, whole[3:7], atol=1e-4)


# ---- labels and guidance -------------------------------------------------------------

# x̂_0 is the label everywhere.
OF_LABEL = Net(
    lambda params, x, t_seen, condition: jnp.broadcast_to(
        condition["label"].astype(jnp.float32).reshape(-1, 1, 1, 1), x.shape
    ),
    LABELLED,
)


def label_recipe(labels, guidance=()):
    return make_recipe(
        1,
        labels,
        prediction="x_0",
        variance="fixed_small",
        hooks=(),
        guidance=guidance,
    )


@pytest.mark.parametrize(("batch_size", "mesh_shape"), [(3, (1, 1)), (16, (2, 4))])
def test_labels_are_cycled(batch_size, mesh_shape):
    made = make_images(label_recipe(LABELS), OF_LABEL, batch_size, mesh_shape)
    expected = [2, 0, 1, 2, 0, 1, 2, 0]
    np.testing.assert_array_equal(
        made, np.broadcast_to(np.reshape(expected, (-1, 1, 1, 1)), made.shape)
    )


def test_the_condition_of_an_image():
    recipe = label_recipe((1, 2))
    condition = recipe.condition_of(np.array([0, 1, 2, 5, 100]), LABELLED)
    assert condition["label"].dtype == np.int32
    assert condition["label"].tolist() == [1, 2, 1, 2, 1]


def test_a_key_without_values_is_at_no_condition_or_refused():
    specs = {
        **LABELLED,
        "mass": conditions.Spec((2,), "float32", none=(0.5, 1)),
        "depth": conditions.Spec((), "float32", none=-1),
    }
    recipe = label_recipe((1, 2))
    condition = recipe.condition_of(np.arange(3), specs)
    assert condition["label"].tolist() == [1, 2, 1]
    assert condition["mass"].tolist() == [[0.5, 1]] * 3
    assert condition["depth"].tolist() == [-1] * 3
    assert {v.dtype.name for v in condition.values()} == {"int32", "float32"}
    specs["pose"] = conditions.Spec((), "float32")
    with pytest.raises(errors.Refusal, match="'pose' and got none"):
        recipe.condition_of(np.arange(3), specs)


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_guidance_extrapolates_from_the_null_label(scale):
    made = make_images(label_recipe((1,), guided(scale)), OF_LABEL)
    # GLIDE eq. 8: unconditional + s·(conditional − unconditional), here of labels.
    np.testing.assert_allclose(made, NULL + scale * (1 - NULL), atol=1e-6)


def test_unconditional_images_are_those_of_the_null_label():
    made = make_images(
        label_recipe((1,), (recipe_lib.part("unconditional"),)), OF_LABEL
    )
    np.testing.assert_array_equal(made, NULL)


def test_a_condition_is_prepared_once_before_the_chain():
    @dataclasses.dataclass(frozen=True, eq=False)
    class Doubling(Net):
        def prepare(self, params, condition):
            return {"label": 2 * condition["label"]}

    made = make_images(label_recipe((1,)), Doubling(OF_LABEL.apply, LABELLED))
    np.testing.assert_array_equal(made, 2)


# ---- solvers -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"solver": recipe_lib.part("ddim", eta=0.0)},
        {"solver": recipe_lib.part("ddim", eta=1.0)},
        {"hooks": (recipe_lib.part("dynamic_threshold", maximum=2.0), CLIP)},
    ],
)
def test_every_method_gives_finite_images(options):
    made = make_images(make_recipe(**options), PLAIN_MIXING)
    assert np.all(np.isfinite(made))
    assert np.all(np.std(made, axis=(1, 2, 3)) > 0.01)
    # x̂_0 is clipped, and the last step returns its mean, which is x̂_0.
    assert np.max(np.abs(made)) <= 1 + 1e-6


def test_methods_and_options_make_a_difference():
    parts = (
        recipe_lib.part("ancestral"),
        recipe_lib.part("ddim", eta=0.0),
        recipe_lib.part("ddim", eta=1.0),
    )
    made = [make_images(make_recipe(solver=part), PLAIN_MIXING) for part in parts]
    for a, b in ((0, 1), (1, 2)):
        assert np.mean(np.abs(made[a] - made[b])) > 0.01


def test_a_trajectory_ends_in_the_image():
    mesh = make_mesh((1, 1))
    sampler = sampler_lib.Sampler(make_recipe(), PLAIN_MIXING, mesh, trajectory=(0, 3))
    made = sampler.make(PARAMS, start=0, stop=5, batch_size=8)
    assert made.states.shape == made.estimates.shape == (2, 5, *SHAPE)
    np.testing.assert_array_equal(made.states[1], made.images)
    assert np.mean(np.abs(made.states[0] - made.images)) > 0.01
    plain = make_images(make_recipe(), PLAIN_MIXING, count=5)
    np.testing.assert_allclose(made.images, plain, atol=1e-6)


# ---- one program for every setting ---------------------------------------------------


def test_no_setting_compiles_anew():
    traces = []

    def counting(params, x, t_seen, condition):
        traces.append(1)
        return mix(params, x, t_seen, condition)

    network = Net(counting, LABELLED)

    def make(steps, eta, scale, seed, labels, maximum):
        hooks = (recipe_lib.part("dynamic_threshold", maximum=maximum), CLIP)
        recipe = make_recipe(
            steps,
            labels,
            solver=recipe_lib.part("ddim", eta=eta),
            guidance=guided(scale),
            hooks=hooks,
            seed=seed,
        )
        return make_images(recipe, network)

    first = make(4, 0.0, 2.0, 0, LABELS, 1.5)
    compiled = len(traces)
    settings = [
        (20, 0.0, 2.0, 0, LABELS, 1.5),
        (4, 0.7, 2.0, 0, LABELS, 1.5),
        (4, 0.0, 1.5, 0, LABELS, 1.5),
        (4, 0.0, 2.0, 1, LABELS, 1.5),
        (4, 0.0, 2.0, 0, (1,), 1.5),
        (4, 0.0, 2.0, 0, LABELS, 3.0),
        (1, 0.0, 2.0, 0, LABELS, 1.5),
    ]
    made = [make(*setting) for setting in settings]
    assert len(traces) == compiled
    for other in made:
        assert not np.array_equal(other, first)


def test_a_chain_of_traced_settings_is_that_of_constants():
    """The path as data against one scan over a path that the program is made of."""
    from ddpm_jax.core import keys
    from ddpm_jax.diffusion import guidance, reverse, samplers

    recipe = make_recipe(
        6, (1,), solver=recipe_lib.part("ddim", eta=0.5), guidance=guided(2.0)
    )
    tables = process.tables(recipe.schedule)
    index = np.arange(NUM_IMAGES)
    label = {"label": jnp.full(NUM_IMAGES, 1)}
    denoise = reverse.denoiser(
        tables,
        guidance.classifier_free(
            functools.partial(mix, PARAMS), label, {"label": jnp.full(8, NULL)}, 2.0
        ),
        prediction="noise",
        variance="learned_range",
        x_0_hooks=(reverse.clipping(),),
    )
    stream = keys.key_for(0, "sample/noise", index=index)
    start = keys.key_for(0, "sample/x_T", index=index)
    chain = samplers.sample(
        tables,
        denoise,
        step=samplers.ddim(0.5),
        x_T=keys.normal_each(start, SHAPE),
        noise_fn=lambda k: keys.normal_each(keys.fold_in_each(stream, k), SHAPE),
    )
    made = make_images(recipe, MIXING)
    np.testing.assert_allclose(made, chain.x_0, atol=2e-5)


@pytest.mark.parametrize(
    ("batch_size", "mesh_shape", "rounded"),
    [(1, (1, 1), 1), (5, (1, 1), 5), (1, (8, 1), 8), (8, (2, 4), 8), (9, (2, 4), 16)],
)
def test_rounded_batch(batch_size, mesh_shape, rounded):
    assert sampler_lib.rounded_batch(batch_size, make_mesh(mesh_shape)) == rounded


def test_paths_that_resample_compile_once_whatever_their_length():
    traces = []

    def counting(params, x, t_seen, condition):
        traces.append(1)
        return mix(params, x, t_seen, condition)

    network, compiled, made = Net(counting), [], []
    for steps in (4, 20, 10):  # of T = 20: the longest path has more than T entries
        path = inpainting.repaint_path(steps, resamplings=5)
        made.append(make_images(make_recipe(steps, path=path), network))
        compiled.append(len(traces))
    assert len(path) > 20
    assert len(set(compiled)) == 1
    assert not np.array_equal(made[0], made[1])
