"""Pictures and masks that are given to be edited."""

import numpy as np
import pytest
from PIL import Image

from ddpm_jax.core import errors
from ddpm_jax.data import crops, inputs

SHAPE = (8, 8, 1)


def grey(height=8, width=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)


@pytest.fixture
def save(tmp_path):
    def write(name, pixels, **options):
        path = tmp_path / name
        Image.fromarray(pixels).save(path, **options)
        return str(path)

    return write


def read(path, shape=SHAPE, **options):
    return inputs.read_picture(path, **{"shape": shape, "levels": 256, **options})


def mask_of(hole):
    return np.where(hole, 255, 0).astype(np.uint8)


def test_a_picture_of_the_size_of_the_run_is_taken_as_it_is(save):
    pixels = grey()
    picture = read(save("a.png", pixels))
    np.testing.assert_array_equal(picture.fitted[..., 0], pixels)
    np.testing.assert_allclose(picture.values[..., 0], pixels / 127.5 - 1, atol=1e-6)
    assert picture.remarks == ()


def test_another_size_is_cut_as_training_images_are(save):
    pixels = grey(21, 34)
    picture = read(save("a.png", pixels))
    np.testing.assert_array_equal(
        picture.fitted, crops.center(pixels[..., None], (8, 8))
    )
    assert "21x34" in picture.remarks[0]
    assert "8x8" in picture.remarks[0]


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "1"])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_mode_becomes_what_the_run_takes(save, tmp_path, mode, channels):
    path = tmp_path / "a.png"
    Image.fromarray(np.repeat(grey()[..., None], 3, -1)).convert(mode).save(path)
    picture = read(str(path), (8, 8, channels))
    assert picture.fitted.shape == (8, 8, channels)
    assert picture.fitted.dtype == np.uint8
    assert (picture.opacity is not None) == (mode in ("RGBA", "LA"))


def test_depth_follows_the_run(save):
    deep = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    path = save("deep.png", deep)
    picture = read(path)
    assert picture.fitted.dtype == np.uint8
    assert any("16 bits" in line for line in picture.remarks)
    np.testing.assert_allclose(picture.fitted[..., 0], deep / 257, atol=0.51)
    assert read(path, levels=65536).fitted.dtype == np.uint16
    shallow = read(save("a.png", grey()), levels=65536)
    np.testing.assert_array_equal(shallow.fitted[..., 0], grey().astype(int) * 257)


def test_exif_turns_a_picture_upright(save):
    pixels = grey(8, 8)
    exif = Image.Exif()
    exif[0x0112] = 6  # the top row is on the right: turn clockwise
    picture = read(save("a.png", pixels, exif=exif))
    np.testing.assert_array_equal(picture.fitted[..., 0], np.rot90(pixels, -1))


def test_white_is_to_be_made(save):
    hole = grey(seed=1) > 127
    picture, mask = read(save("a.png", grey())), save("mask.png", mask_of(hole))
    found = inputs.read_hole(picture, mask=mask)
    np.testing.assert_array_equal(found.fitted, hole)
    assert "white in mask.png" in found.remarks[0]
    assert f"{100 * hole.mean():.3g} %" in found.remarks[0]
    turned = inputs.read_hole(picture, mask=mask, invert=True)
    np.testing.assert_array_equal(turned.fitted, ~hole)
    assert "black in mask.png" in turned.remarks[0]


def test_grey_values_of_a_mask_are_counted_and_cut_at_half(save):
    values = np.zeros((8, 8), np.uint8)
    values[0, :4] = 255, 200, 128, 127
    picture = read(save("a.png", grey()))
    found = inputs.read_hole(picture, mask=save("m.png", values))
    assert found.fitted.sum() == 3
    assert any("3 pixels" in line and "grey" in line for line in found.remarks)


def test_transparent_pixels_are_to_be_made(save):
    opacity = mask_of(grey(seed=2) > 100)
    picture = read(save("a.png", np.stack([grey()] * 3 + [opacity], -1)))
    found = inputs.read_hole(picture)
    np.testing.assert_array_equal(found.fitted, opacity == 0)
    assert "transparent" in found.remarks[0]


