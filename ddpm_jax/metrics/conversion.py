"""From arrays of any type to the 8 bits that metrics read: by what they must mean."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from ddpm_jax.core import errors
from ddpm_jax.data import images as images_lib

WHITE = 255


class Range(NamedTuple):
    """What values an array has: their ends, whether all are finite, and whole."""

    low: float
    high: float
    finite: bool
    whole: bool


def range_of(parts: Iterable[np.ndarray]) -> Range:
    """Return the range of an array that comes in parts, none of them empty."""
    found = None
    for part in parts:
        finite = bool(np.isfinite(part).all())
        whole = finite and bool((part == np.rint(part)).all())
        one = Range(float(part.min()), float(part.max()), finite, whole)
        if found is None:
            found = one
        else:
            found = Range(
                min(found.low, one.low),
                max(found.high, one.high),
                found.finite and finite,
                found.whole and whole,
            )
    return found


def to_uint8(dtype: np.dtype, found: Range) -> tuple[Callable, str]:
    """Return what makes an array 8 bits, and what to tell of it.

    Values have one meaning if they are floats from 0 to 1, whole numbers from 0 to 255
    that are not all 0 or 1, or numbers of 16 bits.

    Raises:
        Refusal: their meaning is not clear, or they are no grey values; it names the
            right conversion.
    """
    dtype = np.dtype(dtype)
    unit = dtype.kind == "f" and found.low >= 0 and found.high <= 1
    whole = found.whole and found.low >= 0 and 1 < found.high <= WHITE
    if dtype == np.uint16 and found.high > WHITE:
        return images_lib.shown, "images of 16 bits, of which metrics see 8"
    if found.finite and unit:
        return _of_unit, "floats from 0 to 1: 0 is read as black, 1 as white"
    if (whole and dtype.kind in "if") or (whole and dtype.itemsize > 2):
        return _of_whole, f"whole numbers of type {dtype}, read as 0 … 255"
    raise errors.Refusal(described(dtype, found))


def _of_unit(values):
    return np.rint(values.astype(np.float64) * WHITE).astype(np.uint8)


def _of_whole(values):
    return values.astype(np.uint8)


def described(dtype: np.dtype, found: Range | None) -> str:
    """Return why images of a type are not read, and what makes them 8 bits."""
    if found is None:
        return f"images of type {dtype}: metrics read uint8 of 0 … 255"
    if not found.finite:
        return (
            f"images of type {dtype} with NaN or infinity among them: metrics read "
            "uint8 of 0 … 255, so look for what made them"
        )
    dtype = np.dtype(dtype)
    where = f"images of type {dtype} in [{found.low:g}, {found.high:g}]"
    return f"{where}: metrics read uint8 of 0 … 255; {_remedy(dtype, found)}"


def _remedy(dtype, found):
    low, high = found.low, found.high
    if dtype.kind != "f" and low >= 0 and high <= 1:
        return (
            "if 1 is white save (a * 255).astype(np.uint8), if 255 is, "
            "a.astype(np.uint8)"
        )
    if -1 <= low < 0 and high <= 1:
        return "quantise them by np.rint((a + 1) * 127.5).astype(np.uint8)"
    if low >= 0 and high <= 1:
        return "quantise them by np.rint(a * 255).astype(np.uint8)"
    if low >= 0 and high <= WHITE:
        return "save np.rint(a).astype(np.uint8)"
    if low >= 0 and high <= 65535:
        return (
            "if they are of 16 bits save np.rint(a / 257).astype(np.uint8), else scale "
            "them by your own black and white"
        )
    return (
        "save np.rint(255 * np.clip((a - low) / (high - low), 0, 1)).astype(np.uint8) "
        "with your own low (black) and high (white)"
    )
