"""Metrics of samples from end to end: the numbers, their cards, what is refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from PIL import Image
from sklearn import datasets
from small_runs import content, metrics

from ddpm_jax import config as config_lib
from ddpm_jax.builders import data as build_data
from ddpm_jax.config import rules
from ddpm_jax.core import errors
from ddpm_jax.data import sources
from ddpm_jax.evaluation import (
    feature_networks,
    feature_pass,
    image_sets,
    references,
    sample_scorer,
)
from ddpm_jax.metrics import features as features_lib
from ddpm_jax.metrics import frechet, proxy, statistics, table
from ddpm_jax.modes import evaluate as mode
from ddpm_jax.runtime import sharding
from ddpm_jax.sampling import archive as archive_lib

RANDOM = np.random.default_rng(0)
PHOTOS = RANDOM.integers(0, 256, (60, 12, 10, 3), np.uint8)
OTHERS = np.clip(PHOTOS[::-1] // 2 + 40, 0, 255).astype(np.uint8)
WIDTHS = {"pool": 5, "spatial": 4, "logits": 3}
MATRICES = {
    name: RANDOM.normal(size=(PHOTOS[0].size, width)).astype(np.float32) / 10
    for name, width in WIDTHS.items()
}


def stand_in(params, images):
    flat = images.reshape(len(images), -1).astype(jnp.float32) / 255
    return {name: flat @ matrix for name, matrix in params.items()}


def features(name, images):
    return images.reshape(len(images), -1) / 255.0 @ MATRICES[name].astype(np.float64)


def distance(first, second):
    """Return the Fréchet distance by SciPy's matrix root."""
    covariances = [np.cov(rows, rowvar=False) for rows in (first, second)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1])
    shift = first.mean(axis=0) - second.mean(axis=0)
    return shift @ shift + np.trace(sum(covariances) - 2 * root.real)


@pytest.fixture
def inception(monkeypatch):
    """A small network in the place of the one whose weights are not here."""

    def published(path, rule):
        del path
        network = features_lib.FeatureNetwork(
            features_lib.INCEPTION, "abc", rule, MATRICES, stand_in
        )
        return feature_networks.Source(rule, lambda: (network, []))

    monkeypatch.setattr(feature_networks, "published", published)


@pytest.fixture
def photos(tmp_path):
    """Two files of images, as paths."""
    for name, images in (("photos", PHOTOS), ("others", OTHERS)):
        np.savez(tmp_path / f"{name}.npz", images)
    return str(tmp_path / "photos.npz"), str(tmp_path / "others.npz")


def compare(first, second, metric, **fields):
    """Score files without a run; return what the cards say."""
    config = config_lib.base()
    config.evaluation.metric = metric
    config.evaluation.samples = str(first)
    config.evaluation.reference = str(second)
    for name, value in fields.items():
        config.evaluation[name] = value
    rules.check_values(config)
    mode.run(config, "")


def cards(folder):
    found = {}
    for path in (folder / "evaluation").glob("*.json"):
        card = json.loads(path.read_text())
        found[card["metric"]] = card
    return found


def evaluate(tell, workdir, metric, *arguments, **fields):
    given = [f"--config.evaluation.{name}={value}" for name, value in fields.items()]
    return tell(
        "--mode=evaluate",
        f"--workdir={workdir}",
        f"--config.evaluation.metric={metric}",
        *arguments,
        *given,
    )


# ---- a run ---------------------------------------------------------------------------


def training_images():
    """Return the run's training split; it is of scikit-learn's digits, 0 … 16."""
    dataset = sources.load("digits", "train", test_fraction=0.2)
    images = np.round((dataset.fetch(np.arange(1438))["image"] + 1) * 127.5)
    all_digits = np.round(datasets.load_digits().images[..., None] * 255 / 16)
    known = {image.tobytes() for image in all_digits.astype(np.uint8)}
    assert {image.tobytes() for image in images.astype(np.uint8)} <= known
    return images.astype(np.uint8)


