"""Upsamplers from the command line and from Python: cascades, archives, scores."""

import json
import pathlib
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_runs
from PIL import Image
from small_runs import ROOT, TINY, content

import ddpm_jax
from ddpm_jax import main
from ddpm_jax.builders import cascade, trained_run
from ddpm_jax.builders import data as build_data
from ddpm_jax.builders import network as build_network
from ddpm_jax.core import errors
from ddpm_jax.data import sources
from ddpm_jax.modes import convert
from ddpm_jax.sampling import archive

sys.path.append(str(ROOT / "tests" / "convert"))
import small_networks

UPSAMPLER = f"--config={ROOT / 'configs' / 'digits_upsampler.py'}"
SMALLEST = f"--config={ROOT / 'configs' / 'digits_4x4.py'}"
WANTED = 12


@pytest.fixture(scope="module")
def stages(cache, tmp_path_factory):
    """Runs of 2x2 images, of 2x2 to 4x4, and of 4x4 to 8x8; only to be read.

    The last was trained, with noise on what it enlarges; the others have random weights
    of an import, for whose sake no train step is compiled.
    """
    folder = tmp_path_factory.mktemp("runs")
    sampled = [
        f"--config.sampling.num_samples={WANTED}",
        "--config.sampling.batch_size=8",
    ]
    for seed, (name, file, side) in enumerate(
        (("two", SMALLEST, 2), ("four", UPSAMPLER, 4))
    ):
        size = f"--config.data.image_size={side}"
        config = main.parse(["ddpm-jax", file, *TINY[1:], *sampled, size]).config
        facts = build_data.DataInfo.of(build_data.dataset(config, "train"))
        network = build_network.network(config, facts)
        params = jax.tree.map(jnp.asarray, small_networks.random_params(network, seed))
        receipt = {"weights": "random weights", "published": None}
        convert.save(folder / name, config, facts, params, receipt)
    arguments = [
        *(UPSAMPLER, *TINY[1:], *sampled, f"--workdir={folder / 'eight'}"),
        "--config.model.low_res_noise=True",
        "--config.train.steps=2",
        "--config.train.sample_every=2",
        "--config.train.validate_every=2",
        "--config.train.evaluate_every=0",
    ]
    with small_runs.quick_compilation(cache):
        assert main.main(["ddpm-jax", *arguments]) == 0
    return folder


def test_an_upsampler_shows_and_validates_while_it_trains(stages):
    assert small_runs.grey_levels(stages / "eight" / "samples" / "step_2.png") > 2
    losses = [
        r["validation_loss"]
        for r in small_runs.metrics(stages / "eight")
        if "validation_loss" in r
    ]
    assert len(losses) == 1
    assert np.isfinite(losses[0])


@pytest.fixture
def runs(stages, tmp_path):
    """A copy of the runs."""
    return pathlib.Path(shutil.copytree(stages, tmp_path / "runs"))


def sample(tell, run, *low_res, **settings):
    given = {"low_res": ",".join(map(str, low_res)), **settings}
    flags = [f"--config.sampling.{k}={v}" for k, v in given.items() if v != ""]
    return tell("--mode=sample", f"--workdir={run}", *flags)


def made(run):
    """Return the one archive of a run."""
    (path,) = run.glob("samples/*/samples.npz")
    return path


