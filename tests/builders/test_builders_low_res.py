"""What an upsampler enlarges: what fits, what goes along, the noise on it."""

import dataclasses

import numpy as np
import pytest

from ddpm_jax import config as config_lib
from ddpm_jax.builders import cascade, low_res, prompts
from ddpm_jax.builders import data as build_data
from ddpm_jax.builders import network as build_network
from ddpm_jax.builders import sampling as build_sampling
from ddpm_jax.core import conditions, errors
from ddpm_jax.data import given_images
from ddpm_jax.evaluation import enlarging
from ddpm_jax.sampling import recipe as recipe_lib
from ddpm_jax.text import tokenizers

FACTS = build_data.DataInfo((8, 12, 1), 256, 100, 3, ("cat", "dog", "owl"), "…")
WEIGHTS = recipe_lib.Weights({}, "ema", "EMA weights", step=3)
RNG = np.random.default_rng(0)
SMALL = RNG.integers(0, 256, (7, 4, 6, 1)).astype(np.uint8)


def upsampler(**sampling):
    config = config_lib.base()
    config.model.kind = "upsampler"
    config.model.class_conditional = True
    config.data.low_res_factor = 2
    config.diffusion.num_steps = 40
    config.sampling.update(sampling)
    return config


def of_pictures(config, images=SMALL, facts=FACTS, **options):
    pictures = given_images.GivenImages(images, **options)
    return low_res.of_pictures(config, facts, pictures, "photos")


def recipe_of(config, source):
    given = low_res.given(config, FACTS, source)
    return build_sampling.recipe(config, FACTS, given=given), given


def condition_of(config, source, index):
    recipe, given = recipe_of(config, source)
    config.model.update(channels=32, channel_mult=(1,), attention_resolutions=())
    specs = build_network.network(config, FACTS).condition_spec
    return recipe.condition_of(np.asarray(index), specs, given(np.asarray(index)))


def test_images_of_bytes_become_values_as_the_papers_read_them():
    """x/127.5 − 1, with no other rounding: what Improved DDPM, ADM and GLIDE do."""
    config = upsampler(labels=("cat",))
    found = condition_of(config, of_pictures(config), [2, 0])
    wanted = SMALL[[2, 0]].astype(np.float64) / 127.5 - 1
    np.testing.assert_allclose(found["low_res"], wanted, atol=1e-7)


def test_labels_are_those_of_the_images_or_those_asked_for():
    config = upsampler()
    source = of_pictures(config, labels=np.array([2, 0, 1, 2, 1, 0, 0]))
    assert condition_of(config, source, [0, 3, 1])["label"].tolist() == [2, 2, 0]
    source = of_pictures(
        config, labels=np.array([1, 0, 0, 0, 0, 0, 0]), class_names=("cat", "owl")
    )
    assert condition_of(config, source, [0, 1])["label"].tolist() == [2, 0]
    config = upsampler(labels=("owl",))
    assert condition_of(config, of_pictures(config), [0, 1])["label"].tolist() == [2, 2]


def test_whatever_the_source_knows_goes_along():
    """Tokens of a prompt, for instance, before those that the upsampler would take."""
    config = upsampler(labels=("cat", "dog", "owl"))
    plain = of_pictures(config)

    def of(index):
        return {**plain.of(index), "tokens": np.stack([index, index + 1], axis=1)}

    source = dataclasses.replace(plain, of=of, carried=frozenset(["tokens"]))
    recipe, given = recipe_of(config, source)
    recipe = dataclasses.replace(
        recipe, condition=(*recipe.condition, ("tokens", ((9, 9),)))
    )
    specs = {
        "low_res": conditions.Spec((4, 6, 1), "float32"),
        "tokens": conditions.Spec((2,), "int32"),
        "label": conditions.Spec((), "int32", count=3),
    }
    index = np.array([4, 0])
    found = recipe.condition_of(index, specs, given(index))
    assert found["tokens"].tolist() == [[4, 5], [0, 1]]
    assert found["label"].tolist() == [1, 0]  # as asked: the source has none
    assert prompts.of(config, FACTS, given) is None


def test_an_upsampler_without_classes_leaves_labels_out():
    config = upsampler()
    config.model.class_conditional = False
    source = of_pictures(config, labels=np.array([9] * 7))
    assert condition_of(config, source, [0]).keys() == {"low_res"}


