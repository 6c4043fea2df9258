"""Transforms in a recipe: each is an entry of a table, here of the tests alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_sampling_sampler import PARAMS, PLAIN_MIXING, SHAPE, Net, make_mesh
from test_sampling_sampler import make_recipe as plain_recipe

from ddpm_jax.core import errors, keys
from ddpm_jax.diffusion import guidance, process, reverse, samplers
from ddpm_jax.sampling import recipe as recipe_lib
from ddpm_jax.sampling import sampler as sampler_lib
from ddpm_jax.sampling import transforms

# Optimization is what could make an image depend on its batch.
pytestmark = pytest.mark.usefixtures("optimized")

DDIM = recipe_lib.part("ddim", eta=0.0)
MASK = np.arange(16).reshape(SHAPE) % 2 == 0
KNOWN = np.linspace(-1, 1, 16, dtype=np.float32).reshape(SHAPE)


def log_prob(params, x, t, condition=None):
    """log p(y | x_t) of a classifier that likes x near its parameter."""
    return -jnp.sum((x - params["centre"]) ** 2, axis=(1, 2, 3))


def classifier(tools, *, scale):
    # Unchecked: what can be refused is refused before the program is compiled.
    return guidance.ClassifierGuidance(
        tools.tables, tools.networks["classifier"], scale, "score"
    )


def keep_known(tools, *, share):
    """The known pixels at every step, as q(x_t | x_0) has them."""
    tables, known = tools.tables, tools.arrays["known"]

    def transform(x, t_next, noise):
        t = jnp.maximum(t_next, 0)
        noised = process.q_sample(tables, jnp.broadcast_to(known, x.shape), t, noise)
        at_end = (t_next < 0).reshape(-1, 1, 1, 1)
        wanted = jnp.where(at_end, known, noised)
        return jnp.where(tools.arrays["mask"], share * wanted + (1 - share) * x, x)

    return transform


def brighten(tools, *, by):
    def transform(denoise):
        def brighter(x, t):
            prediction = denoise(x, t)
            return prediction._replace(x_0=prediction.x_0 + by)

        return brighter

    return transform


@pytest.fixture(autouse=True)
def table(monkeypatch):
    for name, entry in {
        "classifier": transforms.Transform(
            transforms.PREDICTION, classifier, form="score"
        ),
        "known": transforms.Transform(transforms.STEP, keep_known),
        "brighter": transforms.Transform(transforms.DENOISER, brighten),
    }.items():
        monkeypatch.setitem(transforms.TRANSFORMS, name, entry)


def make_recipe(*parts, **options):
    names = ("classifier", "known", "mask")
    prints = tuple((name, "f00d") for name in names)
    given = {"solver": DDIM, "transforms": parts, "fingerprints": prints}
    return plain_recipe(**{**given, **options})


def make(recipe, count=8, batch_size=8, mesh_shape=(1, 1), **given):
    mesh = make_mesh(mesh_shape)
    sampler = sampler_lib.Sampler(recipe, PLAIN_MIXING, mesh, **given)
    parts = [
        sampler.make(
            PARAMS, start=i, stop=min(i + batch_size, count), batch_size=batch_size
        ).images
        for i in range(0, count, batch_size)
    ]
    return np.concatenate(parts)


def of_classifier(centre=0.5):
    return {"classifier": (Net(log_prob), {"centre": jnp.float32(centre)})}


INPAINTING = {"arrays": {"known": KNOWN, "mask": MASK}}


def test_a_classifier_guides_as_the_mathematics_says():
    recipe = make_recipe(recipe_lib.part("classifier", scale=0.3))
    made = make(recipe, others=of_classifier())
    tables = process.tables(recipe.schedule)
    index = np.arange(8)
    denoise = reverse.denoiser(
        tables,
        lambda x, t: PLAIN_MIXING.apply(PARAMS, x, t, {}),
        prediction="noise",
        variance="learned_range",
        x_0_hooks=(reverse.clipping(),),
    )
    guide = guidance.classifier(
        tables,
        lambda x, t: log_prob({"centre": 0.5}, x, t),
        0.3,
        form="score",
    )
    start = keys.key_for(0, "sample/x_T", index=index)
    chain = jax.jit(
        lambda x: (
            samplers.sample(
                tables,
                denoise,
                step=samplers.ddim(0.0),
                x_T=x,
                noise_fn=lambda k: None,
                prediction_transforms=(guide,),
            ).x
        )
    )
    expected = chain(keys.normal_each(start, SHAPE))
    np.testing.assert_allclose(made, expected, atol=2e-5)
    assert np.mean(np.abs(made - make(make_recipe()))) > 0.01


def test_known_pixels_end_as_they_are_given():
    made = make(make_recipe(recipe_lib.part("known", share=1.0)), **INPAINTING)
    np.testing.assert_array_equal(made[:, MASK], np.tile(KNOWN[MASK], (8, 1)))
    assert np.std(made[:, ~MASK], axis=0).min() > 1e-3


@pytest.mark.parametrize(("batch_size", "mesh_shape"), [(3, (1, 1)), (8, (2, 4))])
def test_image_i_is_image_i(batch_size, mesh_shape):
    recipe = make_recipe(
        recipe_lib.part("known", share=0.5), recipe_lib.part("classifier", scale=0.3)
    )
    given = {**INPAINTING, "others": of_classifier()}
    whole = make(recipe, **given)
    parts = make(recipe, batch_size=batch_size, mesh_shape=mesh_shape, **given)
    np.testing.assert_allclose(parts, whole, atol=1e-4)


def test_a_denoiser_is_transformed_before_its_predictions_are_used():
    path = ((0, -1, "step"),)
    plain = make(make_recipe(path=path))
    recipe = make_recipe(recipe_lib.part("brighter", by=0.25), path=path)
    np.testing.assert_allclose(make(recipe), plain + 0.25, atol=1e-6)


def test_numbers_weights_and_arrays_compile_nothing():
    traces = []

    def counting(params, x, t, condition=None):
        traces.append(1)
        return log_prob(params, x, t)

    network = Net(counting)

    def run(scale, centre, share, known):
        recipe = make_recipe(
            recipe_lib.part("classifier", scale=scale),
            recipe_lib.part("known", share=share),
        )
        others = {"classifier": (network, {"centre": jnp.float32(centre)})}
        arrays = {"known": known, "mask": MASK}
        return make(recipe, others=others, arrays=arrays)

    first = run(0.3, 0.5, 0.5, KNOWN)
    compiled = len(traces)
    others = [
        run(0.1, 0.5, 0.5, KNOWN),
        run(0.3, -0.5, 0.5, KNOWN),
        run(0.3, 0.5, 0.7, KNOWN),
        run(0.3, 0.5, 0.5, -KNOWN),
    ]
    assert len(traces) == compiled
    assert all(not np.array_equal(other, first) for other in others)


def test_what_is_used_enters_the_request_by_fingerprint():
    weights = recipe_lib.Weights({}, "ema", "", step=3)
    settings = (recipe_lib.Setting("method", "ddim", "ancestral"),)
    recipe = make_recipe(
        recipe_lib.part("classifier", scale=0.3),
        settings=settings,
        fingerprints=(("classifier", "c0ffee"),),
    )
    other = dataclasses.replace(recipe, fingerprints=(("classifier", "beef"),))
    assert recipe.request(weights)["classifier_fingerprint"] == "c0ffee"
    (told,) = other.differences(recipe.request(weights), weights)
    assert "c0ffee" in told
    assert recipe_lib.Recipe.from_json(recipe.to_json()) == recipe


def test_an_array_without_a_fingerprint_is_a_defect():
    recipe = make_recipe(recipe_lib.part("known", share=1.0), fingerprints=())
    with pytest.raises(ValueError, match="fingerprint"):
        make(recipe, **INPAINTING)


def test_a_form_that_the_solver_does_not_read_is_refused():
    parts = (recipe_lib.part("classifier", scale=0.3),)
    recipe = make_recipe(*parts, solver=recipe_lib.part("ancestral"))
    with pytest.raises(errors.Refusal, match="score"):
        recipe.check()


def test_two_step_transforms_draw_noise_of_their_own(monkeypatch):
    def add(tools, *, scale):
        return lambda x, t_next, noise: x + scale * noise

    entry = transforms.Transform(transforms.STEP, add)
    monkeypatch.setitem(transforms.TRANSFORMS, "add", entry)
    added, taken = recipe_lib.part("add", scale=1.0), recipe_lib.part("add", scale=-1.0)
    path = ((0, -1, "step"),)
    plain = make(make_recipe(path=path))
    both = make(make_recipe(added, taken, path=path))
    assert np.mean(np.abs(both - plain)) > 0.1  # with one stream they would cancel


def test_options_that_a_part_does_not_take_are_refused():
    recipe = make_recipe(solver=recipe_lib.part("ddim", etta=0.5))
    with pytest.raises(errors.Refusal, match="'ddim' takes no option 'etta'"):
        recipe.check()


def test_an_unknown_transform_is_refused():
    with pytest.raises(
        errors.Refusal, match=r"'sharpen'.*brighter, classifier, .*known"
    ):
        make_recipe(recipe_lib.part("sharpen"))


def test_entries_that_are_not_guided_are_the_plain_network_s():
    labelled = dataclasses.replace(
        plain_recipe(labels=(1,), solver=DDIM, guidance=()), seed=1
    )
    from test_sampling_sampler import MIXING, guided, make_images

    steps = labelled.whole_path
    nowhere = tuple((*entry, False) for entry in steps)
    everywhere = tuple((*entry, True) for entry in steps)
    scaled = dataclasses.replace(labelled, guidance=guided(3.0))
    plain = make_images(labelled, MIXING)
    none = make_images(dataclasses.replace(scaled, path=nowhere), MIXING)
    whole = make_images(dataclasses.replace(scaled, path=everywhere), MIXING)
    np.testing.assert_allclose(none, plain, atol=1e-6)
    np.testing.assert_allclose(whole, make_images(scaled, MIXING), atol=1e-6)
    assert np.mean(np.abs(whole - plain)) > 0.01
