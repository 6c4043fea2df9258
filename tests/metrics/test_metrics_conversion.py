"""What arrays of any type mean as images of 8 bits, or what is said of them."""

import re

import numpy as np
import pytest

from ddpm_jax.core import errors
from ddpm_jax.metrics import conversion

GREY = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)


def made(array):
    """(uint8 images, what is told) of an array that is looked at in two parts."""
    convert, told = conversion.to_uint8(
        array.dtype, conversion.range_of(np.array_split(array, 2, axis=1))
    )
    return convert(array), told


@pytest.mark.parametrize(
    "array",
    [
        GREY / 255,
        (GREY / 255).astype(np.float32),
        (GREY / 255 + 1e-4).clip(0, 1).astype(np.float16),
        *(GREY.astype(kind) for kind in ("i2", "i4", "i8", "u4", "f4", "f8")),
        GREY.astype(np.uint16) * 257,
    ],
    ids=lambda array: str(array.dtype),
)
def test_what_has_one_meaning_is_read(array):
    images, told = made(array)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, GREY)
    assert told


def code(sentence):
    """The conversions that a sentence advises, as Python."""
    return re.findall(r"(?:save|by|is,) (\S.*?\.astype\(np\.uint8\))", sentence)


MASK = GREY > 100


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (GREY / 127.5 - 1, GREY),
        ((GREY + 0.3).clip(0, 255), GREY),
        (GREY.astype(np.uint16), GREY),
        (GREY.astype(np.int32) * 257, GREY),
        (MASK.astype(np.int32), MASK * np.uint8(255)),
        (MASK, MASK * np.uint8(255)),
    ],
    ids=["-1 … 1", "0.3", "dark or 8 bits", "int32 of 16 bits", "mask", "bool"],
)
def test_what_has_two_meanings_is_refused_with_the_right_conversion(array, expected):
    with pytest.raises(errors.Refusal) as refused:
        made(array)
    assert str(array.dtype) in str(refused.value)
    advised = [eval(line, {"np": np, "a": array}) for line in code(str(refused.value))]
    assert any(np.array_equal(images, expected) for images in advised)
    assert all(images.dtype == np.uint8 for images in advised)


@pytest.mark.parametrize(
    "array",
    [
        np.full((1, 2, 2, 1), np.nan),
        np.array([[[[np.inf], [0.0]]]]),
        np.array([[[[-300], [70_000]]]]),
        np.array([[[[-1.5], [2.5]]]]),
    ],
)
def test_what_is_no_grey_value_is_refused(array):
    with pytest.raises(errors.Refusal, match=str(array.dtype)):
        conversion.to_uint8(array.dtype, conversion.range_of([array]))
