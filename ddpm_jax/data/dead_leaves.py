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
NUM_IMAGES = {"train": 20_000, "test": 1_000}
LEVELS = 256
MAX_SIDE = 64


def dead_leaves(split: str, request: Request) -> Dataset:
    """Return grey images of dead leaves, [side, side, 1], 256 levels.

    Image i of a split depends on its number and the side alone.

    Raises:
        Refusal: a path, colours, random crops, or a side that is not square and 8 … 64.
    """
    side = _side(request)

    def read(indices):
        made = [picture(SPLITS.index(split), int(index), side) for index in indices]
        grey = np.stack(made) if made else np.zeros((0, side, side))
        image = (2 * grey / (LEVELS - 1) - 1).astype(np.float32)
        return image[..., None], np.zeros(len(image), np.int32)

    first = np.concatenate([read(np.arange(8))[0]])
    return Dataset(
        name="dead_leaves",
        split=split,
        shape=(side, side, 1),
        levels=LEVELS,
        num_classes=None,
        class_names=(),
        num_examples=NUM_IMAGES[split],
        read=read,
        content=hashlib.sha256(first.tobytes()).hexdigest(),
    )


def picture(split: int, index: int, side: int) -> np.ndarray:
    """Return one picture, integers 0 … 255 as float64 [side, side].

    Laid from the top: a disc fills what none before it has covered.

    Args:
        split: 0 for training, 1 for testing.
        index: of the picture.
        side: in pixels.
    """
    generator = np.random.default_rng((split, index, side))
    rows, columns = np.mgrid[:side, :side] + 0.5
    grey = np.zeros((side, side))
    empty = np.ones((side, side), bool)
    largest = LARGEST_SHARE * side
    while empty.any():
        radius = _radius(generator.random(), LEAST_RADIUS, largest)
        # Centres as far outside as the largest disc reaches: edges look like the rest.
        row, column = generator.uniform(-largest, side + largest, 2)
        value = generator.integers(LEVELS)
        inside = (rows - row) ** 2 + (columns - column) ** 2 < radius**2
        grey[inside & empty] = value
        empty &= ~inside
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
