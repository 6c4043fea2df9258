"""Images to score or to compare with: a split of the data, an .npz, a folder.

Only headers are read until the images are asked for, so that what does not fit is
refused before anything is computed.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator

import numpy as np

from ddpm_jax.core import arrays, errors
from ddpm_jax.data import dataset as dataset_lib
from ddpm_jax.data import decoding, files, marks, npz, reading, survey
from ddpm_jax.data import images as images_lib
from ddpm_jax.evaluation import array_files
from ddpm_jax.metrics import conversion
from ddpm_jax.runtime import files as runtime_files
from ddpm_jax.runtime import home
from ddpm_jax.runtime.console import say

ROWS = 256  # images in memory at a time
EIGHT_BITS = 256
GREY_RANK = 3  # [N, H, W]
COLOURS = (1, 3)


@dataclasses.dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one size that are read part by part.

    Attributes:
        name: what a reader of a card knows them by.
        shape: (H, W, C).
        count: how many there are.
        hash: changes with the content.
        crop: how they were cut to size; "" where that is not known.
        rows: count → iterator of uint8 [n, H, W, C], as many images in all: the first
            ones, or for a data split some that are spread over it.
    """

    name: str
    shape: tuple[int, int, int]
    count: int
    hash: str
    rows: Callable[[int], Iterator[np.ndarray]]
    crop: str = ""


def of_dataset(dataset: dataset_lib.Dataset, crop: str) -> ImageSet:
    """Return the images of a data split, as training sees them but never mirrored."""

    def rows(count):
        # A split may be sorted by class.
        chosen = arrays.spread(len(dataset), count)
        for start in range(0, count, ROWS):
            yield images_lib.to_uint8(
                dataset.fetch(chosen[start : start + ROWS])["image"]
            )

    crop = crop_of(crop)
    return ImageSet(
        name=f"{dataset.name}/{dataset.split}",
        shape=tuple(dataset.shape),
        count=len(dataset),
        hash=hash_of(dataset, crop),
        rows=rows,
        crop=crop,
    )


def hash_of(dataset: dataset_lib.Dataset, crop: str) -> str:
    """Return what changes with the images of a split and with how they are cut."""
    described = f"{dataset.fingerprint()}\0{crop_of(crop)}"
    if marked := dataset.marks({}):
        described += f"\0{marks.digest(marked)}"
    return hashlib.sha256(described.encode()).hexdigest()


def crop_of(crop: str) -> str:
    """Return how images are cut when nothing is left to chance, by data.crop."""
    return "center" if crop == "random" else crop


def of_path(path: str, field: str) -> ImageSet:
    """Return the images of an .npz or .npy file or a folder.

    Args:
        path: the file or folder.
        field: the config field it comes from.

    Raises:
        Refusal: nothing there, or no images of one size with 1 or 3 channels,
            or values whose meaning is not clear.
    """
    place = home.expanded(path)
    if not place.exists():
        raise errors.Refusal(
            f"{field}={path!r} does not exist: give a folder, .npz or .npy file of "
            "images"
        )
    images = _of_folder(place) if place.is_dir() else _of_array(place, field)
    _check_shape(images, f"{field}={path}")
    return images


def _check_shape(images, where):
    if 0 in (images.count, *images.shape) or images.shape[-1] not in (1, 3):
        raise errors.Refusal(
            f"{where} holds {images.count} images of {list(images.shape)} (height, "
            "width, channels): metrics read images of 1 or 3 channels"
        )


# ---- arrays --------------------------------------------------------------------------


def _of_array(path, field):
    key = array_files.image_key(path)
    if key is None:
        raise errors.Refusal(
            f"{field}={path} has neither {' nor '.join(npz.IMAGE_KEYS)}: give a file "
            "of images [N, H, W, C]"
        )
    with array_files.opened(path, key) as (_, shape, dtype):
        is_grey = len(shape) == GREY_RANK and shape[-1] not in COLOURS
        if not is_grey and len(shape) != GREY_RANK + 1:
            raise errors.Refusal(
                f"{field}={path}: {key or 'the array'} has the shape {list(shape)}, "
                "not [N, H, W, C]"
            )
    shape = (*shape, 1) if is_grey else shape

    def stored(count):
        for part in array_files.rows(path, key, count, ROWS):
            yield part.reshape(len(part), *shape[1:])

    rows = stored
    if 0 not in shape and dtype != np.uint8:
        convert, remark = _conversion(path, dtype, stored(shape[0]))
        say(f"note: {path} holds {remark}")

        def rows(count):
            return map(convert, stored(count))

    digest = runtime_files.sha256(path)
    return ImageSet(path.name, tuple(shape[1:]), shape[0], digest, rows)


def _conversion(path, dtype, parts):
    try:
        return conversion.to_uint8(dtype, conversion.range_of(parts))
    except errors.Refusal as refusal:
        raise errors.Refusal(f"{path} holds {refusal}") from refusal


# ---- folders -------------------------------------------------------------------------


def _of_folder(path):
    listing = files.open_images(path)
    headers = survey.survey(listing, say)
    if headers.unreadable:
        name, reason = headers.unreadable[0]
        raise errors.Refusal(
            f"{path}: {name} {reason}; remove or replace it, since a metric counts "
            "every image"
        )
    names = [listing.entries[i].name for i in headers.readable]
    sizes = {(one.height, one.width) for one in headers.found}
    if len(sizes) > 1:
        listed = " and ".join(f"{h}x{w}" for h, w in sorted(sizes)[:2])
        raise errors.Refusal(
            f"{path} holds images of different sizes, {listed} among them: metrics "
            "need one size, so cut or scale them first"
        )
    if survey.levels(headers.found, str(path)) != EIGHT_BITS:
        say(f"note: {path} holds images of 16 bits, of which metrics see 8")
    coloured = [n for n, d in zip(names, headers.found, strict=True) if d.channels > 2]
    channels = 3 if coloured else 1
    if len(coloured) < len(names) and coloured:
        say(
            f"note: {path} holds {len(coloured):,} images in colour ({coloured[0]}"
            f"{', …' if coloured[1:] else ''}) among {len(names):,}: all are measured "
            "as images in colour"
        )

    def decoded(name):
        try:
            return images_lib.shown(decoding.decode(listing.read(name), channels))
        except decoding.Unreadable as error:
            raise errors.Refusal(
                f"{path}: {name} {error}; remove or replace it, since a metric counts "
                "every image"
            ) from error

    def rows(count):
        for start in range(0, count, ROWS):
            part = names[start : min(start + ROWS, count)]
            yield np.stack(list(reading.in_threads(decoded, part)))

    digest = hashlib.sha256()
    for entry in listing.entries:
        digest.update(dataset_lib.encoded(entry.name))
        digest.update(listing.read(entry.name))
    return ImageSet(
        path.name, (*sizes.pop(), channels), len(names), digest.hexdigest(), rows
    )
