"""Guidance in recipes: every kind alone and together, image i is image i."""

import dataclasses
import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from test_sampling_sampler import (
    LABELLED,
    MIXING,
    PARAMS,
    SHAPE,
    Net,
    make_mesh,
    mix,
    normals,
)
from test_sampling_sampler import make_recipe as plain_recipe

from ddpm_jax.diffusion import solvers
from ddpm_jax.sampling import recipe as recipe_lib
from ddpm_jax.sampling import sampler as sampler_lib

# Optimization is what could make an image depend on its batch.
pytestmark = pytest.mark.usefixtures("optimized")

LABELS = (2, 0, 1)
PREDICTIONS = ("noise", "x_0", "v", "x_prev")


def logits(params, x, t_seen, condition):
    """A classifier of three classes whose gradient differs from place to place."""
    flat = x.reshape(len(x), -1)
    return jnp.tanh(flat @ params["w"]) * (1 + 0.1 * t_seen[:, None])


CLASSIFIER = (Net(logits), {"w": normals(16, 3, seed=7)})
WEAKER = (Net(mix, LABELLED), {k: 0.9 * v for k, v in PARAMS.items()})
OTHERS = {"classifier": CLASSIFIER, "weaker": WEAKER}

part = recipe_lib.part
MIXINGS = {
    "none": (),
    "free": (part("classifier_free", scale=2.5),),
    "rescaled": (part("classifier_free", scale=2.5), part("rescale", share=0.7)),
    "weaker": (part("weaker", scale=1.5),),
    "all": (
        part("classifier_free", scale=2.0),
        part("weaker", scale=1.5),
        part("rescale", share=0.5),
    ),
    "unconditional": (part("unconditional"), part("weaker", scale=1.5)),
}


def make_recipe(solver="ddim", mixing="none", by_classifier=True, **options):
    made = solvers.SOLVERS[solver]()
    form = "mean" if made.reads == "mean" else "score"
    parts = (part(f"classifier_{form}", scale=0.4, below=3),) if by_classifier else ()
    names = ("classifier", "weaker")
    given = {
        "solver": part(solver),
        "guidance": MIXINGS[mixing],
        "transforms": parts,
        "condition": (("label", LABELS), *((("class", LABELS),) if parts else ())),
        "fingerprints": tuple((name, "f00d") for name in names),
    }
    return plain_recipe(**{**given, **options})


def make(recipe, count=7, batch_size=7, mesh_shape=(1, 1), start=0):
    sampler = sampler_lib.Sampler(recipe, MIXING, make_mesh(mesh_shape), others=OTHERS)
    parts = [
        sampler.make(
            PARAMS, start=i, stop=min(i + batch_size, count), batch_size=batch_size
        ).images
        for i in range(start, count, batch_size)
    ]
    return np.concatenate(parts)


def check_image_i(recipe):
    whole, alone = make(recipe), make(recipe, batch_size=1)
    np.testing.assert_allclose(alone, whole, atol=1e-4)
    assert np.isfinite(whole).all()


COVER = [
    ("ancestral", "all", "noise"),
    ("ancestral", "unconditional", "x_prev"),
    ("ddim", "rescaled", "v"),
    ("ddim", "weaker", "x_0"),
]
EVERY = list(itertools.product(solvers.SOLVERS, MIXINGS, PREDICTIONS))


@pytest.mark.parametrize(("solver", "mixing", "prediction"), COVER)
def test_image_i_alone_is_image_i_of_seven(solver, mixing, prediction):
    check_image_i(make_recipe(solver, mixing, prediction=prediction))


@pytest.mark.slow
@pytest.mark.parametrize(("solver", "mixing", "prediction"), EVERY)
def test_image_i_alone_is_image_i_of_seven_for_all(solver, mixing, prediction):
    check_image_i(make_recipe(solver, mixing, prediction=prediction))


