"""--mode=vary on a tiny run: strength, methods, variants of a sample."""

import json
import shutil

import numpy as np
import pytest
import small_runs
from PIL import Image

from ddpm_jax import config as config_lib
from ddpm_jax.editing import variation

RANDOM = np.random.default_rng(6)
GREY = RANDOM.integers(0, 256, (8, 8), np.uint8)
SEVEN = "--config.sampling.labels=7"
DDIM = ("--config.sampling.method=ddim", "--config.sampling.steps=12")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("given")
    Image.fromarray(GREY).save(folder / "seven.png")
    Image.fromarray(GREY.T.copy()).save(folder / "other.png")
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    return folder


@pytest.fixture
def vary(tell, files):
    """Return a function: run, further arguments → what was said, folder, images."""

    def edit(run, *arguments, images=("seven.png",)):
        paths = [files / name for name in images]
        return small_runs.edited(tell, "vary", run, *arguments, images=paths)

    return edit


def plain(tell, run, *arguments):
    """The samples of --mode=sample."""
    told = tell("--mode=sample", f"--workdir={run}", *arguments)
    assert told.status == 0, told.err
    (archive,) = (run / "samples").glob("*/samples.npz")
    return np.load(archive)["arr_0"]


# ---- strength ------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [24, 200, 1000])
def test_every_strength_is_a_whole_number_of_steps(whole):
    config = config_lib.base()
    config.diffusion.num_steps = whole
    for steps in range(whole + 1):
        config.editing.strength = float(f"{steps / whole:g}")  # as it is typed
        assert variation.noise_steps(config) == steps


def test_steps_are_those_that_run_and_the_same_command_is_done(trained, vary):
    told, folder, made = vary(trained, SEVEN, "--variants=3")
    assert told.status == 0, told.err
    assert made.shape == (3, 8, 8, 1)
    assert f"from t = 14 of {small_runs.T} in 4 steps" in told.out
    assert "4 evaluations of the network" in told.out
    assert all(np.any(made[0] != other) for other in made[1:])
    for number, image in enumerate(made):
        png = np.asarray(Image.open(folder / "images" / f"{number:04d}.png"))
        np.testing.assert_array_equal(png, image[..., 0])
    assert Image.open(folder / "preview.png").size[0] >= 4 * 64
    request = json.loads((folder / "request.json").read_text())
    assert (request["edit"], request["method"], request["steps"]) == (
        "vary",
        "noise",
        4,
    )
    again, nothing, _ = vary(trained, SEVEN, "--variants=3")
    assert (again.status, nothing) == (0, None)
    assert "already" in again.out


def test_the_stronger_the_farther(trained, vary):
    far = []
    for strength in (0, 0.1, 0.5):
        told, _, made = vary(
            trained,
            SEVEN,
            f"--strength={strength}",
            "--config.sampling.steps=2",
            "--config.sampling.method=ddim",
        )
        assert told.status == 0, told.err
        far.append(np.abs(made[..., 0].astype(int) - GREY).mean())
    assert far[0] == 0
    assert 0 < far[1] < far[2]


def test_strength_0_needs_no_class_and_says_so(trained, vary):
    told, _, made = vary(trained, "--strength=0", images=("seven.png", "other.png"))
    assert told.status == 0, told.err
    expected = np.stack([GREY, GREY.T]).repeat(4, axis=0)
    np.testing.assert_array_equal(made[..., 0], expected)
    assert "strength 0: the results are the pictures" in told.out
    again, nothing, _ = vary(trained, "--strength=0", images=("seven.png", "other.png"))
    assert (again.status, nothing) == (0, None)


def test_strength_1_is_plain_sampling_to_the_bit(trained, vary, tell):
    told, _, made = vary(trained, SEVEN, "--strength=1")
    assert told.status == 0, told.err
    assert "no picture is used" in told.out
    expected = plain(tell, trained, SEVEN, "--config.sampling.num_samples=4")
    np.testing.assert_array_equal(made, expected)


def test_any_batch(trained, vary):
    pictures, classes = ("seven.png", "other.png"), "--config.sampling.labels=7,2"
    _, folder, made = vary(trained, classes, "--variants=2", images=pictures)
    shutil.rmtree(folder)
    _, _, parts = vary(
        trained,
        classes,
        "--variants=2",
        "--config.sampling.batch_size=1",
        images=pictures,
    )
    assert np.abs(parts.astype(int) - made.astype(int)).max() <= 1


# ---- other methods -------------------------------------------------------------------


def test_encoding_and_another_class(trained, vary):
    told, folder, made = vary(
        trained,
        *DDIM,
        "--method=encode",
        "--image-labels=7",
        "--config.sampling.labels=2",
    )
    assert told.status == 0, told.err
    assert made.shape == (1, 8, 8, 1)
    assert "one variant" in told.out
    kept = json.loads((folder / "encoding.json").read_text())
    assert kept["psnr"][0] > 25
    assert f"seven.png: encoded and decoded with {kept['psnr'][0]:.1f} dB" in told.out


def test_encoding_and_noise(trained, vary):
    options = (*DDIM, SEVEN, "--method=encode", "--variants=2")
    told, _, little = vary(trained, *options, "--config.sampling.eta=0.1")
    assert told.status == 0, told.err
    _, _, much = vary(trained, *options, "--config.sampling.eta=1")
    far = [np.abs(m[..., 0].astype(int) - GREY).mean() for m in (little, much)]
    assert 0 < far[0] < far[1]
    assert np.any(much[0] != much[1])


