"""The measurements that have a name: "superres:2", "blur:1.5", "grey", "missing:0.5".

An operator is a function here, which makes a value of `diffusion.operators`, and an
entry of `OPERATORS`. What is after the colon is read by the function.
"""

import math
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ddpm_jax.core import errors
from ddpm_jax.diffusion import operators

# ITU-R 601 luminance, as pictures are turned grey elsewhere.
LUMINANCE = (0.299, 0.587, 0.114)
RADIUS = 4.0  # of a blur, in deviations


class Measured(NamedTuple):
    """What is to be measured.

    Attributes:
        shape: (H, W, C) of the images.
        count: of images.
        seed: of what is drawn.
        holes: bool [count, H, W], True where nothing is known; None where nothing says
            so.
    """

    shape: tuple[int, int, int]
    count: int = 1
    seed: int = 0
    holes: np.ndarray | None = None


class Entry(NamedTuple):
    """An entry of `OPERATORS`.

    Attributes:
        make: `(value, measured) → operator`; the value is a text.
        takes: what the value is, in words, with an example; "" where there is none.
    """

    make: Callable
    takes: str = ""


def of_name(text: str, measured: Measured):
    """Return the operator that a text such as "superres:2" names.

    Args:
        text: name and value.
        measured: what is to be measured.

    Raises:
        Refusal: an unknown name, or a value that the images do not permit.
    """
    name, colon, value = text.partition(":")
    if not name:
        raise errors.Refusal(
            f"nothing says what was measured: give --operator={EXAMPLES}"
        )
    entry = errors.choose("operator", OPERATORS, name)
    if bool(value) != bool(entry.takes) or (colon and not value):
        wanted = f"takes {entry.takes}" if entry.takes else "takes no value"
        raise errors.Refusal(f"operator {text!r}: {name} {wanted}")
    return entry.make(value, measured)


def _number(text, kind, takes, is_good):
    """Return a number of a kind, or refuse it."""
    try:
        number = kind(text)
    except ValueError:
        number = None
    if number is None or not math.isfinite(number) or not is_good(number):
        raise errors.Refusal(f"operator value {text!r}: give {takes}")
    return number


# ---- the functions -------------------------------------------------------------------


def superres(value, measured):
    """The mean of every block of F×F pixels, as upsamplers are trained on."""
    height, width, channels = measured.shape
    factor = _number(value, int, OPERATORS["superres"].takes, lambda n: n >= 2)
    if height % factor or width % factor:
        raise errors.Refusal(
            f"operator superres:{factor}: images of {height}x{width} have no blocks of "
            f"{factor}x{factor}; give a divisor of both sides, from 2 on"
        )
    matrices = [
        np.kron(np.eye(side // factor), np.full((1, factor), 1 / factor))
        for side in (height, width)
    ]
    return _separable(*matrices, channels)


def blur(value, measured):
    """A Gaussian of deviation σ pixels, mirrored at the edges, as SciPy has it."""
    height, width, channels = measured.shape
    takes = OPERATORS["blur"].takes
    sigma = _number(value, float, takes, lambda s: 0 < s <= max(height, width))
    matrices = [_blur_matrix(side, sigma) for side in (height, width)]
    return _separable(*matrices, channels)


def grey(value, measured):
    """The luminance of red, green and blue."""
    del value
    height, width, channels = measured.shape
    if channels != len(LUMINANCE):
        raise errors.Refusal(
            f"operator grey: images of {channels} channels have no luminance; it is of "
            "runs on colours, of 3"
        )
    return operators.Separable(
        *(np.eye(side, dtype=np.float32) for side in (height, width)),
        np.asarray([LUMINANCE], np.float32),
    )


def missing(value, measured):
    """A share of the pixels is not known; which, is drawn from seed and image.

    Holes that are given, as NaN in what was measured, are taken instead.
    """
    height, width, _ = measured.shape
    takes, pixels = OPERATORS["missing"].takes, height * width
    share = _number(value, float, takes, lambda p: 0 < p < 1)
    count = round(share * pixels)
    if not 0 < count < pixels:
        raise errors.Refusal(
            f"operator missing:{value}: {count} of {pixels} pixels would be missing; "
            f"give a share of {1 / pixels:.2g} … {1 - 1 / pixels:.2g}"
        )
    if measured.holes is not None:
        return operators.Mask(measured.holes[..., None])
    holes = np.zeros((measured.count, pixels), bool)
    for number, hole in enumerate(holes):
        generator = stream(measured.seed, "restore/missing", number)
        hole[np.argsort(generator.random(pixels))[:count]] = True
    return operators.Mask(holes.reshape(-1, height, width, 1))


def mask(value, measured):
    """The pixels that a mask leaves, which is white where nothing is known."""
    del value
    if measured.holes is None:
        raise errors.Refusal(
            "operator mask without a mask: give --mask=FILE, white where nothing is "
            "known, or a picture with transparent pixels; in Python, "
            "diffusion.operators.Mask"
        )
    return operators.Mask(measured.holes[..., None])


def denoise(value, measured):
    """All pixels, with nothing but noise on them."""
    del value
    return operators.Mask(np.zeros((measured.count, 1, 1, 1), bool))


OPERATORS = {
    "superres": Entry(superres, "a factor by which sides are divided, as superres:2"),
    "blur": Entry(blur, "a deviation in pixels, as blur:1.5"),
    "grey": Entry(grey),
    "missing": Entry(missing, "a share of the pixels between 0 and 1, as missing:0.5"),
    "mask": Entry(mask),
    "denoise": Entry(denoise),
}
EXAMPLES = "superres:2, blur:1.5, grey, missing:0.5, mask or denoise"


# ---- their numbers -------------------------------------------------------------------


def stream(seed: int, purpose: str, number: int) -> np.random.Generator:
    """Return the generator of one image; no two images or purposes share a number."""
    return np.random.Generator(
        np.random.Philox(
            key=np.array([seed, zlib.crc32(purpose.encode())], np.uint64),
            # The image in the upper half of the counter: no two share a block of it.
            counter=np.array([0, 0, number, 0], np.uint64),
        )
    )


def _separable(rows, columns, channels: int) -> operators.Separable:
    """Return the operator of float64 matrices along rows and columns, cast once."""
    return operators.Separable(
        np.asarray(rows, np.float32),
        np.asarray(columns, np.float32),
        np.eye(channels, dtype=np.float32),
    )


def _blur_matrix(side: int, sigma: float) -> np.ndarray:
    """Return the matrix [side, side] of a Gaussian, … b a | a b c | c b … at edges."""
    radius = int(RADIUS * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    weights /= weights.sum()
    matrix = np.zeros((side, side))
    for row in range(side):
        place = (row + offsets) % (2 * side)
        place = np.minimum(place, 2 * side - 1 - place)
        np.add.at(matrix[row], place, weights)
    return matrix