def test_a_run_is_scored_by_its_samples(trained, tell):
    told = evaluate(tell, trained, "proxy_fd_random", num_samples=80)
    assert told.status == 0, told.err
    card = cards(trained)["proxy_fd_random"]
    assert card.keys() >= {"metric", "value", "unit", "standard_error", "protocol"}
    assert f"proxy_fd_random {card['value']:.4f} ± " in told.out
    protocol = card["protocol"]
    expected = {
        "num_samples": 80,
        "sampler": "ancestral",
        "steps": 4,
        "eta": 0,
        "guidance_scale": 1,
        "weights": "ema",
        "dtype": "float32",
        "seed": 0,
        "checkpoint": 6,
        "num_reference": 1438,
        "reference": "digits/train",
        "feature_network": "proxy_fd_random",
        "resize": "",
    }
    assert {name: protocol[name] for name in expected} == expected
    assert len(protocol["reference_hash"]) == 64
    assert len(protocol["feature_network_fingerprint"]) == 64
    assert {"versions", "notes"} <= protocol.keys()
    # The same number by SciPy, from the samples that were kept.
    network = proxy.random_network((8, 8, 1))
    (archive,) = trained.glob("samples/*/samples.npz")
    made = np.load(archive)["arr_0"]
    assert made.shape == (80, 8, 8, 1)
    found = [
        np.asarray(network.apply(network.params, images)["pool"], np.float64)
        for images in (training_images(), made)
    ]
    np.testing.assert_allclose(card["value"], distance(*found), rtol=1e-3)
    # Again, nothing is computed and nothing changes.
    before = content(trained)
    told = evaluate(tell, trained, "proxy_fd_random", num_samples=80)
    assert "scored already" in told.out
    assert content(trained) == before


def test_training_scored_the_same_images(trained, tell):
    (record,) = [r for r in metrics(trained) if "proxy_fd" in r]
    assert record["step"] == 6
    evaluate(tell, trained, "proxy_fd", num_samples=96)
    card = cards(trained)["proxy_fd"]
    # Pixels may differ by one between two sizes of batch.
    np.testing.assert_allclose(card["value"], record["proxy_fd"], rtol=1e-2)


def test_an_interruption_loses_no_image_and_no_score(trained, tell, interrupted):
    def score():
        return evaluate(tell, trained, "proxy_fd_random", num_samples=40)

    told = interrupted(archive_lib.SampleStore, "add", score)
    assert (told.status, "after 16 of 40 images" in told.out) == (0, True)
    told = interrupted(references, "load_statistics", score)
    assert "after 16 of 40" in told.out
    assert "stopped by SIGINT: no image is lost" in told.out
    assert not cards(trained)
    told = score()
    assert "40 samples exist already" in told.out
    assert "measuring the reference" not in told.out  # it is kept
    card = cards(trained)["proxy_fd_random"]
    (archive,) = trained.glob("samples/*/samples.npz")
    assert len(np.load(archive)["arr_0"]) == 40
    assert card["protocol"]["num_samples"] == 40


def test_a_file_is_scored_against_the_data_of_a_run(trained, tell, tmp_path):
    np.savez(tmp_path / "real.npz", training_images())
    evaluate(tell, trained, "proxy_fd_random", samples=tmp_path / "real.npz")
    card = cards(trained)["proxy_fd_random"]
    assert abs(card["value"]) < 1e-3
    assert card["protocol"]["samples"] == "real.npz"
    assert card["protocol"]["num_samples"] == 1438


def test_samples_of_another_size_are_refused(trained, tell, photos):
    told = evaluate(tell, trained, "proxy_fd", samples=photos[0], reference=photos[1])
    assert told.status == 1
    assert "[8, 8, 1], and the samples are [12, 10, 3]" in told.err


# ---- files alone ---------------------------------------------------------------------


def test_all_metrics_of_one_network_come_from_one_pass(inception, photos, tmp_path):
    every = "fid,sfid,inception_score,precision_recall,kid"
    compare(*photos, every)
    found = cards(tmp_path)
    numbers = {"fid", "sfid", "inception_score", "precision", "recall", "kid"}
    assert found.keys() == numbers
    for name, feature in (("fid", "pool"), ("sfid", "spatial")):
        expected = distance(features(feature, PHOTOS), features(feature, OTHERS))
        np.testing.assert_allclose(found[name]["value"], expected, rtol=1e-4)
        assert found[name]["protocol"]["resize"] == "tf-legacy"
    assert found["kid"]["value"] > 0
    assert found["kid"]["standard_error"] > 0
    assert found["inception_score"]["value"] >= 1


@pytest.mark.parametrize("metric", ["sfid", "inception_score", "precision_recall"])
def test_a_card_does_not_depend_on_the_others(inception, photos, tmp_path, metric):
    compare(*photos, "fid,sfid,inception_score,precision_recall")
    together = cards(tmp_path)
    for path in (tmp_path / "evaluation").iterdir():
        path.unlink()
    compare(*photos, metric)
    alone = cards(tmp_path)
    assert alone.keys() <= together.keys()
    for name, card in alone.items():
        protocol = card["protocol"]
        assert protocol == together[name]["protocol"]
        assert protocol["image_shape"] == [12, 10, 3]
        assert ("reference_hash" in protocol) is (name != "inception_score")
        np.testing.assert_allclose(card["value"], together[name]["value"], rtol=1e-6)


def test_images_are_like_themselves(inception, photos, tmp_path):
    compare(photos[0], photos[0], "fid,precision_recall,proxy_fd_random")
    found = cards(tmp_path)
    assert abs(found["fid"]["value"]) < 1e-5
    assert abs(found["proxy_fd_random"]["value"]) < 1e-3
    assert found["precision"]["value"] == found["recall"]["value"] == 1


