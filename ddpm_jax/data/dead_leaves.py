"""Dead leaves: discs that fall on each other, the texture of a known process.

The radius of a disc has a density proportional to 1/r³ between two bounds, its centre
is uniform and its grey value is; discs are laid until every pixel is covered. Edges are
sharp: a pixel has the value of the topmost disc over its centre.

Reference: Jeulin 1997; Lee, Mumford & Huang 2001, as in Sohl-Dickstein et al. 2015,
section 3.2.3. The bounds are ours: the paper does not name them.
"""

import hashlib

import numpy as np

from ddpm_jax.core import errors
from ddpm_jax.data.dataset import SPLITS, Dataset, Request

SIDE = 16  # pixels, unless data.image_size says otherwise
LEAST_RADIUS = 2.0  # pixels
LARGEST_SHARE = 0.5  # of the side
NUM_IMAGES = {"train": 8_000, "test": 500}
AT_A_TIME = 1_000
LEVELS = 256
MAX_SIDE = 64


def dead_leaves(split: str, request: Request) -> Dataset:
    """Return grey images of dead leaves, [side, side, 1], 256 levels.

    They are made when the data is opened, in the same way every time.

    Raises:
        Refusal: a path, colours, random crops, or a side that is not square and 8 … 64.
    """
    side = _side(request)
    grey = pictures(SPLITS.index(split), NUM_IMAGES[split], side)

    def read(indices):
        image = 2 * grey[indices].astype(np.float32) / (LEVELS - 1) - 1
        return image[..., None], np.zeros(len(image), np.int32)

    return Dataset(
        name="dead_leaves",
        split=split,
        shape=(side, side, 1),
        levels=LEVELS,
        num_classes=None,
        class_names=(),
        num_examples=len(grey),
        read=read,
        content=hashlib.sha256(grey.tobytes()).hexdigest(),
    )


def pictures(seed: int, count: int, side: int) -> np.ndarray:
    """Return pictures, uint8 [count, side, side], made some at a time.

    Args:
        seed: decides all of them.
        count: of the pictures.
        side: in pixels.
    """
    generator = np.random.default_rng((seed, side))
    parts = [
        _laid(generator, min(AT_A_TIME, count - start), side)
        for start in range(0, count, AT_A_TIME)
    ]
    return np.concatenate(parts)


def _laid(generator, count, side):
    """Return some pictures, laid from the top: a disc fills what none has covered.

    What is left to cover is a list of pixels, which soon is short.
    """
    grey = np.zeros((count, side, side), np.uint8)
    which, row, column = np.nonzero(np.ones(grey.shape, bool))
    largest = LARGEST_SHARE * side
    while len(which):
        radius = _radius(generator.random(count), LEAST_RADIUS, largest)
        # Centres as far outside as the largest disc reaches: edges look like the rest.
        centre = generator.uniform(-largest, side + largest, (2, count))
        value = generator.integers(LEVELS, size=count, dtype=np.uint8)
        distance = np.hypot(
            row + 0.5 - centre[0][which], column + 0.5 - centre[1][which]
        )
        seen = distance < radius[which]
        place = which[seen], row[seen], column[seen]
        grey[place] = value[place[0]]
        which, row, column = which[~seen], row[~seen], column[~seen]
    return grey


def _radius(uniform, least, largest):
    """Return a radius of density ∝ 1/r³, by the inverse of its distribution."""
    ends = least**-2, largest**-2
    return (ends[0] - uniform * (ends[0] - ends[1])) ** -0.5


def _side(request):
    if request.path:
        raise errors.Refusal(
            f"data.path={request.path!r} has no meaning for dead_leaves, which are "
            "made on the spot: leave it empty"
        )
    height, width = request.image_size or (SIDE, SIDE)
    if height != width or not 8 <= height <= MAX_SIDE:
        raise errors.Refusal(
            f"data.image_size={height}x{width}: images of 'dead_leaves' are square, "
            f"with 8 to {MAX_SIDE} pixels a side"
        )
    if request.channels not in (0, 1) or request.crop == "random":
        raise errors.Refusal(
            f"data.channels={request.channels}, data.crop={request.crop!r}: images of "
            "'dead_leaves' have one channel and their own size; leave both as usual"
        )
    return height
