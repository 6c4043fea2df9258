"""The three ways to Inception's input against PyTorch, Pillow and plain loops."""

import numpy as np
import pytest
from PIL import Image

from ddpm_jax.core import errors
from ddpm_jax.metrics import resize

SIZES = [(8, 8), (32, 64), (299, 299), (301, 640)]


def picture(height, width, channels=3):
    random = np.random.default_rng(height)
    return random.integers(0, 256, (2, height, width, channels)).astype(np.uint8)


def legacy_by_loops(image, size):
    """TensorFlow 1's resize_bilinear for one channel, from its definition."""
    height, width = image.shape
    out = np.empty((size, size))
    for i in range(size):
        y = i * height / size
        top, down = int(y), y - int(y)
        bottom = min(top + 1, height - 1)
        for j in range(size):
            x = j * width / size
            left, right = int(x), x - int(x)
            far = min(left + 1, width - 1)
            upper = image[top, left] * (1 - right) + image[top, far] * right
            lower = image[bottom, left] * (1 - right) + image[bottom, far] * right
            out[i, j] = upper * (1 - down) + lower * down
    return (out - 128) / 128


@pytest.mark.parametrize("size", SIZES[:3])
def test_tf_legacy(size):
    images = picture(*size)
    expected = legacy_by_loops(images[1, :, :, 2].astype(np.float64), 299)
    found = np.asarray(resize.prepare(images, "tf-legacy"))
    assert found.shape == (2, 299, 299, 3)
    np.testing.assert_allclose(found[1, :, :, 2], expected, atol=1e-4)


@pytest.mark.parametrize("size", SIZES)
def test_pytorch_fid(size):
    torch = pytest.importorskip("torch")
    images = picture(*size)
    x = torch.from_numpy(images.transpose(0, 3, 1, 2)).float() / 255
    x = torch.nn.functional.interpolate(
        x, size=(299, 299), mode="bilinear", align_corners=False
    )
    expected = (2 * x - 1).permute(0, 2, 3, 1).numpy()
    found = resize.prepare(images, "pytorch-fid")
    # PyTorch rounds the positions to float32: 1e-4 of a pixel in 640.
    np.testing.assert_allclose(found, expected, atol=5e-4)


@pytest.mark.parametrize("size", SIZES)
def test_clean(size):
    images = picture(*size)
    found = np.asarray(resize.prepare(images, "clean"))
    for n in range(2):
        for c in range(3):
            channel = Image.fromarray(images[n, :, :, c].astype(np.float32))
            made = np.asarray(channel.resize((299, 299), Image.Resampling.BICUBIC))
            expected = (made.clip(0, 255) - 128) / 128
            np.testing.assert_allclose(found[n, :, :, c], expected, atol=1e-4)


def test_the_rules_differ():
    images = picture(32, 32)
    made = {mode: np.asarray(resize.prepare(images, mode)) for mode in resize.RULES}
    for a, b in (("tf-legacy", "pytorch-fid"), ("pytorch-fid", "clean")):
        assert np.abs(made[a] - made[b]).max() > 0.1


@pytest.mark.parametrize("mode", resize.RULES)
def test_grey_images_are_repeated(mode):
    images = picture(8, 12, channels=1)
    expected = resize.prepare(np.repeat(images, 3, axis=-1), mode)
    np.testing.assert_array_equal(resize.prepare(images, mode), expected)
    assert "repeated" in resize.notes(1)[0]
    assert resize.notes(3) == []


@pytest.mark.parametrize(
    ("images", "parts"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), ["float32", "[0, 0]", "quantise"]),
        (np.full((2, 8, 8, 3), np.nan, np.float32), ["NaN", "uint8"]),
        (np.zeros((2, 8, 8, 3), np.int64), ["int64"]),
        (np.zeros((2, 8, 8, 4), np.uint8), ["[2, 8, 8, 4]", "1 or 3"]),
        (np.zeros((8, 8, 3), np.uint8), ["[8, 8, 3]"]),
        (np.zeros((0, 8, 8, 3), np.uint8), ["[0, 8, 8, 3]", "at least one"]),
    ],
)
def test_other_images_are_refused(images, parts):
    with pytest.raises(errors.Refusal) as caught:
        resize.prepare(images, "clean")
    assert all(part in str(caught.value) for part in parts)


def test_unknown_rules_are_refused():
    with pytest.raises(errors.Refusal, match="'lanczos': choose one of clean"):
        resize.prepare(picture(8, 8), "lanczos")
