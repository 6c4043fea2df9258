"""Guidance from the command line, by runs of every kind."""

import json
import pathlib
import shutil

import numpy as np
import pytest
import small_runs

from ddpm_jax import main

CLASSIFIER = small_runs.ROOT / "configs" / "digits_classifier.py"


@pytest.fixture(scope="module")
def classifier(first_run, cache, tmp_path_factory):
    """A classifier of three steps for the first run; only to be read."""
    workdir = tmp_path_factory.mktemp("runs") / "judge"
    with small_runs.quick_compilation(cache):
        status = main.main(
            [
                "ddpm-jax",
                f"--config={CLASSIFIER}:{first_run[0]}",
                f"--workdir={workdir}",
                "--config.model.channels=8",
                "--config.model.norm_groups=4",
                "--config.model.channel_mult=1",
                "--config.model.attention_resolutions=",
                "--config.train.batch_size=16",
                "--config.train.steps=3",
                "--config.train.log_every=2",
                "--config.train.validate_every=0",
            ]
        )
    assert status == 0
    return workdir


@pytest.fixture
def sample(tell):
    """Return a function: run and settings → what was said, request, images, labels."""

    def make(run, **settings):
        before = set((run / "samples").glob("*/request.json"))
        told = tell(
            "--mode=sample",
            f"--workdir={run}",
            *(f"--config.sampling.{name}={v}" for name, v in settings.items()),
        )
        made = set((run / "samples").glob("*/request.json")) - before
        if told.status or not made:
            return told, None, None, None
        request = made.pop()
        stored = np.load(request.parent / "samples.npz")
        labels = stored["arr_1"] if "arr_1" in stored.files else None
        return told, json.loads(request.read_text()), stored["arr_0"], labels

    return make


def test_a_classifier_guides_and_its_weights_are_in_the_request(
    trained, classifier, sample
):
    _, _, plain, _ = sample(trained)
    told, request, made, labels = sample(
        trained, classifier=classifier, classifier_scale=50
    )
    assert told.status == 0, told.err
    assert np.any(made != plain)
    assert request["classifier"] == "judge@3"
    assert len(request["classifier_fingerprint"]) == 64
    assert request["classifier_scale"] == 50
    assert labels.tolist() == [i % 10 for i in range(16)]
    assert "judge@3, scale 50" in told.out
    assert "saturated values" in told.out


def test_where_the_other_run_lies_is_not_in_the_request(
    trained, classifier, sample, tmp_path
):
    sample(trained, classifier=classifier)
    moved = pathlib.Path(shutil.copytree(classifier, tmp_path / "other" / "judge"))
    told, request, *_ = sample(trained, classifier=f"{moved}@3")
    assert told.status == 0, told.err
    assert request is None
    assert "already" in told.out


def test_a_weaker_checkpoint_and_the_same_one(trained, sample):
    _, _, plain, _ = sample(trained)
    told, request, made, _ = sample(trained, weaker=f"{trained}@3", weaker_scale=3)
    assert told.status == 0, told.err
    assert np.any(made != plain)
    assert request["weaker"] == f"{trained.name}@3"
    told, *_ = sample(trained, weaker=trained)
    assert told.status == 1
    assert f"{trained.name}@6" in told.err


def test_w_is_the_scale_less_one(trained, sample):
    _, request, made, _ = sample(trained, guidance_w=1.5)
    assert request["guidance_scale"] == 2.5
    assert "guidance_w" not in request
    told, again, *_ = sample(trained, guidance_scale=2.5)
    assert again is None
    assert "already" in told.out
    assert made is not None


def test_a_full_interval_is_none_and_an_empty_one_is_scale_one(trained, sample):
    _, whole, guided, _ = sample(trained, guidance_scale=2)
    _, plain, unguided, _ = sample(trained)
    told, other, *_ = sample(trained, guidance_scale=2, guidance_interval="0,1")
    assert other is None
    assert "already" in told.out
    told, other, *_ = sample(trained, guidance_scale=2, guidance_interval="0.5,0.5")
    assert other is None
    assert "already" in told.out
    told, other, *_ = sample(
        trained,
        guidance_scale=2,
        guidance_interval="0.5,0.5",
        negative="3",
        guidance_rescale=0.5,
    )
    assert other is None
    assert "already" in told.out
    _, some, partly, _ = sample(trained, guidance_scale=2, guidance_interval="0,0.6")
    assert some["guidance_interval"] == [0.0, 0.6]
    assert "guidance_interval" not in {**whole, **plain}
    assert np.any(partly != guided)
    assert np.any(partly != unguided)


