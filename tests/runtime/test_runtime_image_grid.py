import numpy as np
import pytest
from PIL import Image

from ddpm_jax.runtime import image_grid


def constant(levels, size=32):
    """Return one image per entry, [N, size, size, C], each of one colour."""
    levels = np.asarray(levels, np.uint8)
    return np.broadcast_to(
        levels[:, None, None, :], (len(levels), size, size, levels.shape[1])
    )


def test_tiles_lie_row_by_row_with_one_pixel_between():
    grid = image_grid.grid(constant([[10], [20], [30]]), columns=2)
    assert grid.shape == (65, 65, 1)
    assert grid.dtype == np.uint8
    expected = np.full((65, 65, 1), 128)
    expected[:32, :32] = 10
    expected[:32, 33:] = 20
    expected[33:, :32] = 30
    np.testing.assert_array_equal(grid, expected)


def test_tiny_images_grow_by_a_whole_factor():
    image = np.arange(8 * 12, dtype=np.uint8).reshape(1, 8, 12, 1)
    grid = image_grid.grid(image, columns=5)
    assert grid.shape == (32, 48, 1)
    for row in range(32):
        for column in range(48):
            assert grid[row, column, 0] == image[0, row // 4, column // 4, 0]


def test_larger_images_keep_their_pixels():
    image = np.random.default_rng(0).integers(0, 256, (1, 40, 33, 3), np.uint8)
    np.testing.assert_array_equal(image_grid.grid(image, columns=1), image[0])


@pytest.mark.parametrize(("channels", "shown"), [(1, 1), (2, 1), (3, 3), (5, 3)])
def test_channels_that_are_shown(channels, shown):
    colours = np.arange(1, channels + 1)[None]
    grid = image_grid.grid(constant(colours), columns=1)
    np.testing.assert_array_equal(grid[0, 0], colours[0, :shown])


def test_gaps_are_opaque():
    grid = image_grid.grid(constant([[1, 2, 3, 4], [5, 6, 7, 8]]), columns=2)
    np.testing.assert_array_equal(
        grid[0, 31:34], [[1, 2, 3, 4], [128] * 3 + [255], [5, 6, 7, 8]]
    )


@pytest.mark.parametrize(
    ("images", "columns"),
    [
        (np.zeros((1, 8, 8, 1), np.float32), 1),
        (np.zeros((8, 8, 1), np.uint8), 1),
        (np.zeros((0, 8, 8, 1), np.uint8), 1),
        (np.zeros((1, 8, 8, 1), np.uint8), 0),
    ],
)
def test_what_is_no_grid_is_an_error(images, columns):
    with pytest.raises(ValueError, match="grid needs"):
        image_grid.grid(images, columns)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_png_holds_the_pixels(tmp_path, channels, mode):
    image = np.random.default_rng(1).integers(0, 256, (5, 7, channels), np.uint8)
    path = tmp_path / "samples" / "step_1.png"
    image_grid.write_png(path, image)
    with Image.open(path) as read:
        assert read.mode == mode
        np.testing.assert_array_equal(np.asarray(read).reshape(image.shape), image)
    assert [p.name for p in path.parent.iterdir()] == ["step_1.png"]


def test_png_refuses_floats(tmp_path):
    with pytest.raises(ValueError, match="uint8"):
        image_grid.write_png(tmp_path / "a.png", np.zeros((4, 4, 3)))