def test_folders_and_files_of_the_same_images_score_alike(photos, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for number, image in enumerate(PHOTOS):
        Image.fromarray(image).save(folder / f"{number:03}.png")
    compare(photos[0], photos[1], "proxy_fd_random")
    one = cards(tmp_path).pop("proxy_fd_random")
    compare(folder, photos[1], "proxy_fd_random")
    both = [
        json.loads(path.read_text())
        for path in (tmp_path / "evaluation").glob("proxy_fd_random_*.json")
    ]
    assert len(both) == 2
    assert {card["value"] for card in both} == {one["value"]}


def test_statistics_may_stand_for_images(inception, photos, tmp_path):
    pool = features("pool", OTHERS)
    np.savez(
        tmp_path / "stats.npz", mu=pool.mean(axis=0), sigma=np.cov(pool, rowvar=False)
    )
    compare(photos[0], tmp_path / "stats.npz", "fid", resize="pytorch-fid")
    found = cards(tmp_path)["fid"]
    expected = distance(features("pool", PHOTOS), pool)
    np.testing.assert_allclose(found["value"], expected, rtol=1e-4)
    (note,) = [n for n in found["protocol"]["notes"] if "assumed" in n]
    assert "pytorch-fid" in note
    with pytest.raises(errors.Refusal, match=r"'pytorch-fid'.*'tf-legacy'"):
        compare(photos[0], tmp_path / "stats.npz", "fid")
    with pytest.raises(errors.Refusal, match="statistics alone"):
        compare(photos[0], tmp_path / "stats.npz", "kid", resize="pytorch-fid")


def test_few_samples_are_told(inception, photos, capsys):
    compare(*photos, "fid")
    told = capsys.readouterr().out
    assert "60 samples for 2048 features" in told
    assert "kid" in told


def test_grey_images_are_told(inception, tmp_path, capsys):
    grey = PHOTOS[..., :1].repeat(3, axis=2)[:, :12]  # as many pixels as the colours
    np.savez(tmp_path / "grey.npz", grey)
    compare(tmp_path / "grey.npz", tmp_path / "grey.npz", "fid")
    assert "repeated for red, green and blue" in capsys.readouterr().out
    (note,) = cards(tmp_path)["fid"]["protocol"]["notes"][:1]
    assert "grey images" in note


@pytest.mark.parametrize(
    ("images", "part"),
    [
        (PHOTOS / 127.5 - 1, r"float64 in \[-1, 1\].*quantise"),
        (np.full((5, 12, 10, 3), np.nan, np.float32), "NaN"),
        (PHOTOS[..., :2], r"\[12, 10, 2\].*1 or 3 channels"),
        (PHOTOS[0], r"\[12, 10, 3\], not \[N, H, W, C\]"),
        (PHOTOS[:, :8], r"\[8, 10, 3\].*\[12, 10, 3\]"),
        (PHOTOS[:1], "proxy_fd_random of 1 samples"),
        (np.asfortranarray(PHOTOS), "row by row"),
    ],
)
def test_images_that_cannot_be_scored(images, part, photos, tmp_path):
    np.savez(tmp_path / "bad.npz", images)
    with pytest.raises(errors.Refusal, match=part):
        compare(tmp_path / "bad.npz", photos[0], "proxy_fd_random")
    assert not cards(tmp_path)


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"first": ""}, "nothing to score"),
        ({"second": ""}, "evaluation.reference is empty"),
        ({"metric": "proxy_fd"}, "labels of a run's data.*proxy_fd_random"),
        ({"metric": "bits_per_dim"}, "bits/dim are of a run"),
    ],
)
def test_what_needs_a_run(fields, part, photos):
    first, second = photos
    given = {"first": first, "second": second, "metric": "proxy_fd_random", **fields}
    with pytest.raises(errors.Refusal, match=part):
        compare(**given)