def test_classes_at_random_and_by_number(trained, sample):
    told, request, _, labels = sample(trained, labels="random", num_samples=40)
    assert request["labels"] == ["random"]
    assert "drawn" in told.out
    assert len(set(labels.tolist())) > 4
    _, request, _, longer = sample(trained, labels="random", num_samples=50)
    assert request is None
    stored = next((trained / "samples").glob("*random*/samples.npz"))
    np.testing.assert_array_equal(np.load(stored)["arr_1"][:40], labels)
    assert longer is None
    _, _, made, labels = sample(trained, per_class=2, labels="3,7,1")
    assert labels.tolist() == [3, 3, 7, 7, 1, 1]
    assert len(made) == 6


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"guidance_scale": 2, "guidance_w": 1}, ["both", "w=1 is scale 2"]),
        ({"guidance_rescale": 0.5}, ["guidance_rescale=0.5", "no effect"]),
        ({"negative": 3}, ["negative", "no effect"]),
        ({"classifier_scale": 2}, ["classifier_scale=2.0", "sampling.classifier=RUN"]),
        ({"guidance_interval": "0.2,0.4"}, ["guidance_interval", "no effect"]),
        (
            {"guidance_scale": 2, "guidance_interval": "0.8,0.2"},
            ["(0.8, 0.2)", "lower one first"],
        ),
        (
            {"guidance_scale": 2, "guidance_interval": "0,1.5"},
            ["1.5", "shares of T"],
        ),
        (
            {"guidance_scale": 2, "guidance_interval": "0.97,0.99"},
            ["none of the timesteps", "widen"],
        ),
        ({"guidance_scale": 2, "guidance_rescale": 1.5}, ["1.5", "0 … 1"]),
        ({"guidance_scale": 2, "negative": "eleven"}, ["eleven", "0, 1"]),
        ({"labels": "random", "per_class": 3}, ["random", "per_class=3", "keep one"]),
        ({"weaker": "nowhere"}, ["sampling.weaker=nowhere"]),
        ({"classifier": "nowhere"}, ["sampling.classifier=nowhere"]),
    ],
)
def test_refusals(trained, sample, settings, words):
    told, *_ = sample(trained, **settings)
    assert told.status == 1
    assert [word for word in words if word not in told.err] == []
    assert len(told.err.splitlines()) == 1


def test_runs_that_cannot_guide(trained, classifier, sample, tell):
    told, *_ = sample(trained, classifier=trained)
    assert told.status == 1
    assert "no classifier" in told.err
    told, *_ = sample(trained, weaker=classifier)
    assert told.status == 1
    assert "same kind" in told.err
    told, *_ = sample(trained, classifier=f"{classifier}@2")
    assert told.status == 1
    assert "choose one of 3" in told.err
    told, *_ = sample(classifier)
    assert told.status == 1
    assert f"sampling.classifier={classifier}" in told.err


@pytest.fixture
def changed(classifier, tmp_path):
    """Return a function: section, field, value → a classifier that says so."""

    def change(section, field, value):
        other = pathlib.Path(shutil.copytree(classifier, tmp_path / "changed"))
        stored = json.loads((other / "config.json").read_text())
        target = stored[section] if section == "data" else stored["config"][section]
        target[field] = value
        (other / "config.json").write_text(json.dumps(stored))
        return other

    return change


@pytest.mark.parametrize(
    ("section", "field", "value", "words"),
    [
        ("diffusion", "schedule", "cosine", ["schedule", "'cosine'", "'linear'"]),
        ("diffusion", "num_steps", 20, ["num_steps", "20", "24"]),
        ("diffusion", "rescale_timesteps", True, ["rescale_timesteps", "True"]),
        ("data", "shape", [16, 16, 1], ["(16, 16, 1)", "(8, 8, 1)"]),
        ("data", "class_names", list("abcdefghij"), ["a, b", "same order"]),
    ],
)
def test_classifiers_of_something_else(
    trained, changed, sample, section, field, value, words
):
    if field == "class_names":
        names = json.loads((trained / "config.json").read_text())
        names["data"]["class_names"] = [f"digit {i}" for i in range(10)]
        (trained / "config.json").write_text(json.dumps(names))
    told, *_ = sample(trained, classifier=changed(section, field, value))
    assert told.status == 1
    assert [word for word in words if word not in told.err] == []


def test_inpainting_is_guided_too(trained, classifier, tell, tmp_path):
    from PIL import Image

    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "black.png")
    made = []
    for guide in ([], [f"--config.sampling.classifier={classifier}"]):
        shutil.rmtree(trained / "edits", ignore_errors=True)
        told = tell(
            "--mode=inpaint",
            f"--workdir={trained}",
            f"--image={tmp_path / 'black.png'}",
            "--box=0,0,8,4",
            "--method=replace",
            "--config.sampling.labels=3",
            *guide,
            *(["--config.sampling.classifier_scale=50"] if guide else []),
        )
        assert told.status == 0, told.err
        (stored,) = (trained / "edits").glob("*/samples.npz")
        made.append(np.load(stored)["arr_0"])
    assert np.any(made[0] != made[1])


def test_a_negative_class_needs_classes(trained, tell):
    saved = json.loads((trained / "config.json").read_text())
    saved["config"]["model"]["class_conditional"] = False
    saved["config"]["train"]["label_dropout"] = 0.0
    (trained / "config.json").write_text(json.dumps(saved))
    told = tell(
        "--mode=sample",
        f"--workdir={trained}",
        "--config.sampling.guidance_scale=2",
        "--config.sampling.negative=3",
    )
    assert told.status == 1
    assert "sampling.negative='3' on a run without classes" in told.err
