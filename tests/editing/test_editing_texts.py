"""Edits of a run that reads texts: what each frame is told, without making one."""

import dataclasses
import types

import numpy as np
import pytest

from ddpm_jax import config as config_lib
from ddpm_jax.builders import captions, trained_run
from ddpm_jax.builders import data as build_data
from ddpm_jax.builders import guidance as build_guidance
from ddpm_jax.builders import guides as guides_lib
from ddpm_jax.builders import network as build_network
from ddpm_jax.builders import prompts as build_prompts
from ddpm_jax.builders import sampling as build_sampling
from ddpm_jax.core import errors
from ddpm_jax.editing import between, films, latents, plans
from ddpm_jax.runs import checkpoints
from ddpm_jax.text import clip, utf8, words

TOKENIZER = words.from_captions(["a red circle", "a blue square"], 4)
RED, BLUE, SQUARE = "a red circle", "a blue circle", "a blue square"
OF_TEXTS = ("tokens", "token_mask")
FRAMES = 4
PICTURES = plans.Given(
    ("one.png", "other.png"), "two", np.zeros((2, 16, 16, 3), np.uint8)
)


@pytest.fixture
def config():
    """A run of three classes and of texts."""
    config = config_lib.base()
    config.model.update(
        channels=8,
        norm_groups=4,
        channel_mult=(1, 1),
        attention_resolutions=(8,),
        class_conditional=True,
        text_layers=1,
        text_width=8,
        text_heads=2,
    )
    config.train.label_dropout = 0.1
    config.sampling.steps = 3
    config.editing.frames = FRAMES
    return config


def facts_of(tokenizer=TOKENIZER, kept=(RED, BLUE, SQUARE)):
    text = build_data.TextFacts(tokenizer.to_json(), kept)
    return build_data.DataInfo((16, 16, 3), 256, 10, 3, ("x", "y", "z"), "", text)


FACTS = facts_of()


def encoded(*texts):
    return captions.encoded(TOKENIZER, texts)


def told(config, given=None):
    """Return what the frames are told of both ends, by key."""
    recipe = between.plan(config, FACTS, given or plans.Given()).recipe
    return recipe.requested_condition(np.arange(FRAMES))


def is_told(frames, key, value):
    np.testing.assert_array_equal(frames[key], [value] * FRAMES)


# ---- from sample to sample -----------------------------------------------------------


def test_samples_keep_their_class_and_the_text(config):
    config.editing.samples = (1, 5)
    config.sampling.prompts = (BLUE,)
    frames = told(config)
    for key, (row,) in encoded(BLUE).items():
        is_told(frames, key, row)
        assert f"other_{key}" not in frames
    is_told(frames, "label", 1)
    is_told(frames, "other_label", 5 % 3)
    np.testing.assert_allclose(frames["share"], [0, 1 / 3, 2 / 3, 1], rtol=1e-6)


@pytest.mark.parametrize("prompts", [(), (BLUE, "", RED)])
def test_samples_of_two_texts_are_the_two_ends(config, prompts):
    config.editing.samples = (3, 5)
    config.sampling.prompts = prompts
    alone = build_sampling.recipe(config, FACTS).requested_condition(np.array([3, 5]))
    frames = told(config)
    for key in (*OF_TEXTS, "label"):
        one, other = alone[key]
        is_told(frames, key, one)
        is_told(frames, f"other_{key}" if np.any(one != other) else key, other)
    assert "other_tokens" in frames


def test_one_sample_is_between_two_prompts(config):
    config.editing.samples = (4,)
    config.sampling.prompts = (RED, BLUE)
    frames = told(config)
    one, other = encoded(RED, BLUE)["tokens"]
    is_told(frames, "tokens", one)
    is_told(frames, "other_tokens", other)
    is_told(frames, "label", 4 % 3)
    for prompts in ((RED,), (RED, BLUE, SQUARE)):
        config.sampling.prompts = prompts
        with pytest.raises(errors.Refusal, match=r"two prompts|names 3 texts"):
            told(config)


# ---- from picture to picture ---------------------------------------------------------


@pytest.mark.parametrize("method", ["encode", "noised", "noise_map"])
def test_two_prompts_are_the_ends_of_two_pictures(config, method):
    config.editing.method = method
    if method == "noised":
        config.editing.levels = (0.5,)
    config.sampling.labels = ("z",)
    config.sampling.prompts = (RED, BLUE)
    frames = told(config, PICTURES)
    one, other = encoded(RED, BLUE)["tokens"]
    is_told(frames, "tokens", one)
    is_told(frames, "other_tokens", other)
    is_told(frames, "label", 2)
    config.sampling.prompts = (RED,)
    frames = told(config, PICTURES)
    is_told(frames, "tokens", one)
    assert "share" not in frames
    config.sampling.prompts = (RED, BLUE, SQUARE)
    with pytest.raises(errors.Refusal, match="3 prompts between two pictures"):
        told(config, PICTURES)


def test_each_picture_is_encoded_under_its_own_text(config, monkeypatch):
    config.editing.method = "noise_map"
    config.sampling.labels = ("z", "x")
    config.sampling.prompts = (RED, BLUE)
    recipe = between.plan(config, FACTS, PICTURES).recipe
    seen = []
    monkeypatch.setattr(
        latents.noise_maps, "of_pictures", lambda given, *_, **__: seen.append(given)
    )
    inside = types.SimpleNamespace(network=None, mesh=None, params=None)
    opened = types.SimpleNamespace(config=config, trained=inside, weights=inside)
    latents.noise_maps_of(opened, recipe, PICTURES.values, (2, 0), 2)
    found = seen[0].requested_condition(np.arange(2))
    assert found.keys() == {"label", *OF_TEXTS}
    np.testing.assert_array_equal(found["label"], [2, 0])
    np.testing.assert_array_equal(found["tokens"], encoded(RED, BLUE)["tokens"])


