"""A classifier of noisy images through every mode, on tiny networks."""

import json
import shutil

import numpy as np
import pytest
import small_runs

from ddpm_jax import main
from ddpm_jax.builders import data as build_data
from ddpm_jax.builders import data_marks, trained_run
from ddpm_jax.builders import network as build_network
from ddpm_jax.modes import train
from ddpm_jax.report import page
from ddpm_jax.runs import directory

SPEC = small_runs.ROOT / "configs" / "digits_classifier.py"
TINY = (
    "--config.model.channels=8",
    "--config.model.norm_groups=4",
    "--config.model.num_heads=1",
    "--config.model.channel_mult=1",
    "--config.model.attention_resolutions=",
    "--config.train.batch_size=16",
    "--config.train.decay=none",
    "--config.train.warmup_steps=0",
    "--config.train.checkpoint_every=3",
    "--config.train.log_every=2",
    "--config.train.validate_every=3",
    "--config.evaluation.num_images=32",
    "--config.evaluation.batch_size=16",
)


def training(guided, workdir, *more):
    config = f"--config={SPEC}:{guided}"
    return [config, *TINY, f"--workdir={workdir}", "--config.train.steps=6", *more]


@pytest.fixture(scope="module")
def guided(tmp_path_factory):
    """The directory of a diffusion run: its config.json is all that is needed."""
    workdir = tmp_path_factory.mktemp("guided") / "digits"
    config = main.parse(["ddpm-jax", *small_runs.TINY, f"--workdir={workdir}"]).config
    dataset = build_data.dataset(config, "train")
    facts = build_data.DataInfo.of(dataset)
    network = build_network.network(config, facts)
    run_dir = directory.RunDir.create(workdir)
    marks = data_marks.check(None, facts, dataset)
    train.write_config(run_dir, config, facts, network, marks)
    return workdir


@pytest.fixture(scope="module")
def classifier(guided, cache, tmp_path_factory):
    """The directory of a finished classifier; only to be read."""
    workdir = tmp_path_factory.mktemp("classifiers") / "first"
    with small_runs.quick_compilation(cache):
        assert main.main(["ddpm-jax", *training(guided, workdir)]) == 0
    return workdir


def test_process_and_data_stand_in_its_own_config(classifier, guided):
    given = json.loads((guided / "config.json").read_text())
    stored = json.loads((classifier / "config.json").read_text())
    config, theirs = stored["config"], given["config"]
    assert config["model"]["guides"] == str(guided)
    assert config["model"]["kind"] == "classifier"
    for name in ("schedule", "num_steps", "beta_start", "betas", "rescale_timesteps"):
        assert config["diffusion"][name] == theirs["diffusion"][name]
    assert config["diffusion"]["num_steps"] == small_runs.T
    # What a classifier has no use for stays as usual.
    assert config["diffusion"]["variance"] == "fixed_large"
    assert config["data"] == theirs["data"]
    assert stored["data"] == given["data"]
    assert config["train"]["ema_decay"] == []


def test_records_and_report_tell_accuracies_by_quarter_of_t(classifier):
    records = small_runs.metrics(classifier)
    training_records = [r for r in records if "loss" in r]
    validations = [r for r in records if "validation_loss" in r]
    assert [r["step"] for r in validations] == [3, 6]
    for split in ("validation", "training_images"):
        for term in ("loss", "accuracy", "top5_accuracy"):
            for part in ("", "_q0", "_q1", "_q2", "_q3"):
                assert validations[0][f"{split}_{term}{part}"] >= 0
    assert {"accuracy", "accuracy_q3", "top5_accuracy_q0"} <= training_records[0].keys()
    text = (classifier / "report.html").read_text()
    for told in (
        "Accuracy in training",
        "Accuracy on test images",
        "Accuracy, training − test images",
        "Measure accuracy by noise level",
        "--config.sampling.classifier=",
    ):
        assert told in text
    for not_told in ("noise prediction", "Make samples", "Samples while training"):
        assert not_told not in text