def test_guided_images_are_those_of_eight_devices():
    path = tuple((t, t - 1, "step", t > 1) for t in range(3, -1, -1))
    recipe = make_recipe("ddim", "all", path=path)
    whole = make(recipe, 8, 8)
    parts = make(recipe, 8, 8, (2, 4))
    np.testing.assert_allclose(parts, whole, atol=1e-4)


def test_every_kind_of_guidance_changes_images():
    seen = [make(make_recipe("ddim", name, by_classifier=False)) for name in MIXINGS]
    seen.append(make(make_recipe("ddim", "none")))
    for one, other in itertools.combinations(seen, 2):
        assert np.abs(one - other).mean() > 1e-3


def test_outside_the_interval_neither_branch_nor_classifier_acts():
    nowhere = tuple((t, t - 1, "step", False) for t in range(3, -1, -1))
    guided = make(make_recipe("ddim", "all", path=nowhere))
    plain = make(make_recipe("ddim", "none", by_classifier=False))
    np.testing.assert_allclose(guided, plain, atol=1e-6)


def test_the_classifier_acts_below_its_largest_t_alone():
    never = (part("classifier_score", scale=0.4, below=0),)
    always = (part("classifier_score", scale=0.4, below=4),)
    some = make(make_recipe("ddim"))
    plain = make(make_recipe("ddim", by_classifier=False))
    np.testing.assert_allclose(
        make(make_recipe("ddim", transforms=never)), plain, atol=1e-6
    )
    assert np.abs(some - plain).max() > 1e-3
    assert np.abs(make(make_recipe("ddim", transforms=always)) - some).max() > 1e-3


def test_a_negative_class_is_the_other_branch():
    # Away from the class itself there is nothing to lead to: the scale has no effect.
    away = make_recipe("ddim", "free", by_classifier=False)
    own = dataclasses.replace(
        away, condition=(("label", (1,)),), negative=(("label", 1),)
    )
    plain = dataclasses.replace(own, guidance=(), negative=())
    np.testing.assert_allclose(make(own), make(plain), atol=1e-5)
    assert (
        np.abs(make(away) - make(dataclasses.replace(away, negative=own.negative)))[
            0
        ].max()
        > 1e-3
    )


# ---- which class an image has --------------------------------------------------------


def labels_of(recipe, index):
    specs = MIXING.condition_spec
    return recipe.condition_of(np.asarray(index), specs)["label"].tolist()


def test_classes_are_drawn_from_seed_and_number_of_the_image():
    recipe = plain_recipe(drawn=(("label", 3),), seed=5)
    drawn = labels_of(recipe, np.arange(3000))
    assert labels_of(recipe, [2999]) == drawn[-1:]
    assert labels_of(dataclasses.replace(recipe, seed=6), np.arange(50)) != drawn[:50]
    counts = np.bincount(drawn, minlength=3)
    # Binomial: 1,000 ± 26.
    assert np.abs(counts - 1000).max() < 4 * 26
    both = dataclasses.replace(
        recipe,
        drawn=(("label", 3), ("class", 3)),
        transforms=make_recipe().transforms,
    )
    condition = both.condition_of(np.arange(50), LABELLED)
    np.testing.assert_array_equal(condition["class"], condition["label"])


def test_a_number_of_each_class():
    recipe = plain_recipe(labels=(2, 0), repeats=3)
    assert labels_of(recipe, np.arange(8)) == [2, 2, 2, 0, 0, 0, 2, 2]


def test_a_recipe_with_guidance_survives_json():
    recipe = make_recipe("ddim", "all", negative=(("label", 1),), repeats=2)
    assert recipe_lib.Recipe.from_json(recipe.to_json()) == recipe
    assert recipe.shape == SHAPE


def test_an_unconditional_branch_is_led_away_from_without_a_class():
    # No class is left anywhere: the labels of the images do not matter.
    recipe = make_recipe("ddim", "unconditional", by_classifier=False)
    other = dataclasses.replace(recipe, condition=(("label", (1, 2, 0)),))
    np.testing.assert_array_equal(make(recipe), make(other))
