"""--mode=restore on a tiny run: files, numbers, refusals, and the same from Python."""

import json
import pathlib
import shutil
import types

import numpy as np
import pytest
import small_runs
from PIL import Image

import ddpm_jax
from ddpm_jax import config as config_lib
from ddpm_jax.core import errors
from ddpm_jax.data import images as images_lib
from ddpm_jax.editing import measurements
from ddpm_jax.editing import operators as by_name
from ddpm_jax.modes import restore as mode
from ddpm_jax.sampling import archive

RANDOM = np.random.default_rng(5)
GREY = RANDOM.integers(0, 256, (8, 8), np.uint8)
HOLE = np.zeros((8, 8), bool)
HOLE[4:, 2:] = True
LABEL = "--config.sampling.labels=3"
FEW = ("--draws=3", LABEL)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("given")
    Image.fromarray(GREY).save(folder / "seven.png")
    Image.fromarray(GREY.T.copy()).save(folder / "other.png")
    Image.fromarray(np.where(HOLE, 255, 0).astype(np.uint8)).save(folder / "hole.png")
    Image.fromarray(GREY[::2, ::2].copy()).save(folder / "small.png")
    np.save(folder / "nan.npy", np.full((4, 4, 1), np.nan, np.float32))
    np.save(folder / "noise.npy", RANDOM.normal(size=(8, 8, 1)).astype(np.float32))
    np.save(folder / "whole.npy", GREY[..., None])
    (folder / "text.npy").write_text("no numbers")
    return folder


@pytest.fixture
def restore(tell, files):
    """Return a function: run, arguments → what was said, folder, images."""

    def edit(run, *arguments, images=("seven.png",)):
        paths = [files / name for name in images]
        return small_runs.edited(tell, "restore", run, *arguments, images=paths)

    return edit


def repeated(y):
    return y.repeat(2, axis=1).repeat(2, axis=2)


def test_what_a_command_leaves(trained, restore, tell, files):
    """One run of the command after another: each uses the programs of the first."""
    options = ("--operator=superres:2", "--noise=0.05", *FEW)
    told, folder, made = restore(
        trained, *options, "--degrade", images=("seven.png", "other.png")
    )
    assert told.status == 0, told.err
    assert made.shape == (6, 8, 8, 1)
    request = json.loads((folder / "request.json").read_text())
    assert (request["edit"], request["operator"]) == ("restore", "superres:2")
    assert (request["noise"], request["draws"]) == (0.05, 3)
    # y is that of the means of blocks, with noise of the size that was asked for.
    measured = np.load(folder / "measured.npy")
    truth = images_lib.from_stored(np.stack([GREY, GREY.T])[..., None])
    noise = measured - truth.reshape(2, 4, 2, 4, 2, 1).mean(axis=(2, 4))
    assert 0.02 < noise.std() < 0.09
    # Mean and deviation are those of the draws.
    values = images_lib.from_stored(made).reshape(2, 3, 8, 8, 1)
    with np.load(folder / "statistics.npz") as found:
        np.testing.assert_allclose(found["mean"], values.mean(axis=1), atol=1e-6)
        wanted = values.std(axis=1, ddof=1)
        np.testing.assert_allclose(found["deviation"], wanted, atol=1e-6)
        np.testing.assert_array_equal(found["truth"], truth)
    mean = np.asarray(Image.open(folder / "mean" / "0001.png")).astype(float)
    own = (values[1].mean(axis=0)[..., 0] + 1) * 127.5
    assert np.abs(mean - own).max() <= 0.51
    assert small_runs.grey_levels(folder / "deviation" / "0000.png") > 5
    assert Image.open(folder / "preview.png").size[0] > 7 * 96
    # The card has the figures that were said.
    card = json.loads((folder / "card.json").read_text())
    error = np.mean((values.mean(axis=1) - truth) ** 2)
    assert card["psnr_of_mean"] == pytest.approx(10 * np.log10(4 / error), abs=1e-3)
    error = np.mean((values - truth[:, None]) ** 2)
    assert card["psnr_of_a_draw"] == pytest.approx(10 * np.log10(4 / error), abs=1e-3)
    assert card["seed"] == 0
    assert [one["nominal"] for one in card["coverage"]] == [0.5, 0.5]
    assert f"PSNR of the mean {card['psnr_of_mean']:.2f} dB" in told.out
    assert "50 % intervals of the draws cover" in told.out

    again, nothing, _ = restore(
        trained, *options, "--degrade", images=("seven.png", "other.png")
    )
    assert (again.status, nothing) == (0, None)
    assert "already" in again.out

    # Any batch: and the measurement that was kept gives the same draws.
    small = "--config.sampling.batch_size=1"
    kept = folder / "measured.npy"
    _, other, parts = restore(trained, *options, small, images=(kept,))
    assert np.abs(parts.astype(int) - made.astype(int)).max() <= 1
    assert "coverage" not in json.loads((other / "card.json").read_text())

    run = ddpm_jax.load(trained)
    from_python = run.restore(measured, "superres:2", noise=0.05, draws=3, labels=3)
    np.testing.assert_array_equal(from_python.reshape(made.shape), made)
    other = run.restore(
        measured,
        lambda x: x.reshape(-1, 4, 2, 4, 2, 1).mean(axis=(2, 4)),
        noise=0.05,
        draws=3,
        labels=3,
    )
    assert np.abs(other.reshape(made.shape).astype(int) - made.astype(int)).max() <= 1
    with pytest.raises(errors.Refusal, match="differ by"):
        run.restore(
            measured, (lambda x: x[:, ::2, ::2], lambda y: y.repeat(2, 1).repeat(2, 2))
        )
    with pytest.raises(errors.Refusal, match=r"degrade.*of files"):
        run.restore(measured, "superres:2", editing={"degrade": True})


