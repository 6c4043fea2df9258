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
