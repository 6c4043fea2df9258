"""Grids on the page: halves, budgets, which ones."""

import base64
import io

import numpy as np
import pytest
import written_runs as runs
from PIL import Image

from ddpm_jax.report import grids

RANDOM = np.random.default_rng(1)


def noise(count, side, channels=3):
    return RANDOM.integers(0, 256, (count, side, side, channels), dtype=np.uint8)


def shown(page):
    """The pictures of a page as arrays, by their texts."""
    found = {}
    for image in page.all("img"):
        data = base64.b64decode(image["src"].partition(",")[2])
        with Image.open(io.BytesIO(data)) as opened:
            found[image["alt"]] = np.asarray(opened)
    return found


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_raw_and_ema_are_told_apart_pixel_by_pixel(tmp_path, channels):
    run_dir = runs.make(tmp_path / "run")
    raw, ema = noise(16, 32, channels), noise(16, 32, channels)
    runs.write_pair(run_dir, 700, raw, ema)
    found = shown(runs.Page(grids.film(run_dir)))
    for name, images in (("raw", raw), ("EMA", ema)):
        picture = found[f"Samples at step 700, {name} weights"]
        first = picture.reshape(*picture.shape[:2], -1)[:32, :32]
        np.testing.assert_array_equal(first, images[0])


def test_a_grid_without_a_gap_is_shown_whole():
    for width in (33, 60, 16, 10):
        image = Image.fromarray(np.zeros((20, width, 3), np.uint8))
        assert [half.size for half in grids.split(image)] == [(width, 20)]


@pytest.mark.parametrize("limit", [1_000, 20_000, 200_000])
def test_a_picture_keeps_to_its_budget_and_its_shown_size(limit):
    image = Image.fromarray(noise(1, 400)[0])
    made = grids.encode(image, None, limit)
    assert len(made.data) <= limit
    assert (made.width, made.height) == (400, 400)
    assert made.mime == "image/webp"


def test_a_smooth_picture_stays_recognisable():
    ramp = np.linspace(0, 255, 512)[None, :, None]
    image = Image.fromarray(np.broadcast_to(ramp, (512, 512, 3)).astype(np.uint8))
    made = grids.encode(image, None, 800)
    with Image.open(io.BytesIO(made.data)) as opened:
        back = np.asarray(opened.convert("RGB").resize((512, 512)), np.float64)
    assert np.abs(back - np.asarray(image)).mean() < 4


def test_a_small_file_goes_in_as_it_is(tmp_path):
    path = tmp_path / "grid.png"
    Image.fromarray(noise(1, 16)[0]).save(path)
    made = grids.encode(Image.open(path), path, 10_000)
    assert made.data == path.read_bytes()


def test_frames_are_spread_from_the_first_to_the_last():
    chosen = grids.evenly(list(range(101)), 11)
    assert chosen == list(range(0, 101, 10))
    assert grids.evenly([1, 2], 11) == [1, 2]


def test_other_files_are_no_frames(tmp_path):
    run_dir = runs.make(tmp_path / "run")
    for step in (20, 100, 3):
        runs.write_pair(run_dir, step, noise(2, 8), noise(2, 8))
    for name in ("step_.png", "step_5.png.tmp", "step_x.png", ".step_7.png.ab.tmp"):
        (run_dir.samples / name).write_bytes(b"")
    assert [step for step, _ in grids.training_frames(run_dir)] == [3, 20, 100]


def test_a_damaged_file_is_named_and_stops_nothing(tmp_path):
    run_dir = runs.make(tmp_path / "run")
    whole = runs.write_pair(run_dir, 5, noise(16, 32), noise(16, 32)).read_bytes()
    (run_dir.samples / "step_7.png").write_bytes(whole[:2000])
    (run_dir.samples / "tag").mkdir()
    (run_dir.samples / "tag" / "grid.png").write_bytes(b"")
    page = runs.Page(grids.film(run_dir))
    for part in ("samples/step_7.png", "no picture"):
        assert part in page.text
    assert len(page.all("img")) == 2
    page = runs.Page(grids.tagged(run_dir))
    for part in ("samples/tag/grid.png", "no picture"):
        assert part in page.text


def test_sampled_folders_are_shown_newest_first_within_the_budget(tmp_path):
    import os

    run_dir = runs.make(tmp_path / "run")
    for index in range(grids.MAX_TAGGED + 2):
        path = run_dir.samples / f"tag{index}" / "grid.png"
        runs.image_grid.write_png(path, noise(1, 200)[0])
        os.utime(path, (index + 1, index + 1))
    made = grids.tagged(run_dir)
    found = runs.Page(made)
    assert [image["alt"] for image in found.all("img")] == [
        f"Samples tag{index}" for index in range(grids.MAX_TAGGED + 1, 1, -1)
    ]
    assert "2 more folders in samples/." in found.text
    assert len(made) < grids.TAGGED_BYTES * 4 / 3 + 5_000
