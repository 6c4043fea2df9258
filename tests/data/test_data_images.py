import numpy as np
import pytest

from ddpm_jax.core import errors
from ddpm_jax.data import images


def test_bytes_survive_the_way_to_the_network_and_back():
    grey = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)
    x = grey / np.float32(127.5) - np.float32(1)
    assert x.dtype == np.float32
    result = images.to_uint8(x)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, grey)


def test_values_are_rounded_and_clipped():
    # In units of grey: below and above a half, and outside the range.
    grey = np.array([0.0, 0.4, 0.6, 100.49, 100.51, 254.6, 255.0, -0.6, 256.0, 1e6])
    expected = [0, 0, 1, 100, 101, 255, 255, 0, 255, 255]
    np.testing.assert_array_equal(images.to_uint8(grey / 127.5 - 1), expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused(value):
    x = np.zeros((2, 3, 3, 1), np.float32)
    x[1, 2, 0] = value
    with pytest.raises(errors.Refusal, match="1 of 18 pixels are NaN or infinite"):
        images.to_uint8(x)


# ---- what is stored ------------------------------------------------------------------


@pytest.mark.parametrize("levels", [2, 17, 256, 257, 65536])
def test_every_stored_value_survives_the_way_to_the_network_and_back(levels):
    dtype = np.uint8 if levels <= 256 else np.uint16
    stored = np.arange(np.iinfo(dtype).max + 1).astype(dtype)
    x = images.from_stored(stored)
    assert x.dtype == np.float32
    assert (x.min(), x.max()) == (-1, 1)
    again = images.to_stored(x, levels)
    assert again.dtype == images.stored_type(levels) == dtype
    np.testing.assert_array_equal(again, stored)


def test_seventeen_levels_are_spread_over_a_byte():
    grey = np.arange(17)
    stored = images.to_stored(grey / np.float32(8) - np.float32(1), 17)
    np.testing.assert_array_equal(stored, np.round(grey * 255 / 16))


def test_deep_values_are_rounded_and_clipped():
    grey = np.array([0, 0.4, 0.6, 40000.4, 40000.6, 65535, -5, 65540, 1e9], np.float64)
    expected = [0, 0, 1, 40000, 40001, 65535, 0, 65535, 65535]
    np.testing.assert_array_equal(images.to_stored(grey / 32767.5 - 1, 2**16), expected)


def test_continuous_values_stay_what_they_are():
    x = np.array([[-7.25, 1e-30], [3.5, 1.0]], np.float32)
    for way in (lambda x: images.to_stored(x, None), images.from_stored):
        assert way(x).dtype == np.float32
        np.testing.assert_array_equal(way(x), x)
    with pytest.raises(errors.Refusal, match="1 of 2 values are NaN or infinite"):
        images.to_stored(np.array([0.0, np.inf]), None)


def test_an_archive_that_is_continued_keeps_its_type():
    x = np.linspace(-1, 1, 1000, dtype=np.float32)
    stored = images.to_stored(x, 2**16, np.dtype(np.uint8))
    np.testing.assert_array_equal(stored, images.to_uint8(x))
    assert stored.dtype == np.uint8


def test_too_many_levels_are_refused():
    with pytest.raises(errors.Refusal, match=r"65,537 grey levels: .* at most 65,536"):
        images.to_stored(np.zeros(2), 2**16 + 1)


def test_pictures_of_what_is_stored():
    grey = np.arange(256, dtype=np.uint8)
    assert images.shown(grey) is grey
    np.testing.assert_array_equal(images.shown(grey.astype(np.uint16) * 257), grey)
    np.testing.assert_array_equal(
        images.shown(np.array([0, 128, 129, 65406, 65407], np.uint16)),
        [0, 0, 1, 254, 255],
    )
    continuous = np.array([-3, -1, 0.2, 1, 9], np.float32)
    np.testing.assert_array_equal(images.shown(continuous), [0, 0, 153, 255, 255])


@pytest.mark.parametrize(("shape", "is_one"), [((8, 8, 1), True), ((20, 1), False)])
def test_which_states_are_images(shape, is_one):
    assert images.is_image(shape) == is_one
    assert not images.is_image((2,))


@pytest.mark.parametrize(
    ("shape", "planes"),
    [
        ((16, 16, 3), False),
        ((8, 16, 4), False),
        ((16, 16, 5), False),
        ((64, 64, 32), False),
        ((40, 64, 9), False),
        ((8, 16, 16), True),
        ((12, 16, 16), True),
        ((8, 16, 20), True),
        ((16, 16, 16), True),
    ],
)
def test_planes_are_told_from_channels_by_the_axes_that_are_alike(shape, planes):
    assert images.looks_like_planes(*shape) == planes