def test_noise_maps_return_the_picture_and_edit_it(trained, vary):
    told, folder, made = vary(trained, SEVEN, "--method=noise_map", "--variants=2")
    assert told.status == 0, told.err
    assert "to rounding" in told.out
    np.testing.assert_array_equal(made[..., 0], np.stack([GREY, GREY]))
    shutil.rmtree(folder)
    _, _, edited = vary(
        trained,
        "--image-labels=7",
        "--config.sampling.labels=2",
        "--method=noise_map",
        "--variants=2",
    )
    assert np.any(edited != made)
    assert np.any(edited[0] != edited[1])


# ---- variants of a sample ------------------------------------------------------------


def test_a_chain_that_was_guided_at_first_alone_goes_on_plainly(trained, vary, tell):
    guided = (
        SEVEN,
        "--config.sampling.guidance_scale=2",
        "--config.sampling.guidance_interval=0.5,1",
    )
    expected = plain(tell, trained, *guided)[3].astype(int)
    told, _, made = vary(trained, *guided, "--from-sample=3@1", images=())
    assert told.status == 0, told.err
    assert np.abs(made.astype(int) - expected).max() <= 1


def test_variants_of_a_sample_leave_its_chain_at_t(trained, vary, tell):
    far = []
    expected = plain(tell, trained, SEVEN)[3].astype(int)
    for t in (small_runs.T, 1):
        told, _, made = vary(trained, SEVEN, f"--from-sample=3@{t}", images=())
        assert told.status == 0, told.err
        assert made.shape == (4, 8, 8, 1)
        far.append([np.abs(one - expected).mean() for one in made.astype(int)])
    # One step from the end there is no noise to come: all are the sample.
    assert max(far[1]) <= 1 / 64
    assert min(far[0]) > 1
    assert np.ptp(far[0]) > 0


# ---- refusals ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "images", "words"),
    [
        ((), ("seven.png",), ["sampling.labels", "class", "0, 1, 2"]),
        ((SEVEN,), (), ["--image=FILE", "--from-sample=i@t"]),
        ((SEVEN,), ("no.png",), ["no.png"]),
        ((SEVEN,), ("moving.gif",), ["moving.gif", "several frames"]),
        ((SEVEN, "--strength=1.5"), ("seven.png",), ["1.5", "0 (", "… 1"]),
        ((SEVEN, "--strength=-0.1"), ("seven.png",), ["-0.1", "… 1"]),
        ((SEVEN, "--strength=0.01"), ("seven.png",), ["0.01", "24", "0.0416"]),
        ((SEVEN, "--strength=0.1"), ("seven.png",), ["steps=4", "1 … 2", "0.1666"]),
        ((SEVEN, "--method=dream"), ("seven.png",), ["'dream'", "encode", "noise"]),
        ((SEVEN, "--variants=0"), ("seven.png",), ["variants=0"]),
        ((SEVEN, "--method=encode"), ("seven.png",), ["eta=0", "--image-labels"]),
        (
            (SEVEN, "--method=noise_map", "--config.sampling.method=ddim"),
            ("seven.png",),
            ["'ddim'", "eta"],
        ),
        (
            (SEVEN, "--method=encode", "--config.sampling.method=dpmpp_2s"),
            ("seven.png",),
            ["'dpmpp_2s'", "heun"],
        ),
        (
            (
                *(SEVEN, "--method=encode", "--config.sampling.guidance_scale=2"),
                *("--config.sampling.method=ddim", "--config.sampling.eta=1"),
            ),
            ("seven.png",),
            ["guidance_scale=2", "--force"],
        ),
        (
            ("--config.sampling.labels=1,2,3",),
            ("seven.png", "other.png"),
            ["3 classes for 2 pictures"],
        ),
        ((SEVEN, "--image-labels=x", "--method=encode"), ("seven.png",), ["'x'"]),
        ((SEVEN, "--image-labels=7"), ("seven.png",), ["no effect", "noise_map"]),
        (
            (SEVEN, "--method=noise_map", "--config.sampling.temperature=0.9"),
            ("seven.png",),
            ["temperature=0.9", "no effect", "leave it 1"],
        ),
        ((SEVEN, "--image-labels=likeliest", "--from-sample=3@24"), (), ["no picture"]),
        (
            (SEVEN, "--from-sample=3@24", "--strength=0.5"),
            (),
            ["strength=0.5", "no effect", "picture"],
        ),
        (
            (SEVEN, "--config.sampling.respacing=3,3"),
            ("seven.png",),
            ["'3,3'", "sampling.steps"],
        ),
        ((SEVEN, "--from-sample=3"), (), ["'3'", "3@120"]),
        ((SEVEN, "--from-sample=3@5"), (), ["t = 5", "nearest", "1 … 24"]),
        ((SEVEN, "--from-sample=3@24"), ("seven.png",), ["seven.png", "keep one"]),
        ((SEVEN, "--from-sample=4294967296@24"), (), ["4294967296", "2147483647"]),
        (
            (SEVEN, "--from-sample=3@24", "--config.sampling.method=ddim"),
            (),
            ["'ddim'", "eta"],
        ),
    ],
)
def test_refusals(first_run, vary, arguments, images, words):
    told, _, _ = vary(first_run[0], *arguments, images=images)
    assert told.status == 1
    assert [word for word in words if word not in told.err] == []
    assert len(told.err.splitlines()) == 1
    assert not (first_run[0] / "edits").exists()
