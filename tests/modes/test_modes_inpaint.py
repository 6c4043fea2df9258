"""--mode=inpaint on a tiny run: what is known stays, to the bit."""

import json
import pathlib
import shutil

import numpy as np
import pytest
import small_runs
from PIL import Image

RANDOM = np.random.default_rng(5)
GREY = RANDOM.integers(0, 256, (8, 8), np.uint8)
HOLE = np.zeros((8, 8), bool)
HOLE[4:, 2:] = True


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("given")
    Image.fromarray(GREY).save(folder / "seven.png")
    Image.fromarray(GREY.T.copy()).save(folder / "other.png")
    Image.fromarray(np.where(HOLE, 255, 0).astype(np.uint8)).save(folder / "hole.png")
    return folder


@pytest.fixture
def inpaint(tell, files):
    """Return a function: run, further arguments → what was said, folder, images."""

    def edit(run, *arguments, images=("seven.png",), mask="hole.png"):
        return small_runs.edited(
            tell,
            "inpaint",
            run,
            *([f"--mask={files / mask}"] if mask else []),
            "--config.sampling.labels=3",
            *arguments,
            images=[files / name for name in images],
        )

    return edit


METHODS = {
    "replace": ("--method=replace",),
    "repaint": ("--method=repaint", "--resamplings=2", "--jump=1"),
    "guided": ("--method=guided", "--config.sampling.method=ddim"),
}


@pytest.mark.parametrize("method", METHODS)
def test_known_pixels_come_back_to_the_bit(trained, inpaint, method):
    told, folder, made = inpaint(trained, *METHODS[method])
    assert told.status == 0, told.err
    assert made.shape == (4, 8, 8, 1)
    known = np.broadcast_to(~HOLE, (4, 8, 8))
    np.testing.assert_array_equal(made[..., 0][known], np.tile(GREY[~HOLE], 4))
    # Variants differ from each other in the hole.
    for other in made[1:]:
        assert np.any(made[0][HOLE] != other[HOLE])
    for number in range(4):
        png = np.asarray(Image.open(folder / "images" / f"{number:04d}.png"))
        np.testing.assert_array_equal(png, made[number, ..., 0])
    assert Image.open(folder / "preview.png").size[0] > 6 * 64
    said = "\n".join(told.lines)
    assert f"{100 * HOLE.mean():.3g} %" in said
    assert "white in hole.png" in said
    assert "known-pixel error 0" in said
    request = json.loads((folder / "request.json").read_text())
    assert request["edit"] == "inpaint"


def test_the_same_command_says_that_it_is_done_and_another_begins_anew(
    trained, inpaint, files, tell
):
    _, folder, _ = inpaint(trained, "--method=replace")
    before = (folder / "samples.npz").read_bytes()
    again, nothing, _ = inpaint(trained, "--method=replace")
    assert again.status == 0
    assert nothing is None
    assert "exist already" in again.out
    assert (folder / "samples.npz").read_bytes() == before
    _, turned, made = inpaint(trained, "--method=replace", "--invert")
    assert turned not in (None, folder)
    np.testing.assert_array_equal(made[0, ..., 0][HOLE], GREY[HOLE])


def test_several_pictures_and_any_batch(trained, inpaint):
    pictures = ("seven.png", "other.png")
    options = ("--method=replace", "--variants=3")
    _, folder, made = inpaint(trained, *options, images=pictures)
    given = [GREY, GREY.T]
    for number, image in enumerate(made):
        expected = given[number // 3][~HOLE]
        np.testing.assert_array_equal(image[..., 0][~HOLE], expected)
    shutil.rmtree(folder)
    _, _, parts = inpaint(
        trained, *options, "--config.sampling.batch_size=1", images=pictures
    )
    assert np.abs(parts.astype(int) - made.astype(int)).max() <= 1


def test_a_box_and_the_whole_picture(trained, inpaint, files):
    large = RANDOM.integers(0, 256, (16, 24), np.uint8)
    Image.fromarray(large).save(files / "large.png")
    told, folder, _ = inpaint(
        trained,
        "--method=replace",
        "--box=8,4,6,8",
        "--paste",
        "--variants=2",
        images=("large.png",),
        mask="",
    )
    assert told.status == 0, told.err
    pasted = np.asarray(Image.open(folder / "pasted" / "0001.png"))
    assert pasted.shape == (16, 24)
    outside = np.ones((16, 24), bool)
    outside[4:12, 8:14] = False
    np.testing.assert_array_equal(pasted[outside], large[outside])
    assert np.any(pasted[~outside] != large[~outside])


def test_another_size_on_request(trained, inpaint, files):
    wide = RANDOM.integers(0, 256, (8, 12), np.uint8)
    Image.fromarray(wide).save(files / "wide.png")
    told, _, made = inpaint(
        trained,
        "--method=replace",
        "--keep-size",
        "--box=0,0,5,8",
        images=("wide.png",),
        mask="",
    )
    assert told.status == 0, told.err
    assert made.shape == (4, 8, 12, 1)
    np.testing.assert_array_equal(made[0, :, 5:, 0], wide[:, 5:])


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((), {"mask": ""}, ["--mask", "--box"]),
        ((), {"images": ()}, ["--image"]),
        ((), {"images": ("no.png",)}, ["no.png"]),
        (("--method=erase",), {}, ["'erase'", "guided", "repaint", "replace"]),
        (("--method=delta",), {}, ["'delta'", "gaussian_2015", "repaint"]),
        (("--jump=9",), {}, ["jump of 9", "4 steps"]),
        (("--method=guided", "--quality=best"), {}, ["quality", "--method=repaint"]),
        (("--method=replace", "--jump=2"), {}, ["jump=2", "no effect"]),
        (("--config.sampling.labels=",), {}, ["sampling.labels is empty", "0, 1"]),
        (("--config.sampling.labels=1,2",), {}, ["2 classes for 1 pictures"]),
        (("--labels=likeliest",), {}, ["likeliest", "with holes", "name the class"]),
        (
            ("--config.sampling.method=dpmpp_2m",),
            {},
            ["repaint", "sampling.method=ancestral"],
        ),
        (("--variants=0",), {}, ["variants=0", "at least 1"]),
        (("--box=1,2,3",), {"mask": ""}, ["1,2,3", "x,y,width,height"]),
    ],
)
def test_refusals(trained, inpaint, arguments, options, words):
    told, _, _ = inpaint(trained, *arguments, **options)
    assert told.status == 1
    assert [word for word in words if word not in told.err] == []
    assert len(told.err.splitlines()) == 1
    assert not (pathlib.Path(trained) / "edits").exists()
