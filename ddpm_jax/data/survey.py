"""Which sizes, channels and depths the images of a folder have, from their headers."""

import collections
import dataclasses
import functools
from collections.abc import Callable

from ddpm_jax.core import errors
from ddpm_jax.data import decoding, files, reading
from ddpm_jax.data import images as images_lib

PROGRESS_EVERY = 10_000  # files
LISTED = 4  # of the commonest sizes or numbers of channels
MULTIPLE = 8  # sides that networks can halve three times


@dataclasses.dataclass(frozen=True)
class Survey:
    """What the headers say.

    Attributes:
        readable: indices of the entries whose headers could be read.
        found: their descriptions.
        unreadable: (name, reason) of the others.
    """

    readable: tuple[int, ...]
    found: tuple[decoding.Description, ...]
    unreadable: tuple[tuple[str, str], ...]


@functools.lru_cache(maxsize=4)  # both splits, and the check before training, ask
def survey(images: files.Images, say: Callable[[str], None]) -> Survey:
    """Read the header of every image, and say what is special about them."""

    def read_header(entry):
        try:
            return images.use(entry.name, decoding.describe)
        except decoding.Unreadable as error:
            return str(error)

    found = []
    for start in range(0, len(images), PROGRESS_EVERY):
        if start:
            say(f"read the headers of {start:,} of {len(images):,} images …")
        part = images.entries[start : start + PROGRESS_EVERY]
        found += reading.in_threads(read_header, part)
    ignored = files.describe_ignored(images)
    say(f"{images.root}: {len(images):,} images{f', {ignored}' if ignored else ''}")
    for line in files.remarks(images):
        say(line)
    readable = [i for i, one in enumerate(found) if not isinstance(one, str)]
    unreadable = [
        (entry.name, one)
        for entry, one in zip(images.entries, found, strict=True)
        if isinstance(one, str)
    ]
    for name, reason in unreadable[: 2 * LISTED]:
        say(f"skipped: {name} {reason}")
    if len(unreadable) > 2 * LISTED:
        say(f"skipped: {len(unreadable) - 2 * LISTED} more")
    result = Survey(
        readable=tuple(readable),
        found=tuple(found[i] for i in readable),
        unreadable=tuple(unreadable),
    )
    for line in _remarks(result.found):
        say(line)
    return result


def _remarks(found):
    """Yield what is done to images without being asked."""
    turned = sum(one.orientation != 1 for one in found)
    if turned:
        yield f"turned upright as EXIF says: {_images(turned)}"
    cmyk = sum(one.mode in ("CMYK", "YCbCr", "LAB", "HSV") for one in found)
    if cmyk:
        yield f"converted to RGB from CMYK and the like: {_images(cmyk)}"
    profiled = collections.Counter(one.profile for one in found if one.profile)
    if profiled:
        listed = ", ".join(name for name, _ in profiled.most_common(LISTED))
        yield (
            f"read without their colour profile ({listed}): "
            f"{_images(profiled.total())}, whose colours differ from those that other "
            "programs show; to keep them, convert the files to sRGB first"
        )
    deep = sum(one.stored_bits > one.bits for one in found)
    if deep:
        yield (
            f"read with 8 bits of more: {_images(deep)} in colour; for all bits save "
            "them as .npy arrays"
        )
    planes = [
        (one.height, one.width, one.channels)
        for one in found
        if one.format == "NPY"
        and images_lib.looks_like_planes(one.height, one.width, one.channels)
    ]
    if planes:
        height, width, channels = planes[0]
        yield (
            f"read as {height}x{width} with {channels} channels: "
            f"{_images(len(planes))}; if they are [C, H, W], save "
            "array.transpose(1, 2, 0), and if they are volumes [D, H, W], each slice "
            "array[i] as a file of its own"
        )


def _images(count):
    return f"{count:,} image{'s' * (count != 1)}"


