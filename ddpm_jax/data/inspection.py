"""What a data set holds, before the first step: every file, and what training sees."""

import collections
import dataclasses
import hashlib
from collections.abc import Callable

import numpy as np

from ddpm_jax.core import arrays
from ddpm_jax.data import decoding, files, reading, survey
from ddpm_jax.data.dataset import Dataset

MAX_DECODED = 20_000  # files whose pixels are decoded; evenly spaced beyond
MAX_SEEN = 1_000  # preprocessed images for mean and range
NUM_EXAMPLES = 64
PROGRESS_EVERY = 2_000  # files


@dataclasses.dataclass(frozen=True)
class FilesFound:
    """What the image files of a folder or zip file are, whatever training makes of it.

    Attributes:
        images: the listing.
        headers: what the headers say.
        unreadable: (name, reason) of the files whose header or pixels are damaged.
        constant: names of the images of a single colour.
        duplicates: groups of files with the same content.
        num_decoded: how many files were decoded to find out.
    """

    images: files.Images
    headers: survey.Survey
    unreadable: tuple[tuple[str, str], ...]
    constant: tuple[str, ...]
    duplicates: tuple[tuple[str, ...], ...]
    num_decoded: int

    def counts(self, attribute: str) -> list[tuple[object, int]]:
        """Return (value, number of files) of an attribute, commonest first.

        Args:
            attribute: of `decoding.Description`.
        """
        values = (getattr(one, attribute) for one in self.headers.found)
        return collections.Counter(values).most_common()

    def sizes(self) -> list[tuple[tuple[int, int], int]]:
        """Return ((height, width), number of files), commonest first."""
        values = ((one.height, one.width) for one in self.headers.found)
        return collections.Counter(values).most_common()


def inspect_files(images: files.Images, say: Callable[[str], None]) -> FilesFound:
    """Read every header, decode the files, compare their contents.

    Args:
        images: from `files.open_images`.
        say: called with a line of progress now and then.
    """
    headers = survey.survey(images, say)
    names = [images.entries[index].name for index in headers.readable]
    if len(names) > MAX_DECODED:
        names = [names[i] for i in arrays.spread(len(names), MAX_DECODED)]
    verdicts = []
    for start in range(0, len(names), PROGRESS_EVERY):
        if start:
            say(f"decoded {start:,} of {len(names):,} images …")
        part = names[start : start + PROGRESS_EVERY]
        verdicts += reading.in_threads(lambda name: _verdict(images, name), part)
    judged = list(zip(names, verdicts, strict=True))
    damaged = [(name, verdict) for name, verdict in judged if isinstance(verdict, str)]
    return FilesFound(
        images=images,
        headers=headers,
        unreadable=(*headers.unreadable, *damaged),
        constant=tuple(name for name, verdict in judged if verdict is True),
        duplicates=_duplicates(images),
        num_decoded=len(names),
    )


def _verdict(images, name):
    """Return whether an image is constant, or the reason why it cannot be read."""
    try:
        pixels = decoding.decode(images.read(name))
    except decoding.Unreadable as error:
        return str(error)
    return bool((pixels == pixels[:1, :1]).all())


def _duplicates(images):
    """Return groups of names with the same bytes; only equal sizes are read."""
    by_size = collections.defaultdict(list)
    for entry in images.entries:
        by_size[entry.size].append(entry.name)
    suspects = [name for names in by_size.values() if len(names) > 1 for name in names]

    def digest(name):
        try:
            return hashlib.sha256(images.read(name)).digest()
        except decoding.Unreadable:
            return name  # damaged, and listed as such

    groups = collections.defaultdict(list)
    for name, key in zip(suspects, reading.in_threads(digest, suspects), strict=True):
        groups[key].append(name)
    return tuple(tuple(names) for names in groups.values() if len(names) > 1)


@dataclasses.dataclass(frozen=True)
class ImageStatistics:
    """What the network sees, from evenly spaced images of a split.

    Attributes:
        examples: float32 [n, H, W, C], up to 64 images in [−1, 1].
        labels: int32 [n], theirs.
        mean_image: float32 [H, W, C].
        minimum, maximum: over all values of the inspected images.
        channel_mean, channel_std: [C].
        class_counts: inspected images of each class; () without classes.
        num_images: how many were inspected.
    """

    examples: np.ndarray
    labels: np.ndarray
    mean_image: np.ndarray
    minimum: float
    maximum: float
    channel_mean: np.ndarray
    channel_std: np.ndarray
    class_counts: tuple[int, ...]
    num_images: int


def inspect_dataset(dataset: Dataset, limit: int = MAX_SEEN) -> ImageStatistics:
    """Fetch evenly spaced images as training would, `limit` at most; sum them up."""
    batch = dataset.fetch(arrays.spread(len(dataset), limit))
    image, label = batch["image"], batch["label"]
    shown = arrays.spread(len(image), NUM_EXAMPLES)
    pixels = image.reshape(-1, image.shape[-1]).astype(np.float64)
    counts = np.bincount(label, minlength=dataset.num_classes or 0)
    return ImageStatistics(
        examples=image[shown],
        labels=label[shown],
        mean_image=image.mean(axis=0),
        minimum=float(image.min()),
        maximum=float(image.max()),
        channel_mean=pixels.mean(axis=0),
        channel_std=pixels.std(axis=0),
        class_counts=tuple(counts.tolist()) if dataset.num_classes else (),
        num_images=len(image),
    )


def remarks(dataset: Dataset, seen: ImageStatistics) -> list[str]:
    """Return remarks about pixels."""
    found = []
    if dataset.levels is not None and seen.maximum - seen.minimum < 1:
        found.append(_of_range(dataset.levels - 1, seen))
    if dataset.shape[2] == 3 and np.ptp(seen.examples, axis=3).max() == 0:
        found.append("all colours are grey: data.channels=1 trains faster")
    return found


def _of_range(largest, seen):
    low, high = (
        round((value + 1) / 2 * largest) for value in (seen.minimum, seen.maximum)
    )
    message = (
        f"values go from {low:,} to {high:,} of 0 … {largest:,}: the images are dim, "
        "or of another range than their type says"
    )
    factor = largest // max(high, 1)
    if factor < 2:
        return f"{message}; stretch their contrast"
    return f"{message}; multiplied by {factor:,} they would use all of it"
