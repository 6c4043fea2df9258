"""What samples are compared with: images, or statistics that were made before."""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from ddpm_jax.core import errors
from ddpm_jax.evaluation import array_files, cards, image_sets
from ddpm_jax.metrics import features as features_lib
from ddpm_jax.metrics import statistics
from ddpm_jax.runtime import distributed, files, home
from ddpm_jax.runtime.console import say

FEATURE_IMAGES = 10_000
"""Images whose features are kept one by one, as in ADM's protocol."""

PRINT_SECONDS = 10

PROXY_IMAGES = 50_000
"""Images that proxies are compared with: they are to be quick."""


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """What to compare with.

    Attributes:
        name: what a reader of a card knows it by.
        hash: changes with its content.
        images: None where there are statistics alone.
        statistics: file that was given, else None.
    """

    name: str
    hash: str
    images: image_sets.ImageSet | None
    statistics: pathlib.Path | None = None


def of_images(images: image_sets.ImageSet) -> Reference:
    """Return images as a reference; their statistics are made when first needed."""
    return Reference(images.name, images.hash, images)


def of_path(path: str) -> Reference:
    """Return the reference of evaluation.reference.

    Raises:
        Refusal: nothing there that one can compare with.
    """
    field = "evaluation.reference"
    place = home.expanded(path)
    if not place.is_file():
        return of_images(image_sets.of_path(path, field))
    has_images = array_files.image_key(place) is not None
    has_statistics = "mu" in array_files.names(place)
    images = image_sets.of_path(path, field) if has_images else None
    if not has_statistics and images is None:
        statistics.load(place)  # its sentence tells what the file holds
    digest = images.hash if images else files.sha256(place)
    return Reference(place.name, digest, images, place if has_statistics else None)


def check(
    reference: Reference,
    network: features_lib.FeatureNetwork,
    *,
    summed: tuple[str, ...],
    kept: tuple[str, ...],
    shape: tuple[int, int, int],
    crop: str,
) -> None:
    """Refuse a comparison that would say nothing, before anything is computed.

    Args:
        reference: what to compare with.
        network: what the samples will be measured with.
        summed: features whose statistics are compared.
        kept: features that are compared image by image.
        shape: (H, W, C) of the samples.
        crop: data.crop of the run; "" where that is not known.

    Raises:
        Refusal: another size, crop, network or resize rule; no images for `kept`.
    """
    theirs = reference.images.shape if reference.images else None
    their_crop = reference.images.crop if reference.images else ""
    if summed and reference.statistics:
        known = _load(reference.statistics, network)
        statistics.check_comparable(known, network, summed)
        theirs = tuple(known.provenance.get("image_shape") or ()) or theirs
        their_crop = known.provenance.get("crop") or ""
    if kept and reference.images is None:
        raise errors.Refusal(
            f"the reference {reference.name} holds statistics alone, and precision, "
            "recall and KID compare images: give an .npz or a folder of images"
        )
    if theirs is not None and theirs != shape:
        raise errors.Refusal(
            f"the samples are {list(shape)} and the images of the reference "
            f"{reference.name} {list(theirs)} (height, width, channels): compare "
            "images of one size, cut in the same way"
        )
    if crop and their_crop and image_sets.crop_of(crop) != their_crop:
        raise errors.Refusal(
            f"the reference {reference.name} was cut with data.crop={their_crop} and "
            f"the run's data with {crop}: make the reference again from the run's data"
        )


def load_statistics(
    reference: Reference,
    network: features_lib.FeatureNetwork,
    summed: tuple[str, ...],
    *,
    folder: pathlib.Path,
    mesh,
    batch_size: int,
    should_stop: Callable[[], bool],
) -> statistics.ReferenceStatistics | None:
    """Return the statistics of a reference: given, kept from before, or made now.

    What is made is kept in `folder` as reference-<network>-<digest>.npz.

    Returns:
        None if stopped.
    """
    if reference.statistics:
        return _load(reference.statistics, network)
    images = reference.images
    proxied = network.name != features_lib.INCEPTION
    count = min(images.count, PROXY_IMAGES) if proxied else images.count
    summed = tuple(dict.fromkeys(("pool", *summed)))  # no file is without it
    key = (network.fingerprint, network.resize, images.hash, str(count), *summed)
    path = folder / f"reference-{network.name}-{cards.short_hash(*key)}.npz"
    if distributed.from_first(path.exists()):
        return statistics.load(path)
    say(f"measuring the reference, {count} images of {reference.name} …")
    measured = features_lib.measure(
        network,
        until(images.rows(count), should_stop),
        mesh=mesh,
        batch_size=batch_size,
        summed=summed,
        groups=1,
        on_batch=progress_printer(count),
    )
    if measured.num_images < count:
        return None
    provenance = {
        "images": images.name,
        "hash": images.hash,
        "image_shape": images.shape,
        "crop": images.crop,
    }
    made = statistics.of_measured(measured, network, provenance)
    statistics.save(path, made)
    say(f"reference: {path}")
    return made


def load_features(
    reference: Reference,
    network: features_lib.FeatureNetwork,
    *,
    mesh,
    batch_size: int,
    should_stop: Callable[[], bool],
) -> np.ndarray | None:
    """Return "pool" features of at most `FEATURE_IMAGES` images, float32 [n, D].

    Returns:
        None if stopped.
    """
    count = min(reference.images.count, FEATURE_IMAGES)
    say(f"measuring {count} images of the reference {reference.name} one by one …")
    measured = features_lib.measure(
        network,
        until(reference.images.rows(count), should_stop),
        mesh=mesh,
        batch_size=batch_size,
        summed=(),
        kept=("pool",),
        on_batch=progress_printer(count),
    )
    return measured.kept["pool"] if measured.num_images == count else None


def progress_printer(count: int) -> Callable[[int], None]:
    """Return what says how many of `count` images are measured, every few seconds."""
    said = time.monotonic()

    def say_progress(done):
        nonlocal said
        if time.monotonic() - said > PRINT_SECONDS:
            said = time.monotonic()
            say(f"{done}/{count} images measured")

    return say_progress


def until(
    rows: Iterable[np.ndarray], should_stop: Callable[[], bool]
) -> Iterator[np.ndarray]:
    """Yield parts of some images, at least one, until asked to stop."""
    for part in rows:
        yield part
        if should_stop():
            return


def _load(path, network):
    """Read a file of statistics for a network.

    pytorch-fid's and clean-fid's files look alike: whoever asks for "clean" has the
    latter.
    """
    found = statistics.load(path)
    is_unnamed = "assumed" in found.provenance and "spatial" not in found.gaussians
    if network.resize == "clean" and is_unnamed:
        return statistics.load(path, assumed_resize="clean")
    return found