@pytest.mark.parametrize("likelihood", ["dps", "exact"])
def test_known_pixels_come_back_to_the_bit(trained, restore, files, likelihood):
    mask = f"--mask={files / 'hole.png'}"
    told, folder, made = restore(
        trained, "--operator=mask", mask, f"--likelihood={likelihood}", *FEW
    )
    assert told.status == 0, told.err
    known = np.broadcast_to(~HOLE, (3, 8, 8))
    np.testing.assert_array_equal(made[..., 0][known], np.tile(GREY[~HOLE], 3))
    missing = np.asarray(Image.open(folder / "missing" / "0000.png"))
    np.testing.assert_array_equal(missing == 255, HOLE)
    assert "white in hole.png" in told.out


def test_missing_pixels_are_kept_as_a_file(trained, restore):
    told, folder, made = restore(
        trained, "--operator=missing:0.5", "--likelihood=dps", "--degrade", *FEW
    )
    assert told.status == 0, told.err
    missing = np.asarray(Image.open(folder / "missing" / "0000.png")) == 255
    assert missing.sum() == 32
    for image in made:
        np.testing.assert_array_equal(image[..., 0][~missing], GREY[~missing])
    measured = np.load(folder / "measured.npy")
    np.testing.assert_array_equal(np.isnan(measured[0, ..., 0]), missing)
    # Another seed draws other holes; what was measured keeps its own.
    told, again, _ = restore(
        trained,
        *("--operator=missing:0.5", "--likelihood=dps", *FEW),
        "--config.sampling.seed=1",
        images=(folder / "measured.npy",),
    )
    assert told.status == 0, told.err
    kept = np.asarray(Image.open(again / "missing" / "0000.png")) == 255
    np.testing.assert_array_equal(kept, missing)


