"""Where images come from: every source gives `Dataset` values with random access.

A source is one function `(split, request) → Dataset` and one entry of `SOURCES`. Images
leave `Dataset.fetch` as float32 in [-1, 1], channels last, together with int32 labels;
nothing else in the package knows where they came from.
"""

import functools
from collections.abc import Callable

from ddpm_jax.core import errors
from ddpm_jax.data import (
    captions_classes,
    captions_tfds,
    dead_leaves,
    digits,
    folder,
    npz,
    shapes,
    tfds,
    toy,
)
from ddpm_jax.data.dataset import SPLITS, Dataset, Request

SOURCES = {
    "digits": digits.digits,
    "cifar10": tfds.cifar10,
    "folder": folder.folder,
    "zip": folder.zip_file,
    "npz": npz.npz,
    "shapes": shapes.shapes,
    "dead_leaves": dead_leaves.dead_leaves,
    "swissroll": toy.swissroll,
    "heartbeat": toy.heartbeat,
}
FURTHER_SPLITS = {"shapes": ("unseen",)}
TFDS_PREFIX = "tfds:"
CROPS = ("none", "center", "random")
TOYS = ("swissroll", "heartbeat", "dead_leaves")
WITH_CAPTION_FILES = ("folder", "zip")
WITHOUT_LABEL_CHOICE = ("digits", "cifar10", "shapes", *TOYS)


def load(
    name: str,
    split: str,
    *,
    path=None,
    test_fraction: float = 0.2,
    image_size: tuple[int, ...] = (),
    channels: int = 0,
    crop: str = "center",
    labels: str = "auto",
    captions: str = "none",
    cache_gib: float = 4.0,
    say: Callable[[str], None] = print,
) -> Dataset:
    """Return one split of a named source.

    Args:
        name: a key of `SOURCES`, or "tfds:" and TFDS's name of a data set.
        split: "train" or "test", and of shapes "unseen".
        path: where the source keeps its files; None or "" means the source's own
            default. A source that comes with an installed package takes no path.
        test_fraction: share of the images that becomes the test split, in (0, 1); only
            for sources without a test split of their own.
        image_size: (side,) or (height, width) in pixels; () means the data's own size.
        channels: of the images; 0 means the data's own number.
        crop: how larger images are cut to size, see `crops`: "center", "random" (in
            training, centre elsewhere), or "none", which refuses larger images.
        labels: "auto", "none", and for files also "folders", "prefix" or the path of a
            CSV file; see `labels.assign`.
        captions: where they come from: "none"; "auto", for what there is; "classes" or
            a sentence with {class}, see `captions_classes`; for files also "files" or
            the path of a table, see `captions_files.find`; for TFDS "feature:NAME".
            'shapes' come with theirs in any case.
        cache_gib: memory in GiB for decoded images; what does not fit is decoded again.
        say: prints one line: what was found, what is left out.

    Raises:
        Refusal: unknown name, split or crop, a fraction outside (0, 1), data that is
            not there, or images that are not what is asked for.
    """
    splits = (*SPLITS, *FURTHER_SPLITS.get(name, ()))
    if split not in splits:
        raise errors.Refusal(
            f"unknown split {split!r}: choose one of {', '.join(splits)}"
        )
    if not 0.0 < test_fraction < 1.0:
        raise errors.Refusal(
            f"data.test_fraction {test_fraction} is not between 0 and 1: give the "
            "share of the images that is kept for testing, for example 0.2"
        )
    if crop not in CROPS:
        raise errors.Refusal(
            f"unknown data.crop {crop!r}: choose one of {', '.join(CROPS)}"
        )
    if name in WITHOUT_LABEL_CHOICE and labels != "auto":
        raise errors.Refusal(
            f"data.labels={labels!r} has no meaning for {name}, which says itself what "
            "its labels are: leave it 'auto'"
        )
    _check_captions(name, captions)
    of_classes = captions_classes.is_template(captions)
    request = Request(
        path=str(path) if path else None,
        test_fraction=test_fraction,
        image_size=_height_and_width(image_size),
        channels=channels,
        crop=crop,
        labels=labels,
        captions="none" if of_classes else captions,
        cache_gib=cache_gib,
        say=say,
    )
    dataset = _source(name)(split, request)
    return captions_classes.captioned(dataset, captions) if of_classes else dataset


def _source(name):
    if name.startswith(TFDS_PREFIX):
        return functools.partial(tfds.tfds_dataset, name.removeprefix(TFDS_PREFIX))
    if name not in SOURCES:
        raise errors.Refusal(
            f"unknown data source {name!r}: choose one of "
            f"{', '.join(sorted(SOURCES))}, or {TFDS_PREFIX}<name> for a data set of "
            "TensorFlow Datasets"
        )
    return SOURCES[name]


def _check_captions(name, captions):
    """Refuse captions from files where there are none."""
    if name in WITH_CAPTION_FILES or captions in ("auto", "none"):
        return
    if name == "shapes":
        raise errors.Refusal(
            f"data.captions={captions!r} has no meaning for shapes, which write their "
            "own captions: leave it 'auto'"
        )
    of_feature = captions.startswith(captions_tfds.PREFIX) and (
        name.startswith(TFDS_PREFIX) or name == "cifar10"
    )
    if not of_feature and not captions_classes.is_template(captions):
        also = f", {captions_tfds.PREFIX}NAME" if name.startswith(TFDS_PREFIX) else ""
        raise errors.Refusal(
            f"data.captions={captions!r}: no files of captions lie beside the images "
            f"of {name!r}: choose auto, none{also}, classes or a sentence with "
            "{class} in it"
        )


def _height_and_width(image_size):
    size = tuple(image_size)
    if len(size) > 2 or any(side != int(side) or side < 1 for side in size):
        raise errors.Refusal(
            f"data.image_size={size} is no size: give (side,) or (height, width) in "
            "pixels, or leave it empty for the data's own"
        )
    if not size:
        return None
    return int(size[0]), int(size[-1])
