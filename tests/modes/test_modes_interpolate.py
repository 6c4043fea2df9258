"""--mode=interpolate on a tiny run: ends, rows, classes, seeds."""

import json
import shutil

import numpy as np
import pytest
import small_runs
from PIL import Image

ROWS, COLUMNS = np.mgrid[:8, :8] / 3
# Smooth: after 24 steps of noise ᾱ is 1e-7, which multiplies every error by 3,000.
ENDS = np.stack([np.sin(COLUMNS) * np.cos(ROWS), -np.sin(ROWS) * np.cos(COLUMNS)])
ENDS = (128 + 60 * ENDS).astype(np.uint8)
SEVEN = "--config.sampling.labels=7"
HEUN = ("--config.sampling.method=heun", "--config.sampling.steps=24")
BOTH = ("one.png", "two.png")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("given")
    for name, picture in zip(BOTH, ENDS, strict=True):
        Image.fromarray(picture).save(folder / name)
    Image.fromarray(np.zeros((8, 12), np.uint8)).save(folder / "wide.png")
    return folder


@pytest.fixture
def go(tell, files):
    """Return a function: run, further arguments → what was said, folder, images."""

    def edit(run, *arguments, images=BOTH):
        paths = [files / name for name in images]
        return small_runs.edited(tell, "interpolate", run, *arguments, images=paths)

    return edit


def psnr(one, other):
    gaps = (one.astype(float) - other.astype(float)) / 127.5
    return 10 * np.log10(4 / max(np.mean(gaps**2), 1e-12))


def test_the_ends_are_the_pictures_and_the_psnr_is_told(trained, go):
    told, folder, made = go(trained, *HEUN, SEVEN)
    assert told.status == 0, told.err
    assert made.shape == (8, 8, 8, 1)
    kept = json.loads((folder / "encoding.json").read_text())
    for number, (name, end) in enumerate(zip(BOTH, (0, -1), strict=True)):
        found = psnr(made[end, ..., 0], ENDS[number])
        # Kept values are clipped and rounded.
        assert found > kept["psnr"][number] - 0.5
        line = f"{name}: encoded and decoded with {kept['psnr'][number]:.1f} dB"
        assert line in told.out
    assert any(line.startswith("warning: latents of one.png") for line in told.lines)
    assert Image.open(folder / "preview.png").size[0] >= 10 * 64
    assert "neighbouring frames differ by" in told.out
    again, nothing, _ = go(trained, *HEUN, SEVEN)
    assert (again.status, nothing) == (0, None)
    assert "already" in again.out
    assert line in again.out


@pytest.mark.parametrize(("method", "least"), [("heun", 34.0), ("dpmpp_2m", 18.0)])
def test_solvers_of_second_order_encode_too(trained, go, method, least):
    told, folder, _ = go(
        trained,
        SEVEN,
        f"--config.sampling.method={method}",
        "--config.sampling.steps=24",
        f"--min-psnr={least}",
        "--frames=2",
    )
    assert told.status == 0, told.err
    kept = json.loads((folder / "encoding.json").read_text())
    assert min(kept["psnr"]) > least


def test_two_classes_and_any_batch(trained, go):
    options = (*HEUN, "--config.sampling.labels=7,2", "--frames=4")
    told, folder, made = go(trained, *options)
    assert told.status == 0, told.err
    assert psnr(made[0, ..., 0], ENDS[0]) > 25
    assert psnr(made[-1, ..., 0], ENDS[1]) > 25
    shutil.rmtree(folder)
    _, _, parts = go(trained, *options, "--config.sampling.batch_size=1")
    assert np.abs(parts.astype(int) - made.astype(int)).max() <= 1


def test_rows_of_noised_pictures(trained, go):
    options = ("--method=noised", SEVEN, "--levels=0.05,1", "--frames=3")
    told, _, made = go(trained, *options)
    assert told.status == 0, told.err
    assert f"rows at t = 1, 24 of {small_runs.T}" in told.out
    assert made.shape == (6, 8, 8, 1)
    # One step of noise is hardly any; from T on nothing is left of the pictures.
    assert psnr(made[0, ..., 0], ENDS[0]) > psnr(made[3, ..., 0], ENDS[0]) + 5
    middle = (ENDS[0] / 2 + ENDS[1] / 2).round()
    assert psnr(made[1, ..., 0], middle) > psnr(made[4, ..., 0], middle) + 5
    _, _, preserving = go(trained, *options, "--mix=preserving")
    assert np.any(preserving[1] != made[1])
    np.testing.assert_array_equal(preserving[0], made[0])