def test_a_cascade_of_three_is_the_commands_one_by_one(runs, tell, tmp_path):
    apart = pathlib.Path(shutil.copytree(runs, tmp_path / "apart"))
    two, four, eight = (runs / name for name in ("two", "four", "eight"))
    told = sample(tell, eight, two, four)
    assert told.status == 0, told.err
    for run, before in (("two", ()), ("four", [apart / "two"])):
        assert sample(tell, apart / run, *before).status == 0
        one, other = (content(place / run / "samples") for place in (runs, apart))
        names = set(other)
        assert names <= one.keys()
        assert any(name.endswith("grid.png") for name in names)
        # Dates in zip files aside, a stage is what its own command makes.
        for name in names - {n for n in names if n.endswith(".npz")}:
            assert one[name] == other[name]
        for mine, theirs in zip(
            np.load(made(runs / run)).values(),
            np.load(made(apart / run)).values(),
            strict=True,
        ):
            np.testing.assert_array_equal(mine, theirs)
    assert np.load(made(eight))["arr_0"].shape == (WANTED, 8, 8, 1)
    assert np.load(made(eight))["arr_1"].tolist() == [i % 10 for i in range(WANTED)]
    preview = made(eight).parent / "upsampler_preview.png"
    assert small_runs.grey_levels(preview) > 2
    again = sample(tell, eight, two, four)
    assert again.out.count("exist already") == 3


def test_an_interrupted_cascade_goes_on(runs, tell, interrupted):
    two, four = runs / "two", runs / "four"
    whole = pathlib.Path(shutil.copytree(runs, runs.parent / "whole"))
    assert sample(tell, whole / "four", whole / "two").status == 0
    told = interrupted(archive.SampleStore, "add", lambda: sample(tell, four, two))
    assert told.status == 0
    assert "run the same command to resume" in told.out
    assert not list(four.glob("samples/*/parts/*.npy"))
    told = sample(tell, four, two)
    assert "after 8 of 12" in told.out
    for name in ("two", "four"):
        one, other = (np.load(made(place / name)) for place in (runs, whole))
        np.testing.assert_array_equal(one["arr_0"], other["arr_0"])


def test_an_archive_a_folder_and_python_are_enlarged_alike(runs, tell, tmp_path):
    four, eight = runs / "four", runs / "eight"
    assert sample(tell, four, runs / "two").status == 0
    small = np.load(made(four))
    assert sample(tell, eight, made(four)).status == 0
    first = made(eight)
    from_archive = np.load(first)
    np.testing.assert_array_equal(from_archive["arr_1"], small["arr_1"])

    shutil.rmtree(first.parent)
    photos = tmp_path / "photos"
    for number, (image, label) in enumerate(zip(*small.values(), strict=True)):
        place = photos / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(place / f"{number:02}.png")
    told = sample(tell, eight, photos)
    assert told.status == 0, told.err
    order = [int(path.stem) for path in sorted(photos.glob("*/*"))]
    from_folder = np.load(made(eight))
    # Noise is of the number, so that only what has its number is the same image.
    kept = [i for i, number in enumerate(order) if i == number]
    assert 0 in kept
    np.testing.assert_array_equal(
        from_folder["arr_0"][kept], from_archive["arr_0"][kept]
    )
    assert from_folder["arr_1"].tolist() == small["arr_1"][order].tolist()

    run = ddpm_jax.load(eight)
    labels = [int(label) for label in small["arr_1"]]
    images = run.sample(7, low_res=small["arr_0"], labels=labels, batch_size=8)
    assert np.abs(images.astype(int) - from_archive["arr_0"][:7]).max() <= 1
    one = run.sample(1, low_res=str(made(four)), batch_size=8)
    assert np.abs(one.astype(int) - images[:1]).max() <= 1
    with pytest.raises(errors.Refusal, match=r"num=13: .* holds 12 images"):
        run.sample(13, low_res=str(made(four)))


def test_what_is_asked_of_a_cascade_is_asked_of_its_first_stage(runs, tell):
    told = sample(tell, runs / "four", runs / "two", labels="7", per_class=3)
    assert told.status == 0, told.err
    for run in ("two", "four"):
        assert np.load(made(runs / run))["arr_1"].tolist() == [7] * 3
    request = json.loads((made(runs / "two").parent / "request.json").read_text())
    assert request["labels"] == [7]