@pytest.mark.parametrize(
    ("images", "options", "words"),
    [
        (SMALL[:, :, :4], {}, "photos has images of 4x4 and the .* give .* of 4x6"),
        (SMALL.repeat(3, axis=-1), {}, "images of 3 channels .* give images of 1"),
        (SMALL, {"labels": np.array([3] * 7)}, "label 3 and the upsampler 3 classes"),
        (
            SMALL,
            {"labels": np.array([0] * 7), "class_names": ("fox",)},
            "a folder 'fox' and the upsampler the classes cat, dog, owl",
        ),
    ],
)
def test_pictures_that_do_not_fit(images, options, words):
    with pytest.raises(errors.Refusal, match=words):
        of_pictures(upsampler(), images, **options)


def test_an_imported_upsampler_takes_any_whole_fraction():
    config = upsampler()
    config.data.low_res_factor = 0
    assert of_pictures(config).shape == (4, 6, 1)
    assert of_pictures(config, SMALL[:, :2, :3]).shape == (2, 3, 1)
    for wrong in (SMALL[:, :, :4], SMALL.repeat(2, axis=1).repeat(2, axis=2)):
        with pytest.raises(errors.Refusal, match="a whole fraction of 8x12"):
            of_pictures(config, wrong)


def test_labels_twice_and_images_too_few():
    config = upsampler(labels=("cat",))
    with pytest.raises(errors.Refusal, match=r"says of which class each .* leave it"):
        of_pictures(config, labels=np.array([0] * 7))
    _, given = recipe_of(config, of_pictures(config))
    given.check_count(7)
    with pytest.raises(errors.Refusal, match="num_samples=8: photos holds 7 images"):
        given.check_count(8)


def test_classes_of_two_runs_are_the_same():
    low_res.check_classes(FACTS, ("cat", "dog", "owl"), "runs/small")
    low_res.check_classes(FACTS, ("0", "1", "2"), "an imported run")
    for names in (("dog", "cat", "owl"), ("cat", "dog"), ("0", "1")):
        with pytest.raises(errors.Refusal, match="the same, in the same order"):
            low_res.check_classes(FACTS, names, "runs/small")


def test_an_upsampler_needs_images_and_others_take_none():
    with pytest.raises(errors.Refusal, match="nothing says which images are enlarged"):
        build_sampling.recipe(upsampler(), FACTS)
    config = upsampler(low_res=("runs/small",))
    config.model.kind, config.data.low_res_factor = "unet", 0
    with pytest.raises(errors.Refusal, match=r"runs/small .*this run enlarges nothing"):
        build_sampling.recipe(config, FACTS)
    config = upsampler()
    config.model.kind = "unet"
    with pytest.raises(errors.Refusal, match="reads no smaller images: set"):
        build_network.network(config, FACTS)


def test_runs_stand_before_what_is_enlarged(tmp_path):
    config = upsampler(low_res=("runs/small", str(tmp_path)))
    with pytest.raises(errors.Refusal, match="runs/small is named before it"):
        cascade.source(config, FACTS)


def test_images_from_python_are_bytes():
    config = upsampler()
    with pytest.raises(errors.Refusal, match=r"low_res is float32.*give uint8 images"):
        cascade.source(config, FACTS, images=SMALL.astype(np.float32))
    assert cascade.source(config, FACTS, images=SMALL).count == 7


@pytest.mark.parametrize(
    ("sampling", "is_told"),
    [
        ({}, False),
        ({"labels": ("owl",)}, True),
        ({"per_class": 2}, True),
        ({"guidance_scale": 0.0}, True),
        ({"guidance_scale": 2.0}, False),
    ],
)
def test_pictures_without_labels_need_some(sampling, is_told):
    config = upsampler(**sampling)
    config.train.label_dropout = 0.1  # guidance needs it
    if is_told:
        recipe_of(config, of_pictures(config))
        return
    with pytest.raises(errors.Refusal, match=r"photos does not say .* cat, dog, owl"):
        recipe_of(config, of_pictures(config))


def of_texts(**sampling):
    """Return config and facts of an upsampler of texts."""
    config = upsampler(**sampling)
    config.model.update(class_conditional=False, text_layers=1, text_width=8)
    made = tokenizers.make("words", captions=("red dot",))
    text = build_data.TextFacts(made.to_json(), ("red dot",))
    return config, dataclasses.replace(FACTS, text=text)


