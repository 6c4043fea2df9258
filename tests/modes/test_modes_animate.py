"""--mode=animate on a tiny run: frames are the samples that they should be."""

import importlib.util
import io
import json
import re
import shutil
from fractions import Fraction

import jax
import numpy as np
import pytest
from PIL import Image

from ddpm_jax.builders import trained_run
from ddpm_jax.editing import animation
from ddpm_jax.report import animations, sheets
from ddpm_jax.sampling import archive
from ddpm_jax.sampling import sampler as sampler_lib

DDIM = "--config.sampling.method=ddim"
TWO = "--variants=2"
KINDS = {  # arguments, frames
    "denoise": ((), 5),  # x_T and what 4 steps make of it
    "walk": ((DDIM, "--seeds=2", "--frames=6"), 6),
    "morph": ((DDIM, "--config.sampling.labels=3,8", "--frames=8"), 8),
    "guidance": (("--frames=6", "--config.sampling.labels=3"), 6),
}
FACTOR, GAP = 16, 4  # two images of 8x8 in a frame: each is 128 pixels wide


@pytest.fixture
def animate(tell):
    """Return a function: run, kind, arguments → what was said, folder, frames."""

    def edit(run, kind, *arguments):
        told = tell(
            "--mode=animate", f"--workdir={run}", f"--kind={kind}", TWO, *arguments
        )
        found = re.search(r"frames: +(.+)/samples.npz", told.out)
        if not found:
            return told, None, None
        folder = run / "edits" / found[1].rpartition("/")[2]
        with np.load(folder / "samples.npz") as stored:
            return told, folder, stored["arr_0"]

    return edit


@pytest.fixture(autouse=True)
def lively(monkeypatch):
    """Weights at which classes matter: six steps of training leave no trace of them."""
    weights_of = trained_run.TrainedRun._weights

    def changed(self, params, kind, why):
        random = np.random.default_rng(0)
        params = jax.tree.map(
            lambda p: p + 0.2 * random.normal(size=p.shape).astype(p.dtype), params
        )
        return weights_of(self, params, kind, why)

    monkeypatch.setattr(trained_run.TrainedRun, "_weights", changed)


@pytest.fixture
def sampled(tell):
    """Return a function: run, arguments → samples as they are stored."""

    def sample(run, *arguments):
        shutil.rmtree(run / "samples")
        told = tell("--mode=sample", f"--workdir={run}", *arguments)
        assert told.status == 0, told.err
        with np.load(next(run.glob("samples/*/samples.npz"))) as stored:
            return stored["arr_0"]

    return sample


def played(path, *, fps):
    """Return the pictures of a file, each as often as its time says."""
    pictures = []
    with Image.open(path) as image:
        for number in range(image.n_frames):
            image.seek(number)
            shown = np.asarray(image.convert("L"))
            pictures += [shown] * round(image.info["duration"] * fps / 1000)
    return np.stack(pictures)


def tile(pictures, number):
    """Return one of the images in played pictures, at its own size."""
    left = number * (8 * FACTOR + GAP)
    part = pictures[:, : 8 * FACTOR, left : left + 8 * FACTOR]
    small = part[:, ::FACTOR, ::FACTOR]
    enlarged = small.repeat(FACTOR, axis=1).repeat(FACTOR, axis=2)
    np.testing.assert_array_equal(part, enlarged)
    return small


def distances(frames):
    """Return root mean squared differences of neighbours, the last to the first too."""
    values = frames.astype(np.float64)
    following = np.concatenate([values[1:], values[:1]])
    axes = tuple(range(1, values.ndim))
    return np.sqrt(((values - following) ** 2).mean(axis=axes))


@pytest.mark.parametrize("kind", KINDS)
def test_a_film_plays_the_frames_that_are_kept(trained, animate, kind):
    arguments, count = KINDS[kind]
    told, folder, frames = animate(trained, kind, "--fps=10", *arguments)
    assert told.status == 0, told.err
    images = 4 if kind == "denoise" else 2  # x_t, and the estimates
    assert frames.shape == (count, images, 8, 8, 1)
    pictures = played(folder / "animation.gif", fps=10)
    held = 15 if kind == "denoise" else 0  # it is no loop, and ends on the image
    assert len(pictures) == count + held
    for image in range(2):
        shown = tile(pictures, image)[:count]
        np.testing.assert_array_equal(shown, frames[:, image, ..., 0])
    is_loop = kind != "denoise"
    apart = distances(frames) if is_loop else distances(frames)[:-1]
    assert f"{apart.mean():.2f} grey levels of 255 apart" in told.out
    assert f"at most {apart.max():.2f}" in told.out
    assert apart.min() > 0
    if is_loop:
        assert f"the first: {apart[-1]:.2f}" in told.out
        assert apart[-1] < 2 * apart[:-1].max()
    with Image.open(folder / "strip.png") as strip:
        assert strip.size[0] > count * 64
    request = json.loads((folder / "request.json").read_text())
    assert request["edit"] == "animate"
    assert request.get("kind", "denoise") == kind