def test_a_stage_that_leaves_classes_out_hands_on_none(stages):
    """An image that was made of no class is of none that it could be enlarged as."""
    saved = trained_run.read(stages / "two")
    assert cascade.Stage(saved.config, saved).carried == {"label"}
    saved.config.sampling.guidance_scale = 0.0
    assert not cascade.Stage(saved.config, saved).carried


def test_python_stops_where_the_images_to_enlarge_are_not_all_there(
    stages, monkeypatch
):
    run = ddpm_jax.load(stages / "four")
    monkeypatch.setattr(cascade.Stage, "make", lambda stage, count: False)
    with pytest.raises(KeyboardInterrupt, match="the images to enlarge"):
        run.sample(3, low_res=str(stages / "two"))


def test_scores_are_those_of_the_images(runs, tell):
    told = tell(
        "--mode=evaluate",
        f"--workdir={runs / 'eight'}",
        "--config.evaluation.metric=psnr,consistency",
        "--config.evaluation.num_images=5",
        "--config.evaluation.draws=2",
    )
    assert told.status == 0, told.err
    truth = sources.load("digits", "test").fetch(np.arange(5))["image"]
    images = np.load(made(runs / "eight"))["arr_0"].astype(np.float64) / 127.5 - 1
    draws = images.reshape(5, 2, 8, 8, 1)
    mean = np.mean((draws.mean(axis=1) - truth) ** 2)
    blocks = (draws - truth[:, None]).reshape(5, 2, 4, 2, 4, 2).mean(axis=(3, 5))
    cards = {
        name: json.loads(path.read_text())
        for name in ("psnr", "consistency")
        for path in (runs / "eight" / "evaluation").glob(f"{name}_*.json")
    }
    assert cards["psnr"]["value"] == pytest.approx(10 * np.log10(4 / mean), abs=1e-4)
    single = 10 * np.log10(4 / np.mean((draws - truth[:, None]) ** 2))
    assert cards["psnr"]["single_draw"] == pytest.approx(single, abs=1e-4)
    within = np.mean(np.abs(blocks) <= 2 / 16)
    assert cards["consistency"]["value"] == pytest.approx(within, abs=0.02)
    assert cards["psnr"]["protocol"]["draws"] == 2
    assert (made(runs / "eight").parent / "upsampler_preview.png").exists()


def test_what_cannot_be_enlarged_is_refused_before_anything_is_written(
    runs, tell, tmp_path
):
    before = content(runs)
    two, four, eight = (runs / name for name in ("two", "four", "eight"))
    np.savez(tmp_path / "few.npz", np.zeros((3, 4, 4, 1), np.uint8))
    np.savez(tmp_path / "plain.npz", np.zeros((WANTED, 4, 4, 1), np.uint8))
    clear = tmp_path / "clear"
    clear.mkdir()
    Image.new("RGBA", (4, 4)).save(clear / "a.png")
    for run, low_res, settings, words in (
        (eight, (), {}, "nothing says which images are enlarged"),
        (two, (four,), {}, "this run enlarges nothing"),
        (eight, (two,), {}, "has images of 2x2 and the upsampler makes 8x8: give"),
        (
            eight,
            (tmp_path / "few.npz",),
            {"labels": 3},
            "num_samples=12: few.npz holds 3 images",
        ),
        (eight, (clear,), {}, "a.png has an opacity channel"),
        (eight, (tmp_path / "none",), {}, "none: there is no such file"),
        (eight, (tmp_path / "plain.npz",), {}, "--config.sampling.labels="),
        (four, (two,), {"low_res_t": 3}, "was not trained with noise"),
        (four, (two,), {"labels": "nine"}, "unknown class"),
    ):
        told = sample(tell, run, *low_res, **settings)
        assert told.status == 1
        assert words in told.err
    for mode in ("vary", "diagnose"):
        told = tell(f"--mode={mode}", f"--workdir={eight}", f"--image={clear}/a.png")
        if mode == "diagnose":
            told = tell(f"--mode={mode}", f"--workdir={eight}")
        assert "enlarges" in told.err
    assert content(runs) == before
