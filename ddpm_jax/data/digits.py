"""Scikit-learn's handwritten digits, which need no download."""

import gzip
import hashlib
import importlib.util
import pathlib

import numpy as np

from ddpm_jax.core import errors
from ddpm_jax.data import low_res
from ddpm_jax.data.dataset import Dataset, Request

SIDE = 8
SIDES = (8, 4, 2)
GREY = 16  # the whitest value


def digits(split: str, request: Request) -> Dataset:
    """Return scikit-learn's 1,797 handwritten digits: 8×8×1, 17 grey levels.

    The grey value v = 0 … 16 becomes v/8 - 1. With an image_size of 4 or 2 it is the
    mean of each block of pixels, with 65 or 257 levels. The test split is the last
    `request.test_fraction` of a fixed permutation (NumPy's default generator, seed 0).

    Raises:
        Refusal: a path, another size or random crops are asked for, scikit-learn is
            missing, or a split would be empty.
    """
    if request.path:
        raise errors.Refusal(
            f"data.path {request.path!r} has no meaning for digits, which scikit-learn "
            "brings along: leave data.path empty"
        )
    side = _checked_side(request)
    test_fraction = request.test_fraction
    grey, label = _digits_table()
    count = len(grey)
    num_test = round(test_fraction * count)
    if not 0 < num_test < count:
        raise errors.Refusal(
            f"data.test_fraction {test_fraction} leaves {count - num_test} training "
            f"and {num_test} test images of {count}: choose it between {1 / count:.4f} "
            f"and {1 - 1 / count:.4f}"
        )
    permutation = np.random.default_rng(0).permutation(count)
    chosen = {"train": permutation[:-num_test], "test": permutation[-num_test:]}[split]
    factor = SIDE // side
    image = low_res.area_mean(grey[chosen] / 8.0 - 1.0, factor).astype(np.float32)
    label = label[chosen].astype(np.int32)

    def read(indices):
        return image[indices], label[indices]

    return Dataset(
        name="digits",
        split=split,
        shape=(side, side, 1),
        levels=GREY * factor**2 + 1,
        num_classes=10,
        class_names=tuple("0123456789"),
        num_examples=len(image),
        read=read,
        read_labels=lambda indices: label[indices],
        content=hashlib.sha256(image.tobytes() + label.tobytes()).hexdigest(),
    )


def _checked_side(request):
    """Return the side that is asked for."""
    height, width = request.image_size or (SIDE, SIDE)
    if height != width or height not in SIDES:
        raise errors.Refusal(
            f"data.image_size={height}x{width}: images of 'digits' are 8x8; leave the "
            "field empty, or give 4 or 2 for the means of their blocks"
        )
    if request.channels not in (0, 1):
        raise errors.Refusal(
            f"data.channels={request.channels}: images of 'digits' have 1; leave the "
            "field 0"
        )
    if request.crop == "random":
        raise errors.Refusal(
            "data.crop='random': images of 'digits' have their size and are not cut; "
            "use 'center' or 'none'"
        )
    return height


def _digits_table():
    """Grey values [1797, 8, 8, 1] and labels [1797], float64."""
    # Found, not imported: importing sklearn.datasets takes longer than everything else
    # before the first step, and all that is needed is one packaged table.
    spec = importlib.util.find_spec("sklearn")
    if spec is None:
        raise errors.Refusal(
            "the digits come with scikit-learn, which is not installed: "
            "pip install scikit-learn"
        )
    folder = pathlib.Path(spec.submodule_search_locations[0], "datasets", "data")
    table_path = folder / "digits.csv.gz"
    if table_path.is_file():
        with gzip.open(table_path, "rt", encoding="utf-8") as file:
            table = np.loadtxt(file, delimiter=",")  # [1797, 64 grey values + label]
        return table[:, :-1].reshape(-1, 8, 8, 1), table[:, -1]
    from sklearn import datasets

    bunch = datasets.load_digits()
    return bunch.images[..., None], bunch.target