def test_it_goes_on_to_the_bit_without_the_run_that_it_guides(
    tell, guided, classifier, tmp_path
):
    other = shutil.copytree(guided, tmp_path / "guided")
    workdir = tmp_path / "classifier"
    half = training(other, workdir)
    half[half.index("--config.train.steps=6")] = "--config.train.steps=3"
    assert tell(*half).status == 0
    shutil.rmtree(other)
    told = tell(f"--workdir={workdir}", "--config.train.steps=6")
    assert told.status == 0, told.err
    assert "EMA none" in told.out
    small_runs.assert_same_bits(
        small_runs.state_of(workdir), small_runs.state_of(classifier)
    )
    assert told.lines[-1] == (
        "guide samples with it: python -m ddpm_jax.main --mode=sample "
        f"--workdir={other} --config.sampling.classifier={workdir}"
    )


def test_random_crops_of_other_images_of_the_same_classes(tell, guided, tmp_path):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (60, 20, 16, 1), np.uint8)

    def attempt(*fields, classes=10):
        path = tmp_path / f"{classes}.npz"
        np.savez(path, arr_0=images, arr_1=np.arange(60) % classes)
        data = ("name=npz", f"path={path}", "crop=random", *fields)
        more = [f"--config.data.{field}" for field in data]
        arguments = training(guided, tmp_path / "run", *more)
        return tell(*arguments, "--config.train.steps=3")

    told = attempt("image_size=12")
    assert "images are [12, 12, 1] and those of" in told.err
    assert "which it is to guide, [8, 8, 1]" in told.err
    told = attempt("image_size=8", classes=5)
    assert "classes are ('0', '1', '2', '3', '4') and those of" in told.err
    told = attempt("image_size=8")
    assert told.status == 0, told.err
    losses = [r["loss"] for r in small_runs.metrics(tmp_path / "run") if "loss" in r]
    assert np.isfinite(losses).all()


def test_what_guidance_needs_of_it_is_there(classifier):
    saved = trained_run.read(classifier)
    assert saved.facts.class_names == tuple("0123456789")
    trained = trained_run.open_run(saved)
    weights = trained.weights("auto", field="sampling.weights")
    assert weights.kind == "raw"
    assert "no average" in weights.why
    images, t = np.zeros((3, *saved.facts.shape), np.float32), np.array([0, 5, 9])
    logits = trained.network.apply(weights.params, images, t, {}, dropout_keys=None)
    assert logits.shape == (3, 10)
    with pytest.raises(ValueError, match="'ema': this run keeps no average"):
        trained.weights("ema", field="sampling.weights")


def test_evaluation_writes_a_card_of_the_accuracy_by_noise_level(
    tell, classifier, tmp_path
):
    workdir = shutil.copytree(classifier, tmp_path / "run")
    told = tell("--mode=evaluate", f"--workdir={workdir}")
    assert told.status == 0, told.err
    (path,) = (workdir / "evaluation").glob("accuracy_*.json")
    card = json.loads(path.read_text())
    assert card["metric"] == "accuracy"
    assert len(card["by_t"]["timestep"]) == 16
    assert card["value"] == pytest.approx(np.mean(card["by_t"]["accuracy"]))
    assert 0 < card["standard_error"] < 0.2
    assert 0 <= card["clean"]["accuracy"] <= card["clean"]["top5_accuracy"] <= 1
    assert card["protocol"]["num_images"] == 32
    again = tell("--mode=evaluate", f"--workdir={workdir}")
    assert "scored already" in again.out
    page.write(trained_run.read(workdir).run_dir)
    assert "Test images named right" in (workdir / "report.html").read_text()


def test_it_can_be_planned(tell, guided, tmp_path):
    arguments = training(guided, tmp_path / "none")
    told = tell("--mode=plan", *arguments)
    assert told.status == 0, told.err
    assert "state on each device" in told.out
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_a_run_without_an_average_samples_from_its_raw_weights(tell, tmp_path):
    """A U-Net may do without one too."""
    workdir = tmp_path / "run"
    told = tell(
        *small_runs.TINY,
        f"--workdir={workdir}",
        "--config.train.ema_decay=",
        "--config.train.steps=2",
        "--config.train.sample_every=2",
        "--config.train.validate_every=2",
        "--config.train.evaluate_every=0",
    )
    assert told.status == 0, told.err
    assert "samples of raw weights: " in told.out
    assert "validation loss of the raw weights" in told.out
    told = tell("--mode=sample", f"--workdir={workdir}")
    assert told.status == 0, told.err
    assert "raw weights, for the run keeps no average" in told.out


