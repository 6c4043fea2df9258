"""Editing from Python is that of the command line, to the bit."""

import csv
import re
import shutil

import numpy as np
import pytest
import small_runs
from PIL import Image

import ddpm_jax
from ddpm_jax.core import errors

RANDOM = np.random.default_rng(8)
PICTURES = RANDOM.integers(0, 256, (2, 8, 8, 1), np.uint8)
HOLE = np.zeros((8, 8), bool)
HOLE[:, 5:] = True
LABELS = "--labels=7,2"
DDIM = "--config.sampling.method=ddim"


@pytest.fixture(scope="module")
def run(first_run):
    return ddpm_jax.load(first_run[0])


@pytest.fixture(scope="module")
def copy(first_run, tmp_path_factory):
    """The run that the commands edit with; their folders differ."""
    return shutil.copytree(first_run[0], tmp_path_factory.mktemp("edits") / "run")


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("given")
    for number, picture in enumerate(PICTURES):
        Image.fromarray(picture[..., 0]).save(folder / f"{number}.png")
    return sorted(folder.glob("*.png"))


def commanded(tell, mode, run, *arguments, images=()):
    told, _, made = small_runs.edited(tell, mode, run, *arguments, images=images)
    assert told.status == 0, told.err
    return made


def test_inpainting(run, copy, paths, tell):
    made = run.inpaint(
        PICTURES, HOLE, labels=(7, 2), variants=2, editing={"method": "replace"}
    )
    assert made.shape == (2, 2, 8, 8, 1)
    expected = commanded(
        tell,
        "inpaint",
        copy,
        LABELS,
        *("--box=5,0,3,8", "--method=replace", "--variants=2"),
        images=paths,
    )
    np.testing.assert_array_equal(made.reshape(expected.shape), expected)
    assert np.all((made == PICTURES[:, None])[:, :, ~HOLE])
    alone = run.inpaint(
        PICTURES[0], HOLE, labels=7, editing={"method": "replace", "variants": 1}
    )
    assert alone.shape[:2] == (1, 1)
    np.testing.assert_allclose(alone[0, 0], made[0, 0].astype(int), atol=1)


def test_variations(run, copy, paths, tell):
    made = run.vary(PICTURES, strength=0.5, labels=(7, 2), variants=3, seed=1)
    assert made.shape == (2, 3, 8, 8, 1)
    expected = commanded(
        tell,
        "vary",
        copy,
        LABELS,
        *("--strength=0.5", "--variants=3", "--config.sampling.seed=1"),
        images=paths,
    )
    np.testing.assert_array_equal(made.reshape(expected.shape), expected)
    same = run.vary(PICTURES, strength=0, labels=7, variants=2)
    np.testing.assert_array_equal(same, np.stack([PICTURES, PICTURES], axis=1))


def test_numbers_of_numpy_are_numbers(run):
    """Strength 0 gives the pictures back."""
    given = {"strength": np.float32(0), "variants": np.int64(1), "labels": 7}
    np.testing.assert_array_equal(run.vary(PICTURES, **given), PICTURES[:, None])


def test_variations_of_a_sample(run, copy, tell):
    made = run.vary(labels=3, editing={"from_sample": "2@24"})
    expected = commanded(tell, "vary", copy, "--labels=3", "--from-sample=2@24")
    np.testing.assert_array_equal(made[0], expected)


def test_interpolation(run, copy, paths, tell):
    editing = {"method": "noised", "levels": (0.5, 1.0)}
    made = run.interpolate(PICTURES, frames=3, labels=7, editing=editing)
    assert made.shape == (2, 3, 8, 8, 1)
    expected = commanded(
        tell,
        "interpolate",
        copy,
        *("--labels=7", "--method=noised", "--levels=0.5,1", "--frames=3"),
        images=paths,
    )
    np.testing.assert_array_equal(made.reshape(expected.shape), expected)


def test_animation(run, copy, tell):
    given = {"frames": 4, "variants": 2, "editing": {"seeds": 2}}
    made = run.animate("walk", method="ddim", **given)
    assert made.shape == (4, 2, 8, 8, 1)
    options = ("--kind=walk", "--frames=4", "--variants=2", "--seeds=2", DDIM)
    expected = commanded(tell, "animate", copy, *options)
    np.testing.assert_array_equal(made, expected)
    newest = max(copy.glob("samples/step_*.png"), key=lambda path: int(path.stem[5:]))
    film = run.animate("train")
    np.testing.assert_array_equal(film[-1, 0, ..., 0], np.asarray(Image.open(newest)))


def test_progressive_coding(run, copy, tell):
    made = run.compress(variants=3, steps=4, num_images=16)
    told = tell(
        "--mode=compress",
        f"--workdir={copy}",
        "--variants=3",
        "--config.evaluation.steps=4",
        "--config.evaluation.num_images=16",
    )
    assert told.status == 0, told.err
    folder = copy / "edits" / re.search(r"/edits/([^/]+)/coding.npz", told.out)[1]
    with (folder / "rate_distortion.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name in ("timestep", "bits", "rate", "rmse"):
        written = [f"{number:.8g}" for number in getattr(made, name)]
        assert written == [row[name] for row in rows]
    with np.load(folder / "coding.npz") as stored:
        np.testing.assert_array_equal(made.image, stored["image"])
        np.testing.assert_array_equal(made.estimate, stored["estimate"])
        np.testing.assert_array_equal(made.shown, stored["timestep"])


def test_nothing_is_written(run, first_run):
    before = small_runs.content(first_run[0])
    run.vary(PICTURES, strength=0.5, labels=7)
    run.compress(variants=1, steps=4, num_images=16)
    assert small_runs.content(first_run[0]) == before


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda r: r.inpaint(PICTURES, HOLE[:4], labels=3), "holes of shape"),
        (lambda r: r.inpaint(PICTURES / 255.0, HOLE, labels=3), "uint8"),
        (lambda r: r.inpaint(PICTURES[:, :4], HOLE, labels=3), "pictures of shape"),
        (
            lambda r: r.inpaint(PICTURES, HOLE, editing={"metod": "x"}),
            r"metod.*inpaint\(\)",
        ),
        (lambda r: r.inpaint(PICTURES, HOLE & False, labels=3), "no pixels"),
        (lambda r: r.vary(PICTURES, labels=3, editing=["a"]), r"\['a'\].*by name"),
        (lambda r: r.vary(PICTURES, labels="likeliest", strength=2), "strength=2"),
        (
            lambda r: r.inpaint(PICTURES, HOLE, labels=3, editing={"quality": "great"}),
            "best",
        ),
        (lambda r: r.inpaint(PICTURES, HOLE, editing={"paste": True}), "paste.*files"),
        (lambda r: r.inpaint(PICTURES, HOLE), "likeliest"),
        (lambda r: r.vary(labels=3), "nothing to vary"),
        (lambda r: r.vary(PICTURES, strength=2, labels=3), "strength=2"),
        (lambda r: r.interpolate(PICTURES[:1], labels=3), "1 pictures"),
        (lambda r: r.animate("dance"), "dance"),
        (lambda r: r.compress(num_images=-1), "num_images"),
        (lambda r: r.compress(variants=0), "variants=0"),
        (lambda r: r.compress(variants=-1), "variants=-1"),
        (lambda r: r.compress(variants=1.5), "variants=1.5.*whole number"),
        (lambda r: r.compress(num_image=1), r"num_image.*compress\(\)"),
    ],
)
def test_refusals(run, call, words):
    with pytest.raises(errors.Refusal, match=words):
        call(run)