def test_a_box(save):
    picture = read(save("a.png", grey(16, 16)))
    found = inputs.read_hole(picture, box=(4, 2, 6, 3))
    expected = np.zeros((16, 16), bool)
    expected[2:5, 4:10] = True
    np.testing.assert_array_equal(found.original, expected)
    # Two by two pixels become one: any hole makes a hole.
    np.testing.assert_array_equal(
        found.fitted, expected.reshape(8, 2, 8, 2).any(axis=(1, 3))
    )


@pytest.mark.parametrize("size", [(16, 16), (24, 31), (13, 9), (8, 40), (5, 5)])
def test_any_hole_makes_a_hole(size):
    hole = np.zeros(size, bool)
    for _ in range(20):
        place = tuple(np.random.default_rng(_).integers(0, size))
        hole[:] = False
        hole[place] = True
        small = inputs.shrunk(hole, (8, 8))
        # The fitted picture changes nowhere else when that pixel changes, but for the
        # rim of the bicubic filter.
        scale = max(8 / size[0], 8 / size[1])
        middle = [
            (p + 0.5) * scale - (round(s * scale) - 8) // 2
            for p, s in zip(place, size, strict=True)
        ]
        inside = all(0 <= m < 8 for m in middle)
        if inside:
            assert small[tuple(int(m) for m in middle)]
        assert small.sum() <= (np.ceil(max(scale, 1)) + 1) ** 2


def test_a_mask_of_the_fitted_size(save):
    picture = read(save("a.png", grey(16, 16)))
    hole = grey(seed=3) > 90
    found = inputs.read_hole(picture, mask=save("m.png", mask_of(hole)))
    np.testing.assert_array_equal(found.fitted, hole)
    np.testing.assert_array_equal(found.original, np.kron(hole, np.ones((2, 2), bool)))


def test_refusals(save, tmp_path):
    picture = read(save("a.png", grey()))
    black, white = (save(f"{v}.png", np.full((8, 8), v, np.uint8)) for v in (0, 255))
    frames = [Image.fromarray(grey(seed=s)) for s in range(3)]
    gif = tmp_path / "a.gif"
    frames[0].save(gif, save_all=True, append_images=frames[1:])
    text = tmp_path / "a.txt"
    text.write_text("no picture")
    small = save("small.png", np.zeros((4, 4), np.uint8))
    cases = [
        (lambda: inputs.read_hole(picture), ["--mask", "--box"]),
        (lambda: inputs.read_hole(picture, mask=black), ["no pixels", "--invert"]),
        (lambda: inputs.read_hole(picture, mask=white), ["all pixels", "--invert"]),
        (lambda: inputs.read_hole(picture, mask=small), ["4x4", "8x8"]),
        (lambda: inputs.read_hole(picture, box=(5, 5, 9, 1)), ["5,5,9,1", "8 wide"]),
        (lambda: inputs.read_hole(picture, box=(5, 5)), ["5,5", "x,y,width,height"]),
        (lambda: inputs.read_hole(picture, mask=black, box=(0, 0, 1, 1)), ["keep one"]),
        (lambda: read(gif), ["a.gif", "several"]),
        (lambda: read(text), ["a.txt"]),
        (lambda: read(tmp_path), ["folder"]),
        (lambda: read(tmp_path / "no.png"), ["no.png"]),
        (lambda: read(save("b.png", grey(9, 8)), crop="none"), ["9x8", "8x8"]),
        (lambda: read(save("b.png", grey(9, 8)), keep_size=4), ["9x8", "4", "8x8"]),
    ]
    for ask, words in cases:
        with pytest.raises(errors.Refusal) as refusal:
            ask()
        assert [w for w in words if w not in str(refusal.value)] == []


def test_a_picture_may_keep_its_size(save):
    picture = read(save("a.png", grey(12, 20)), keep_size=4)
    np.testing.assert_array_equal(picture.fitted[..., 0], grey(12, 20))