def test_between_noise_maps_the_ends_are_exact(trained, go):
    options = ("--method=noise_map", "--config.sampling.labels=7,2", "--frames=3")
    told, folder, made = go(trained, *options)
    assert told.status == 0, told.err
    np.testing.assert_array_equal(made[[0, 2], ..., 0], ENDS)
    assert min(psnr(made[1, ..., 0], end) for end in ENDS) < 30
    shutil.rmtree(folder)
    _, _, parts = go(trained, *options, "--config.sampling.batch_size=1")
    assert np.abs(parts.astype(int) - made.astype(int)).max() <= 1


def test_between_samples_the_ends_are_the_samples(trained, go, tell):
    told, _, made = go(trained, "--samples=0,7", "--frames=3", images=())
    assert told.status == 0, told.err
    tell(
        "--mode=sample",
        f"--workdir={trained}",
        "--config.sampling.method=ddim",
        "--config.sampling.num_samples=8",
    )
    (archive,) = (trained / "samples").glob("*/samples.npz")
    samples = np.load(archive)["arr_0"].astype(int)
    assert np.abs(made[[0, -1]] - samples[[0, 7]]).max() <= 1


def test_between_classes_of_one_sample(trained, go, tell):
    told, _, made = go(
        trained,
        "--samples=4",
        "--config.sampling.labels=3,5",
        "--frames=3",
        images=(),
    )
    assert told.status == 0, told.err
    ends = []
    for label in (3, 5):
        shutil.rmtree(trained / "samples", ignore_errors=True)
        tell(
            "--mode=sample",
            f"--workdir={trained}",
            "--config.sampling.method=ddim",
            "--config.sampling.num_samples=8",
            f"--config.sampling.labels={label}",
        )
        (archive,) = (trained / "samples").glob("*/samples.npz")
        ends.append(np.load(archive)["arr_0"][4].astype(int))
    assert np.abs(made[[0, -1]] - np.stack(ends)).max() <= 1


@pytest.mark.parametrize(
    ("arguments", "images", "words"),
    [
        ((SEVEN,), BOTH[:1], ["1 pictures", "--image=G", "--samples=0,7"]),
        ((SEVEN,), (*BOTH, "one.png"), ["3 pictures"]),
        ((SEVEN, "--keep-size"), ("one.png", "wide.png"), ["8x8, 8x12", "one by one"]),
        ((SEVEN, "--samples=0,7"), BOTH, ["--samples=0,7", "keep one"]),
        ((), BOTH, ["sampling.labels", "0, 1, 2"]),
        ((SEVEN, "--frames=1"), BOTH, ["frames=1", "at least 2"]),
        ((SEVEN, "--method=dream"), BOTH, ["'dream'", "encode, noise_map, noised"]),
        ((SEVEN, "--mix=cubic"), BOTH, ["'cubic'", "spherical"]),
        ((SEVEN, "--method=noised", "--mix=spherical"), BOTH, ["linear, preserving"]),
        ((SEVEN, "--method=noised", "--levels=0,1"), BOTH, ["(0, 1)", "above 0"]),
        (
            (SEVEN, "--method=noised", "--config.sampling.method=heun"),
            BOTH,
            ["'heun'", "ancestral"],
        ),
        (
            (SEVEN, "--config.sampling.method=ddim", "--config.sampling.eta=0.5"),
            BOTH,
            ["eta=0.5", "leave it 0"],
        ),
        ((SEVEN, *HEUN, "--min-psnr=300"), BOTH, ["300", "heun", "--force"]),
        ((SEVEN, "--config.sampling.steps=12"), BOTH, ["dB", "min_psnr is 25"]),
        (
            (SEVEN, *HEUN, "--config.sampling.guidance_w=1"),
            BOTH,
            ["guidance_scale=2", "--force"],
        ),
        ((SEVEN, *HEUN, "--levels=0.5"), BOTH, ["no effect", "noised"]),
        ((SEVEN, "--samples=4"), (), ["names 1 classes"]),
        (("--samples=4",), (), ["both ends", "two numbers"]),
        (("--samples=0,2147483648",), (), ["2147483648", "0 … 2147483647"]),
        ((SEVEN, *HEUN, "--config.sampling.temperature=2"), BOTH, ["temperature=2"]),
        (
            (SEVEN, "--method=noise_map", "--config.sampling.method=ddim"),
            BOTH,
            ["'ddim'", "no noise maps", "ancestral"],
        ),
        (("--samples=1,2,3",), (), ["(1, 2, 3)", "0,7"]),
    ],
)
def test_refusals(first_run, go, arguments, images, words):
    told, _, _ = go(first_run[0], *arguments, images=images)
    assert told.status == 1
    assert [word for word in words if word not in told.err] == []
    assert len(told.err.splitlines()) == 1
    assert not (first_run[0] / "edits").exists()