def test_pictures_without_texts_need_a_prompt():
    """The captions that a run keeps are of other images."""
    config, facts = of_texts()
    given = low_res.given(config, facts, of_pictures(config))
    with pytest.raises(errors.Refusal, match=r'photos does not say .*--prompt=""'):
        build_sampling.recipe(config, facts, given=given)
    for prompt in ("", "red dot"):
        config.sampling.prompts = (prompt,)
        assert prompts.of(config, facts, given).texts == (prompt,)
        build_sampling.recipe(config, facts, given=given)
    config.sampling.update(prompts=(), guidance_scale=0.0)  # tells no text
    config.train.label_dropout = 0.1
    build_sampling.recipe(config, facts, given=given)


# ---- request -------------------------------------------------------------------------


def test_what_is_enlarged_is_in_request_and_tag():
    config = upsampler()
    sources = [
        of_pictures(config, labels=np.array([0] * 7)),
        of_pictures(config, SMALL + np.uint8(1), labels=np.array([0] * 7)),
        of_pictures(config, labels=np.array([1] * 7)),
    ]
    recipes = [recipe_of(config, source)[0] for source in sources]
    assert len({recipe.tag(WEIGHTS) for recipe in recipes}) == 3
    request = recipes[0].request(WEIGHTS)
    assert request["low_res"] == f"photos.{sources[0].fingerprint[:8]}"
    assert request["low_res_fingerprint"] == sources[0].fingerprint


# ---- noise ---------------------------------------------------------------------------


def noisy(**sampling):
    config = upsampler(labels=("cat",), **sampling)
    config.model.low_res_noise = True
    return config


def test_noise_is_that_of_the_level_and_of_the_image_alone():
    images = np.full((4000, 4, 6, 1), 255, np.uint8)
    config = noisy(low_res_t=30)
    source = of_pictures(config, images)
    found = condition_of(config, source, np.arange(4000))
    np.testing.assert_array_equal(found["low_res_level"], 30)
    betas = np.linspace(1e-4, 0.02, 40) * 25  # the linear schedule at 40 steps
    alpha_bar = np.prod(1 - betas[:30])
    values = found["low_res"]
    error = np.sqrt(1 - alpha_bar) / np.sqrt(values.size)
    assert abs(values.mean() - np.sqrt(alpha_bar)) < 5 * error
    assert values.std() == pytest.approx(np.sqrt(1 - alpha_bar), rel=0.01)
    for index in ([17, 3999, 5], [17, 5, 17]):
        part = condition_of(config, source, index)
        np.testing.assert_array_equal(part["low_res"], values[np.asarray(index)])


def test_without_noise_the_images_are_as_given():
    config = noisy()
    found = condition_of(config, of_pictures(config), [1])
    np.testing.assert_array_equal(found["low_res_level"], 0)
    np.testing.assert_allclose(found["low_res"], SMALL[[1]] / 127.5 - 1, atol=1e-6)


def test_a_deviation_is_the_nearest_level():
    config = noisy(low_res_sigma=0.5)
    level = low_res.noise_level(config)
    betas = np.linspace(1e-4, 0.02, 40) * 25
    alpha_bar = np.cumprod(1 - betas)
    sigmas = np.sqrt((1 - alpha_bar) / alpha_bar)
    assert level - 1 == np.abs(sigmas - 0.5).argmin()
    source = of_pictures(config)
    by_sigma, by_t = (recipe_of(c, source)[0] for c in (config, noisy(low_res_t=level)))
    assert by_sigma == by_t
    assert by_t.request(WEIGHTS)["low_res_t"] == level
    (told,) = low_res.described(config, low_res.given(config, FACTS, source))[1:]
    assert f"t = {level} of 40" in told


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (upsampler(low_res_t=3), "not trained with noise"),
        (upsampler(low_res_sigma=0.3), "not trained with noise"),
        (noisy(low_res_t=3, low_res_sigma=0.3), "are both given: keep one"),
        (noisy(low_res_t=41), "the process has 40 steps; give 0 … 40"),
        # The linear schedule at 40 steps: its first β is 0.0025, √(0.0025/0.9975) is
        # 0.05006, and no deviation exceeds 600 (see the test above).
        (noisy(low_res_sigma=0.02), r"low_res_sigma=0\.02: .* 0\.0501 … .* 0 for no"),
        (noisy(low_res_sigma=1e4), r"low_res_sigma=10000: .* give one of them"),
    ],
)
def test_noise_that_the_run_does_not_know(config, words):
    with pytest.raises(errors.Refusal, match=words):
        low_res.given(config, FACTS, of_pictures(upsampler()))