# ---- refusals ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (
            ["--mode=sample"],
            ["'classifier'", "--workdir={guided} --config.sampling.classifier={own}"],
        ),
        (["--mode=diagnose"], ["diagnosing", "--mode=evaluate"]),
        (
            ["--mode=evaluate", "--config.evaluation.metric=bits_per_dim"],
            ["metric=bits_per_dim", "'classifier'", "accuracy"],
        ),
        (
            ["--mode=evaluate", "--config.evaluation.samples=/none.npz"],
            ["/none.npz", "accuracy is of a classifier's run"],
        ),
        (
            ["--config.train.sample_every=5"],
            ["train.sample_every=5", "no meaning for a classifier", "set it to 0"],
        ),
    ],
)
def test_what_a_classifier_cannot_do_is_refused(
    tell, classifier, guided, arguments, parts
):
    before = small_runs.content(classifier)
    told = tell(f"--workdir={classifier}", *arguments)
    assert told.status == 1
    for part in parts:
        assert part.format(guided=guided, own=classifier) in told.err
    assert small_runs.content(classifier) == before


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        ("diffusion.num_steps=25", ["num_steps=25", "which has 24"]),
        ("diffusion.rescale_timesteps=True", ["True", "has False"]),
        ("diffusion.schedule=cosine", ["'cosine'", "has 'linear'"]),
        ("model.class_conditional=True", ["class_conditional=True", "set it to False"]),
        ("train.label_dropout=0.1", ["train.label_dropout=0.1", "set it to 0.0"]),
        ("diffusion.loss=hybrid", ["diffusion.loss='hybrid'", "set it to 'simple'"]),
        ("diffusion.prediction=v", ["diffusion.prediction='v'", "set it to 'noise'"]),
        ("train.evaluate_every=5", ["evaluate_every=5", "set it to 0"]),
        ("model.resample=pool", ["resample='pool'", "set it to 'conv'"]),
        ("model.channel_mult=1,1,1,1,1", ["8", "16"]),
        ("model.pool=max", ["pool", "'max'", "attention"]),
        ("model.guides=/nowhere", ["model.guides=/nowhere", "no run"]),
    ],
)
def test_what_contradicts_is_refused_before_anything_is_written(
    tell, guided, tmp_path, more, parts
):
    changes = [f"--config.{more}"]
    told = tell(*training(guided, tmp_path / "run"), *changes)
    assert told.status == 1
    for part in parts:
        assert part in told.err
    assert len(told.err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_only_diffusion_runs_that_are_there_are_guided(tell, classifier, tmp_path):
    told = tell(*training(classifier, tmp_path / "run"))
    assert told.status == 1
    assert "is a run of model.kind='classifier'" in told.err
    told = tell(*training(tmp_path, tmp_path / "run"))
    assert told.status == 1
    assert f"model.guides={tmp_path}: no run in" in told.err
    told = tell(f"--config={SPEC}")
    assert told.status == 1
    assert "digits_classifier:runs/digits_unconditional" in told.err


@pytest.mark.parametrize("labels", [None, np.zeros(60, np.int64)])
def test_data_without_classes_to_tell_apart_is_refused(tell, guided, tmp_path, labels):
    arrays = {"arr_0": np.zeros((60, 8, 8, 1), np.uint8)}
    if labels is not None:
        arrays["arr_1"] = labels
    np.savez(tmp_path / "data.npz", **arrays)
    data = ("name=npz", f"path={tmp_path / 'data.npz'}")
    more = [f"--config.data.{field}" for field in data]
    told = tell(*training(guided, tmp_path / "run", *more))
    assert told.status == 1
    assert "at least 2 classes" in told.err
    assert "data.labels" in told.err


def test_the_table_of_refused_fields_names_fields():
    usual = build_network.config_lib.base()
    for path in (
        *build_network.NOT_OF_CLASSIFIERS,
        *build_network.NOT_OF_THEIR_TRAINING,
    ):
        section, name = path.split(".")
        assert name in usual[section]