def test_a_chain_begins_with_noise_and_ends_with_the_sample(trained, animate, sampled):
    _, _, frames = animate(trained, "denoise")
    made = sampled(trained)
    for half in (frames[-1, :2], frames[-1, 2:]):
        np.testing.assert_array_equal(half, made[:2])
    # A normal draw of deviation 1 is beyond ±1 for 31.7 % of the pixels, where it is
    # shown as black or white: 128 pixels, 4 standard errors.
    clipped = np.isin(frames[0, :2], (0, 255)).mean()
    assert abs(clipped - 0.317) < 4 * (0.317 * 0.683 / 128) ** 0.5


def test_a_walk_passes_the_samples_of_its_seeds(trained, animate, sampled):
    _, _, frames = animate(trained, *("walk", *KINDS["walk"][0]))
    for seed, frame in ((0, 0), (1, 3)):
        made = sampled(trained, DDIM, f"--config.sampling.seed={seed}")
        np.testing.assert_array_equal(frames[frame], made[:2])


def test_a_morph_passes_its_classes_and_mixes_them_between(trained, animate, sampled):
    _, _, frames = animate(trained, *("morph", *KINDS["morph"][0]))
    for label, frame in ((3, 0), (8, 4)):
        made = sampled(trained, DDIM, f"--config.sampling.labels={label}")
        assert np.abs(frames[frame].astype(int) - made[:2]).max() <= 1
    # Three quarters of the way: away from 3 by a scale of ¾; DDIM reads no variance.
    made = sampled(
        trained,
        DDIM,
        "--config.sampling.labels=8",
        "--config.sampling.negative=3",
        "--config.sampling.guidance_scale=0.75",
    )
    assert np.abs(frames[3].astype(int) - made[:2]).max() <= 1
    np.testing.assert_array_equal(frames[5], frames[3])  # the way back
    assert distances(frames).min() > 1


def test_a_sweep_has_the_samples_of_its_scales(trained, animate, sampled):
    options = ("--scales=1,4", *KINDS["guidance"][0])
    told, _, frames = animate(trained, "guidance", *options)
    assert told.status == 0, told.err
    for scale, frame in ((1, 0), (1 + 3 * (2 / 3) ** 2, 2), (4, 3)):
        made = sampled(
            trained,
            "--config.sampling.labels=3",
            f"--config.sampling.guidance_scale={scale}",
        )
        assert np.abs(frames[frame].astype(int) - made[:2]).max() <= 1
    np.testing.assert_array_equal(frames[4], frames[2])
    assert distances(frames).min() > 1


def test_frames_share_a_program_and_equal_ones_are_made_once(
    trained, animate, monkeypatch
):
    programs, made = [], []
    build, make = sampler_lib._program, sampler_lib.Sampler.make

    def building(*args):
        programs.append(build(*args))
        return programs[-1]

    def making(self, *args, **kwargs):
        if self._inputs["count"] > 1:  # not the one that tells the time
            made.append(self)
        return make(self, *args, **kwargs)

    monkeypatch.setattr(sampler_lib, "_program", building)
    monkeypatch.setattr(sampler_lib.Sampler, "make", making)
    animate(trained, *("morph", *KINDS["morph"][0]))
    assert len(programs) == 1
    assert programs[0]._cache_size() == 1
    assert len(made) == 5  # of 8: the way back is the way there


def test_another_format_makes_no_frame_anew(trained, animate):
    first, folder, _ = animate(trained, "denoise", "--fps=10")
    assert "already" not in first.out
    before = (folder / "samples.npz").read_bytes()
    gif = played(folder / "animation.gif", fps=10)
    for format, name in (("webp", "animation.webp"), ("apng", "animation.png")):
        again, same, _ = animate(trained, "denoise", "--fps=10", f"--format={format}")
        assert "5 frames exist already" in again.out
        assert same == folder
        shown = played(folder / name, fps=10)
        np.testing.assert_array_equal(shown, gif)
    assert (folder / "samples.npz").read_bytes() == before


def test_an_interruption_changes_no_frame(trained, animate, interrupted):
    walk = ("walk", *KINDS["walk"][0])
    _, folder, whole = animate(trained, *walk)
    shutil.rmtree(folder)
    told, _, _ = interrupted(
        archive.SampleStore, "add", lambda: animate(trained, *walk)
    )
    assert "stopped by SIGINT after 1 of 6 frames" in told.out
    told, _, frames = animate(trained, *walk)
    assert "after 1 of 6 frames" in told.out
    np.testing.assert_array_equal(frames, whole)


def test_training_is_a_film_of_its_grids(trained, animate):
    files = sorted(trained.glob("samples/step_*.png"))
    told, folder, frames = animate(trained, "train", "--fps=10")
    assert told.status == 0, told.err
    assert len(frames) == len(files) >= 2
    for frame, file in zip(frames, files, strict=True):
        np.testing.assert_array_equal(frame[0, ..., 0], np.asarray(Image.open(file)))
    shown = played(folder / "animation.gif", fps=10)
    height, width = frames.shape[2:4]
    ends = shown[: len(files), :height, :width]
    np.testing.assert_array_equal(ends, frames[:, 0, ..., 0])
    again, same, _ = animate(trained, "train", "--fps=10")
    assert "already" in again.out
    assert same == folder
    files[0].unlink()
    for file in files[2:]:
        file.unlink()
    told, _, _ = animate(trained, "train")
    assert told.status == 1
    assert "with 1 grids" in told.err
    assert "train.sample_every" in told.err