def test_the_network_is_told_the_level():
    config = noisy()
    config.model.update(channels=8, channel_mult=(1,), norm_groups=4, num_heads=1)
    config.model.update(num_res_blocks=1, attention_resolutions=())
    network = build_network.network(config, FACTS)
    spec = network.condition_spec["low_res_level"]
    assert (spec.shape, spec.count) == ((), 41)
    plain = dataclasses.replace(network, condition_spec={})
    assert "level_embedding" in plain.shapes
    config.model.low_res_noise = False
    assert "level_embedding" not in build_network.network(config, FACTS).shapes


# ---- images of the data --------------------------------------------------------------


def test_images_of_the_data_are_drawn_several_times_each():
    config = config_lib.base()
    config.model.kind = "upsampler"
    config.data.low_res_factor = 2
    dataset = build_data.dataset(config, "test")
    source = low_res.of_dataset(dataset, repeats=3)
    assert source.shape == (4, 4, 1)
    found = source.of(np.array([0, 2, 3, 3 * len(dataset) + 1]))
    wanted = dataset.fetch([0, 0, 1, 0])
    np.testing.assert_array_equal(found["low_res"], wanted["low_res"])
    np.testing.assert_array_equal(found["label"], wanted["label"])
    assert source.fingerprint != low_res.of_dataset(dataset).fingerprint


def test_stages_of_one_seed_draw_different_noise():
    config = noisy(low_res_t=30)
    recipe, _ = recipe_of(config, of_pictures(config))
    other = dataclasses.replace(FACTS, shape=(16, 24, 1))
    given = low_res.given(config, FACTS, of_pictures(config))
    larger = build_sampling.recipe(config, other, given=given)
    after = low_res.given(config, other, of_pictures(config))
    noise = [one(np.array([0]))["low_res"] for one in (given, after)]
    assert np.abs(noise[0] - noise[1]).max() > 0.1
    seeds = {config.sampling.seed, recipe.seed, larger.seed}
    assert len(seeds) == 3
    assert recipe.request(WEIGHTS)["seed"] == config.sampling.seed


# ---- scores --------------------------------------------------------------------------


def scored(**sampling):
    """Return config and facts of an upsampler of digits."""
    config = upsampler(**sampling)
    config.data.name = "digits"
    return config, build_data.DataInfo.of(build_data.dataset(config, "train"))


@pytest.mark.parametrize(
    ("sampling", "words"),
    [
        ({"labels": ("3",)}, r"labels=3: psnr .* --config.sampling.labels= where"),
        ({"per_class": 2}, r"per_class=2: psnr .* --config.sampling.per_class=0 where"),
        ({"low_res": ("a", "b")}, r"low_res=a,b: psnr .* --config.sampling.low_res= "),
    ],
)
def test_scores_on_the_test_images_take_no_others(sampling, words):
    config, facts = scored(**sampling)
    with pytest.raises(errors.Refusal, match=words):
        enlarging.prepare(config, facts, ("psnr",))


def test_one_image_has_no_standard_error():
    config, facts = scored()
    config.evaluation.num_images = 1
    with pytest.raises(errors.Refusal, match=r"of 1 test image: .* at least 2"):
        enlarging.prepare(config, facts, ("psnr",))
    config.evaluation.num_images = 2
    assert enlarging.prepare(config, facts, ("psnr",)).num_images == 2


def test_scores_of_an_upsampler_of_texts_give_it_the_captions():
    config, _ = of_texts()
    config.data.update(name="shapes", image_size=(16,), tokenizer="words")
    dataset = build_data.dataset(config, "train")
    made = tokenizers.make("words", captions=dataset.all_captions())
    text = build_data.TextFacts(made.to_json(), ())
    facts = dataclasses.replace(build_data.DataInfo.of(dataset), text=text)
    config.evaluation.num_images = 2
    given = enlarging.prepare(config, facts, ("psnr",)).given
    assert {"tokens", "token_mask"} <= given.source.carried
    assert given(np.array([0]))["tokens"].shape == (1, made.context)