def levels(found, root: str) -> int:
    """Return the number of grey values: 256, or 65536 for 16 bits.

    Raises:
        Refusal: there are images of both kinds.
    """
    counts = collections.Counter(one.bits for one in found)
    if len(counts) > 1:
        raise errors.Refusal(
            f"{root} holds {counts[8]} images of 8 bits and {counts[16]} of 16: save "
            "all with the same number of bits"
        )
    return 2 ** next(iter(counts))


def channels(found, names, wanted: int, root: str) -> int:
    """Return the number of channels to train on.

    Args:
        found: the descriptions.
        names: the file of each.
        wanted: data.channels; 0 for the number that all images share.
        root: where they lie, for messages.

    Raises:
        Refusal: images differ and `wanted` is 0, or some cannot be converted.
    """
    counts = collections.Counter(one.channels for one in found)
    if not wanted:
        if len(counts) == 1:
            return next(iter(counts))
        listed = ", ".join(
            f"{n:,} with {c}, such as {names[_first(found, c)]}"
            for c, n in counts.most_common(LISTED)
        )
        raise errors.Refusal(
            f"the images of {root} have different numbers of channels ({listed}): set "
            "--config.data.channels=3 for colours (grey is repeated, transparency "
            "becomes white), 1 for grey, or 4 for colours and opacity"
        )
    stubborn = collections.Counter(
        one.channels for one in found if not _is_convertible(one, wanted)
    )
    if stubborn:
        number, count = stubborn.most_common(1)[0]
        raise errors.Refusal(
            f"data.channels={wanted}: {count:,} images of {root} have {number} "
            f"channels ({names[_first(found, number)]} is one), which cannot be "
            "converted; leave it 0 for the data's own number"
        )
    return wanted


def _first(found, number):
    return next(i for i, one in enumerate(found) if one.channels == number)


def _is_convertible(one, wanted):
    if one.format == "NPY" and one.channels not in (1, 3):
        return one.channels == wanted
    return decoding.is_convertible(one.channels, wanted, alpha=one.alpha)


def image_size(found, names, wanted, crop: str, root: str) -> tuple[int, int]:
    """Return (height, width) to train on.

    Args:
        found: the descriptions.
        names: the file of each.
        wanted: (height, width), or None for the size that all images share.
        crop: "none" permits no other size; else larger images are cut.
        root: where they lie, for messages.

    Raises:
        Refusal: images differ and `wanted` is None, some are smaller than `wanted`, or
            they are larger and `crop` is "none".
    """
    counts = collections.Counter((one.height, one.width) for one in found)
    listed = ", ".join(f"{n:,} of {h}x{w}" for (h, w), n in counts.most_common(LISTED))
    listed += ", …" if len(counts) > LISTED else ""
    if wanted is None:
        if len(counts) == 1:
            return next(iter(counts))
        raise errors.Refusal(
            f"the images of {root} have {len(counts)} sizes ({listed}): "
            f"{_suggestion(counts, found, names)}"
        )
    height, width = wanted
    small = {size for size in counts if size[0] < height or size[1] < width}
    if small:
        first = next(
            f"{name} is {one.height}x{one.width}"
            for name, one in zip(names, found, strict=True)
            if (one.height, one.width) in small
        )
        raise errors.Refusal(
            f"{sum(counts[size] for size in small):,} of {len(found):,} images of "
            f"{root} are smaller than data.image_size {height}x{width} ({first}), and "
            "enlarging would blur them: remove them, or "
            f"{_suggestion(counts, found, names)}"
        )
    if crop == "none" and set(counts) != {wanted}:
        raise errors.Refusal(
            f"data.crop=none: the images of {root} are {listed}, not all "
            f"{height}x{width}: set --config.data.crop=center to cut them"
        )
    return wanted


def _suggestion(counts, found, names):
    side = min(min(size) for size in counts)
    if side >= MULTIPLE:
        side -= side % MULTIPLE
        return f"set --config.data.image_size={side} to cut all to {side}x{side}"
    smallest = min(
        zip(names, found, strict=True),
        key=lambda pair: min(pair[1].height, pair[1].width),
    )
    return (
        f"remove tiny ones such as {smallest[0]} "
        f"({smallest[1].height}x{smallest[1].width}) and set --config.data.image_size"
    )