def test_the_truth_measured_again_is_the_noise_from_what_was_given():
    """Where nine of ten pixels are 0 on both sides, over those that are not."""
    config, shape = config_lib.base(), (16, 16, 1)
    config.editing.update({"operator": "missing:0.9", "noise": 0.1})
    facts = types.SimpleNamespace(shape=shape, levels=256)
    stored = RANDOM.integers(0, 256, (8, *shape), np.uint8)
    truth = images_lib.from_stored(stored)
    asked = by_name.Measured(shape, len(truth))
    operator = by_name.of_name("missing:0.9", asked)
    values = measurements.measured(config, operator, truth)
    names = tuple("abcdefgh")
    given = measurements.Measurement(names, "word", values, operator, stored)
    with np.errstate(divide="ignore"):  # the PSNR of the truth is infinite
        card = mode.scored(config, facts, given, np.stack([truth] * 2, axis=1))
    left = card["root_mean_square_of_what_is_left"]
    assert left == pytest.approx(0.1, abs=4 * 0.1 / np.sqrt(2 * 8 * 26))
    # Draws that are the truth: all is tied, and no interval says anything.
    assert card["tied"] == 1
    assert card["coverage"][0]["share_untied"] is None
    assert "100.0 % of the true values are tied" in mode.summary(card)[-1]


@pytest.mark.parametrize(
    ("arguments", "images", "words"),
    [
        ((), ("seven.png",), ["--operator=superres:2"]),
        (("--operator=superres:2",), ("text.npy",), ["text.npy", "numpy.save"]),
        (("--operator=superres:2",), ("seven.png",), ["8x8", "4x4", "--degrade"]),
        (("--operator=blur:1",), ("whole.npy",), ["uint8", "floats"]),
        (("--operator=superres:2",), ("nan.npy",), ["16 of 16", "NaN"]),
        (("--operator=blur:2",), ("noise.npy",), ["noise=0", "--noise="]),
        (("--operator=mask",), ("seven.png",), ["seven.png", "--mask=FILE"]),
        (("--operator=grey", "--mask=a.png"), ("seven.png",), ["--operator=mask"]),
        (("--operator=blur:1", "--noise=-1"), ("seven.png",), ["noise=-1.0"]),
        (("--operator=blur:1", "--draws=0"), ("seven.png",), ["draws=0"]),
        (("--operator=blur:1", "--iterations=0"), ("seven.png",), ["iterations=0"]),
        (("--operator=blur:1", "--likelihood=x"), ("seven.png",), ["'x'", "exact"]),
        (("--operator=blur:1", "--labels=likeliest"), ("seven.png",), ["likeliest"]),
        (
            ("--operator=missing:0.5", "--labels=1,2", "--degrade"),
            ("seven.png",),
            ["2 classes"],
        ),
        (("--operator=missing:0.5",), ("seven.png",), ["NaN", "--operator=mask"]),
    ],
)
def test_refusals(trained, restore, arguments, images, words):
    label = () if any("labels" in a for a in arguments) else (LABEL,)
    told, _, _ = restore(trained, *arguments, *label, images=images)
    assert told.status == 1
    assert [word for word in words if word not in told.err] == []
    assert len(told.err.splitlines()) == 1
    assert not (pathlib.Path(trained) / "edits").exists()


def test_a_stopped_command_goes_on(trained, restore, interrupted, tell, files):
    options = (
        *("--operator=superres:2", "--noise=0.05", "--degrade", *FEW),
        *("--draws=8", "--config.sampling.batch_size=8"),  # one on each device
    )
    pictures = ("seven.png", "other.png")
    _, folder, whole = restore(trained, *options, images=pictures)
    shutil.rmtree(folder)
    command = ("--mode=restore", f"--workdir={trained}", *options)
    command += tuple(f"--image={files / name}" for name in pictures)
    told = interrupted(archive.SampleStore, "add", lambda: tell(*command))
    assert "stopped by SIGINT after 8 of 16 images" in told.out
    assert not (folder / "card.json").exists()
    told = tell(*command)
    assert "after 8 of 16 images" in told.out
    with np.load(folder / "samples.npz") as made:
        np.testing.assert_array_equal(made["arr_0"], whole)