def guide(config, facts=FACTS):
    saved = trained_run.SavedRun(
        types.SimpleNamespace(path=types.SimpleNamespace(name="weak")),
        config,
        facts,
        None,
        {},
    )
    return guides_lib.Guide(saved, 1, "abc")


def test_no_other_run_guides_between_two_texts(config, monkeypatch):
    weaker = guide(config.copy_and_resolve_references())
    monkeypatch.setattr(guides_lib, "named", lambda config: {"weaker": weaker})
    config.sampling.update(weaker="weak", weaker_scale=2.0, labels=("z",))
    config.sampling.prompts = (RED, BLUE)
    config.editing.method, config.editing.levels = "noised", (0.5,)
    with pytest.raises(errors.Refusal, match=r"two texts and sampling\.weaker"):
        told(config, PICTURES)
    config.editing.update(kind="morph", method="", samples=())
    with pytest.raises(errors.Refusal, match="weaker=weak with --kind=morph"):
        films.plan(config, FACTS)


def test_a_morph_of_texts_keeps_the_classes(config):
    config.editing.kind = "morph"
    config.sampling.update(labels=("z", "y"), prompts=(RED, BLUE))
    film = films.plan(config, FACTS)
    for frame in film.frames:
        asked = frame.recipe.requested_condition(np.arange(3))
        np.testing.assert_array_equal(asked["label"], [2, 1, 2])
        assert {"tokens", "other_tokens", "share"} <= asked.keys()


# ---- two runs, two tokenizers --------------------------------------------------------

OTHER = words.Words((*TOKENIZER.words[:-1], "zebra"), TOKENIZER.context)


def test_a_weaker_run_reads_the_same_tokens(config):
    config.sampling.weaker = "weak"
    same = guide(config, facts_of(kept=(BLUE,)))
    guides_lib.check(config, FACTS, {"weaker": same})
    other = guide(config, facts_of(OTHER))
    with pytest.raises(errors.Refusal, match="one token is two words"):
        guides_lib.check(config, FACTS, {"weaker": other})
    silent = config.copy_and_resolve_references()
    silent.model.text_layers = 0
    without = dataclasses.replace(FACTS, text=None)
    with pytest.raises(errors.Refusal, match="this run reads none"):
        guides_lib.check(config, FACTS, {"weaker": guide(silent, without)})
    silent.sampling.weaker = "weak"
    with pytest.raises(errors.Refusal, match="this run reads a text"):
        guides_lib.check(silent, without, {"weaker": guide(config)})


class Saved:
    """One checkpoint of one step, of which no more is asked."""

    def __init__(self, folder):
        del folder

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def latest_step(self):
        return 1


def test_weights_are_not_taken_for_other_words(config, monkeypatch):
    source = config.copy_and_resolve_references()
    config.train.init_from = "there"
    network = build_network.network(config, FACTS)
    monkeypatch.setattr(checkpoints, "Checkpoints", Saved)

    def check(facts):
        run_dir = types.SimpleNamespace(checkpoints=None)
        found = trained_run.SavedRun(run_dir, source, facts, None, {})
        monkeypatch.setattr(trained_run, "read", lambda workdir: found)
        trained_run.check_transfer(config, network, FACTS)

    check(facts_of(kept=()))
    with pytest.raises(errors.Refusal, match="a token would be another word"):
        check(facts_of(OTHER))
    # Of another number of words nothing is taken.
    check(facts_of(words.Words((*TOKENIZER.words, "zebra"), TOKENIZER.context)))


# ---- what is not read of a text ------------------------------------------------------


def test_what_is_left_out_of_a_negative_prompt_is_told(config):
    config.sampling.update(guidance_scale=3.0, negative=f"{RED} {BLUE}")
    lines = build_sampling.guidance_lines(config, FACTS, None)
    assert any("has 6 of 4 tokens" in line for line in lines)
    config.sampling.negative = RED
    assert len(build_sampling.guidance_lines(config, FACTS, None)) == 1


def test_what_clip_does_not_read_of_kept_captions_is_told(config, monkeypatch):
    monkeypatch.setattr(clip, "published", lambda path: clip.of_merges([]))
    reader = config_lib.base()
    reader.model.update(kind="clip", text_vocabulary=514, text_context=14)
    config.sampling.classifier = "clip"
    found = {"classifier": guide(reader)}
    lines = build_guidance.described(config, FACTS, found, None)
    cut = [line for line in lines if "of CLIP's 12 tokens" in line]
    # Without merges each letter is a token: 10, 11 and 11 of them.
    assert not cut
    reader.model.text_context = 12
    lines = build_guidance.described(config, FACTS, found, None)
    assert sum("11 of CLIP's 10 tokens" in line for line in lines) == 2


@pytest.mark.parametrize("text", ["🙂", "!!!", " … "])
def test_a_text_without_a_token_is_told(config, text):
    made = TOKENIZER.encode(text)
    assert not made.mask.any()
    assert "nothing that becomes a token" in made.note
    config.sampling.prompts = (RED, text)
    lines = build_prompts.of(config, FACTS).summary()
    assert [line for line in lines if line.startswith("note: ")] == [
        f"note: {made.note}"
    ]
    assert not TOKENIZER.encode("").note
    assert not utf8.Bytes(8).encode(text).note
