import math

import numpy as np
import pytest
from PIL import Image

from ddpm_jax.data import crops, transforms


def picture(height, width, channels=3, dtype=np.uint8, seed=0):
    top = np.iinfo(dtype).max + 1
    rng = np.random.default_rng(seed)
    return rng.integers(0, top, (height, width, channels), dtype=dtype)


def published_scaling(image, side):
    """The scaling of guided-diffusion as its specification states it, square only."""
    image = Image.fromarray(image).convert("RGB")
    while min(image.size) >= 2 * side:
        image = image.resize(
            (image.width // 2, image.height // 2), Image.Resampling.BOX
        )
    scale = side / min(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC))


@pytest.mark.parametrize(
    ("height", "width", "side"),
    [(64, 64, 32), (65, 130, 32), (131, 77, 32), (33, 40, 32), (300, 257, 17)],
)
def test_centre_crops_are_guided_diffusions(height, width, side):
    image = picture(height, width)
    scaled = published_scaling(image, side)
    top, left = (scaled.shape[0] - side) // 2, (scaled.shape[1] - side) // 2
    expected = scaled[top : top + side, left : left + side]
    np.testing.assert_array_equal(crops.center(image, (side, side)), expected)


@pytest.mark.parametrize("draws", [(0, 0, 0), (0.99, 0.5, 0.2), (0.4, 0.999, 0.999)])
@pytest.mark.parametrize("shape", [(40, 70), (150, 90), (32, 32)])
def test_random_crops_are_guided_diffusions(shape, draws):
    side = 32
    image = picture(*shape)
    lowest, highest = side, math.ceil(side / 0.8)
    scaled = published_scaling(image, lowest + int(draws[0] * (highest - lowest + 1)))
    top = int(draws[1] * (scaled.shape[0] - side + 1))
    left = int(draws[2] * (scaled.shape[1] - side + 1))
    expected = scaled[top : top + side, left : left + side]
    size = (side, side)
    np.testing.assert_array_equal(crops.random(image, size, draws), expected)
    prepared = crops.prepare_random(image, size)
    np.testing.assert_array_equal(crops.random(prepared, size, draws), expected)
    np.testing.assert_array_equal(
        crops.center(prepared, size), crops.center(image, size)
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_an_image_of_the_right_size_is_untouched(channels, dtype):
    image = picture(24, 40, channels, dtype)
    np.testing.assert_array_equal(crops.center(image, (24, 40)), image)


@pytest.mark.parametrize("size", [(16, 48), (48, 16), (20, 24)])
def test_targets_that_are_not_square_are_covered_and_central(size):
    # A ramp along each axis: a linear filter keeps it, and its middle is the middle.
    rows, columns = np.mgrid[0:120, 0:200]
    ramp = np.stack([rows * 2, columns, 0 * rows], axis=-1).astype(np.uint8)
    cut = crops.center(ramp, size).astype(float)
    assert cut.shape == (*size, 3)
    scale = max(size[0] / 120, size[1] / 200)
    for axis, channel, slope, middle in ((0, 0, 2, 119), (1, 1, 1, 99.5)):
        step = np.diff(cut[..., channel], axis=axis).mean()
        assert step == pytest.approx(slope / scale, rel=0.1)
        assert cut[..., channel].mean() == pytest.approx(middle, abs=slope / scale)


def test_every_channel_is_resized_like_a_grey_image():
    image = picture(90, 70, 5)
    whole = crops.center(image, (32, 32))
    for channel in range(5):
        grey = Image.fromarray(image[..., channel])
        grey = grey.resize((35, 45), Image.Resampling.BOX)
        grey = grey.resize((32, round(45 * 32 / 35)), Image.Resampling.BICUBIC)
        expected = np.asarray(grey)[4:36] if grey.height == 41 else None
        np.testing.assert_array_equal(whole[..., channel], expected)


def test_16_bits_keep_their_precision():
    # The mean of 2×2 blocks, halved exactly to the target.
    image = picture(64, 64, 2, np.uint16)
    mean = image.astype(np.float64).reshape(32, 2, 32, 2, 2).mean((1, 3))
    np.testing.assert_allclose(crops.center(image, (32, 32)), mean, atol=0.51)


def test_transparent_pixels_lend_no_colour():
    image = np.zeros((64, 64, 4), np.uint8)
    image[:, 0::2] = [200, 100, 50, 255]
    image[:, 1::2] = [0, 255, 255, 0]  # the colour of nothing
    cut = crops.center(image, (32, 32), alpha=True)
    np.testing.assert_allclose(cut[..., :3] - np.array([200, 100, 50.0]), 0, atol=1)
    np.testing.assert_allclose(cut[..., 3], 127.5, atol=1)
    # Four channels of measurements are not colours with opacity.
    assert (crops.center(image, (32, 32))[..., 1] > 170).all()


@pytest.mark.parametrize("first", [0, 5, 2**40 + 1])
def test_draws_depend_on_their_own_position_alone(first):
    whole = transforms.crop_draws(3, first, 9)
    single = [transforms.crop_draws(3, first + i, 1)[0] for i in range(9)]
    np.testing.assert_array_equal(whole, single)
    assert not np.array_equal(whole, transforms.crop_draws(4, first, 9))


def test_draws_are_uniform_and_independent():
    count = 40_000
    draws = transforms.crop_draws(0, 0, count)
    assert draws.shape == (count, 3)
    assert draws.min() >= 0
    assert draws.max() < 1
    centred = (draws - 0.5) * np.sqrt(12)  # variance 1
    bound = 5 / np.sqrt(count)
    assert (np.abs(centred.mean(0)) < bound).all()
    assert (np.abs((centred**2).mean(0) - 1) < bound).all()
    for a, b in ((0, 1), (1, 2), (0, 2)):
        assert abs((centred[:, a] * centred[:, b]).mean()) < bound


@pytest.mark.parametrize("cut", ["center", "random"])
def test_transparent_pixels_of_16_bits_lend_no_colour(cut):
    image = np.full((32, 32, 4), 65535, np.uint16)
    image[..., :3] = 20_000
    image[::3, :, :3] = 60_000
    image[::3, :, 3] = 0
    for size in ((16, 16), (11, 11)):
        if cut == "center":
            small = crops.center(image, size, alpha=True)
        else:
            prepared = crops.prepare_random(image, size, alpha=True)
            small = crops.random(prepared, size, np.full(3, 0.5), alpha=True)
        seen = small[..., 3] > 2_000
        assert seen.any()
        assert np.abs(small[seen][:, :3].astype(int) - 20_000).max() <= 20


def test_opaque_16_bits_are_scaled_as_without_opacity():
    image = np.random.default_rng(0).integers(0, 2**16, (30, 40, 4), dtype=np.uint16)
    image[..., 3] = 65535
    np.testing.assert_array_equal(
        crops.center(image, (11, 11), alpha=True), crops.center(image, (11, 11))
    )