def test_a_folder_of_several_sizes(photos, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    Image.fromarray(PHOTOS[0]).save(folder / "0.png")
    Image.fromarray(PHOTOS[0][:5]).save(folder / "1.png")
    with pytest.raises(errors.Refusal, match="different sizes, 5x10 and 12x10"):
        compare(folder, photos[0], "proxy_fd_random")


def test_statistics_of_another_crop(tmp_path):
    network = proxy.random_network((12, 10, 3))
    moments = frechet.moments(RANDOM.normal(size=(80, proxy.DIMENSION)))
    measured = features_lib.Measured(80, {"pool": (moments,)}, {})
    path = tmp_path / "stats.npz"

    def saved(**provenance):
        made = statistics.of_measured(measured, network, provenance)
        statistics.save(path, made)
        return references.of_path(str(path))

    def check(reference, crop="center"):
        references.check(
            reference,
            network,
            summed=("pool",),
            kept=(),
            shape=(12, 10, 3),
            crop=crop,
        )

    for crop in ("center", "random", ""):  # at random in training, here never
        check(saved(crop="center", image_shape=(12, 10, 3)), crop)
    with pytest.raises(errors.Refusal, match=r"data\.crop=none.*center"):
        check(saved(crop="none"))
    with pytest.raises(errors.Refusal, match=r"\[12, 10, 3\].*\[12, 8, 3\]"):
        check(saved(crop="center", image_shape=(12, 8, 3)))


def test_images_that_are_cut_otherwise_are_other_images():
    split = sources.load("digits", "train", test_fraction=0.2)
    hashes = {
        crop: image_sets.of_dataset(split, crop).hash
        for crop in ("none", "center", "random")
    }
    assert hashes["none"] != hashes["center"] == hashes["random"]


def test_a_stop_while_the_reference_is_measured(tmp_path):
    config = config_lib.base()
    config.evaluation.in_training = "proxy_fd_random"
    dataset = sources.load("digits", "train", test_fraction=0.2)
    asked = []
    sample_scorer.make(
        config,
        build_data.DataInfo.of(dataset),
        dataset,
        folder=tmp_path,
        mesh=sharding.make_mesh(devices=jax.devices()[:1]),
        should_stop=lambda: not asked.append(None),
    )
    assert len(asked) == 1
    assert not list(tmp_path.iterdir())  # no reference of a part of the images


# ---- below ---------------------------------------------------------------------------


def test_eight_devices_score_like_one(inception, photos, tmp_path):
    config = config_lib.base()
    config.evaluation.reference = photos[1]
    every = [name for name in table.METRICS if name != "proxy_fd"]
    found = []
    for count in (1, 8):
        mesh = sharding.make_mesh(devices=jax.devices()[:count])
        scores = []
        for group in feature_pass.grouped(
            config, every, shape=PHOTOS.shape[1:], dataset=None
        ):
            network, _ = group.source.load()
            options = {"mesh": mesh, "batch_size": 16}
            compared = feature_pass.compared(
                group, network, folder=tmp_path / str(count), **options
            )
            scores += feature_pass.score(
                group, network, [PHOTOS], compared, count=len(PHOTOS), **options
            )
        found.append({score.metric: score.value for score in scores})
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        np.testing.assert_allclose(found[1][name], value, rtol=1e-5)


def test_every_name_is_a_metric():
    assert set(table.NAMES) == {*table.OF_NETWORKS, *table.METRICS}


@pytest.mark.parametrize("form", ["float", "int32", "npy", "grey npy", "folder of npy"])
def test_the_same_images_in_other_files_score_alike(form, photos, tmp_path):
    second = tmp_path / "second.npy"
    photographs = PHOTOS[..., :1] if form == "grey npy" else PHOTOS
    first = tmp_path / "first.npz"
    np.savez(first, photographs)
    if form == "float":
        np.savez(second.with_suffix(".npz"), photographs / np.float32(255))
        second = second.with_suffix(".npz")
    elif form == "folder of npy":
        second = tmp_path / "second"
        second.mkdir()
        for i, image in enumerate(photographs):
            np.save(second / f"{i:02}.npy", image / np.float32(255))
    else:
        kind = np.int32 if form == "int32" else np.uint8
        array = photographs[..., 0] if form == "grey npy" else photographs
        np.save(second, array.astype(kind))
    compare(second, first, "proxy_fd_random")
    assert cards(tmp_path)["proxy_fd_random"]["value"] == pytest.approx(0, abs=1e-6)


def test_copies_are_told_and_their_error_is_none(tmp_path, capsys):
    np.savez(tmp_path / "a.npz", np.repeat(PHOTOS[:1], 20, axis=0))
    np.savez(tmp_path / "b.npz", PHOTOS)
    compare(tmp_path / "a.npz", tmp_path / "b.npz", "proxy_fd_random")
    said = capsys.readouterr().out
    assert "19 of the 20 images are copies" in said
    assert "±" not in said
    card = cards(tmp_path)["proxy_fd_random"]
    assert card["standard_error"] is None
    assert any("19 of the 20" in note for note in card["protocol"]["notes"])


def test_the_one_image_in_colour_is_named(tmp_path, capsys):
    folder = tmp_path / "folder"
    folder.mkdir()
    for i, image in enumerate(PHOTOS):
        Image.fromarray(image[..., 0]).save(folder / f"{i}.png")
    Image.fromarray(PHOTOS[0]).convert("RGBA").save(folder / "odd.png")
    found = image_sets.of_path(str(folder), "evaluation.samples")
    assert found.shape[-1] == 3
    assert "odd.png" in capsys.readouterr().out