WALK = ("--kind=walk", DDIM)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--kind=dance",), ["'dance'", "denoise", "guidance", "morph", "walk"]),
        (("--format=avi",), ["'avi'", "gif", "apng", "webp", "mp4"]),
        (("--format=mp4",), ["pip install 'ddpm_jax[video]'", "gif"]),
        (("--fps=100",), ["fps=100", "at most 50", "webp"]),
        (("--frames=1",), ["frames=1", "at least 2"]),
        (("--frames=9",), ["frames=9", "at most 5", "sampling.steps"]),
        (("--kind=walk",), ["method=ancestral", "ddim", "heun", "dpmpp_2m"]),
        ((*WALK, "--config.sampling.eta=0.5"), ["eta=0.5", "ddim with eta 0"]),
        ((*WALK, "--seeds=1"), ["seeds=1", "at least 2"]),
        ((*WALK, "--frames=3"), ["frames=3", "at least 4"]),
        ((*WALK, "--scales=1,2"), ["scales", "--kind=guidance"]),
        (("--seeds=3",), ["seeds=3", "--kind=walk"]),
        (("--kind=guidance", "--scales=2,2"), ["scales=2,2", "--scales=0,6"]),
        (
            ("--kind=guidance", "--config.sampling.guidance_scale=3"),
            ["guidance_scale=3", "--scales=0,6"],
        ),
        (
            ("--kind=morph", "--config.sampling.guidance_scale=3"),
            ["guidance_scale=3", "leave it 1"],
        ),
        (("--kind=morph", "--config.sampling.labels=3"), ["classes 3", "two or more"]),
        (("--kind=morph", "--config.sampling.labels=random"), ["needs the classes"]),
    ],
)
def test_refusals(first_run, trained, tell, monkeypatch, arguments, words):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "imageio_ffmpeg" else find(name, *rest),
    )
    told = tell("--mode=animate", f"--workdir={trained}", *arguments)
    assert told.status == 1
    assert [word for word in words if word not in told.err] == []
    assert len(told.err.splitlines()) == 1
    assert not (trained / "edits").exists()


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        (
            "morph",
            {"model.class_conditional": False, "train.label_dropout": 0.0},
            ["without classes", "--kind=walk"],
        ),
        (
            "guidance",
            {"train.label_dropout": 0.0},
            ["unconditional branch", "negative", "train.label_dropout"],
        ),
    ],
)
def test_runs_that_have_no_classes_to_change(trained, tell, kind, changes, words):
    path = trained / "config.json"
    saved = json.loads(path.read_text())
    for name, value in changes.items():
        section, field = name.split(".")
        saved["config"][section][field] = value
    path.write_text(json.dumps(saved))
    told = tell("--mode=animate", f"--workdir={trained}", f"--kind={kind}")
    assert told.status == 1
    assert [word for word in words if word not in told.err] == []


# ---- parts ---------------------------------------------------------------------------


@pytest.mark.parametrize(("frames", "legs"), [(2, 2), (7, 3), (24, 4), (96, 1)])
def test_every_leg_of_a_loop_begins_at_its_start(frames, legs):
    found = animation.round_trip(frames, legs)
    assert len(found) == frames
    assert [leg for leg, share in found if share == 0] == list(range(legs))
    way = [leg + share for leg, share in found]
    steps = np.diff([*way, Fraction(legs)]).astype(float)
    assert steps.min() > 0
    assert steps.max() <= 2 * steps.min()


def test_colours_have_one_palette_and_do_not_flicker():
    random = np.random.default_rng(3)
    still = random.integers(0, 256, (16, 16, 3), np.uint8)
    frames = [np.concatenate([still, np.roll(still, k, 0)]) for k in range(4)]
    data = animations.encode(frames, "gif", fps=10, is_loop=True)
    with Image.open(io.BytesIO(data)) as image:
        shown = []
        for number in range(image.n_frames):
            image.seek(number)
            shown.append(np.asarray(image.convert("RGB")))
    assert len(shown) == 4
    for picture, frame in zip(shown, frames, strict=True):
        np.testing.assert_array_equal(picture[:16], shown[0][:16])
        assert np.abs(picture.astype(int) - frame).mean() < 12
    webp = animations.encode(frames, "webp", fps=10, is_loop=True)
    with Image.open(io.BytesIO(webp)) as image:
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), frames[0])


def test_words_fit_into_their_bar():
    bar = sheets.words("a very long name of a class, and more of it", (0, 64, 1))
    assert bar.shape == (20, 64, 1)
    assert bar.min() < 100  # there are words …
    assert bar[:, [0, -1]].min() > 200  # … and they end before the edge
