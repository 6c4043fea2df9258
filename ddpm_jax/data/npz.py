"""Arrays of images in one .npz file, as OpenAI's codes write their samples."""

import hashlib
import io
import pathlib

import numpy as np

from ddpm_jax.core import errors
from ddpm_jax.data import decoding, reading, zip_files
from ddpm_jax.data import images as images_lib
from ddpm_jax.data import labels as labels_lib
from ddpm_jax.data.dataset import Dataset, Request, split_of

IMAGE_KEYS = ("arr_0", "images")
LABEL_KEYS = ("arr_1", "labels")
VOLUMES_RANK = 5  # [N, D, H, W, C]


def npz(split: str, request: Request) -> Dataset:
    """Return a split of the images in the .npz file `request.path`.

    It holds `arr_0` or `images`, [N, H, W, C] or [N, H, W] of uint8, uint16 or floats
    in [0, 1], and perhaps `arr_1` or `labels`, integers [N]. The split of an image is
    decided by its index.

    Raises:
        Refusal: no such file, other arrays, or images that are not what is asked for.
    """
    images, ids = arrays(pathlib.Path(request.path or ""))
    count, height, width, own_channels = images.shape
    if split == "train" and images_lib.looks_like_planes(height, width, own_channels):
        request.say(_layout_remark(request.path, height, width, own_channels))
    shape = _shape(request, (height, width), own_channels)
    labels = _labels(ids, count, request)
    chosen = split_of(map(str, range(count)), request.test_fraction, split)
    random_crop = request.crop == "random" and split == "train"
    reader = reading.Reader(
        lambda i: decoding.convert(images[chosen[i]], shape[2], alpha=False),
        names=[f"image {i}" for i in chosen],
        labels=labels.ids[chosen],
        shape=shape,
        random_crop=random_crop,
        alpha=False,
        cache_gib=0.0 if shape[:2] == (height, width) else request.cache_gib,
        faults=reading.Faults(request.path, count, request.say),
    )
    return Dataset(
        name="npz",
        split=split,
        shape=shape,
        levels=np.iinfo(images.dtype).max + 1,
        num_classes=labels.num_classes,
        class_names=labels.names,
        num_examples=len(chosen),
        read=reader.read,
        read_labels=lambda indices: labels.ids[chosen][reader.shown(indices)],
        content=hashlib.sha256(images.tobytes() + labels.ids.tobytes()).hexdigest(),
        random_crop=random_crop,
    )


def arrays(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the images [N, H, W, C] of an .npz file, and its labels or None.

    Args:
        path: the file.

    Returns:
        uint8 or uint16; and what `arr_1` or `labels` holds, unchecked.

    Raises:
        Refusal: no such file, or one without images.
    """
    if not path.is_file():
        shown = "" if path == pathlib.Path() else str(path)
        raise errors.Refusal(
            f"data.path {shown!r} is no file: give the .npz file that holds the images"
        )
    zip_files.open_zip(path).close()  # an .npz file is one
    try:
        with np.load(path, allow_pickle=False) as file:
            held = file.files
            images, ids = (_one_of(file, keys) for keys in (IMAGE_KEYS, LABEL_KEYS))
    except decoding.CONTENT_ERRORS as error:
        raise errors.Refusal(
            f"{path} cannot be read ({error}): it is damaged, or no file of numbers"
        ) from error
    if images is None:
        raise errors.Refusal(
            f"{path} holds {', '.join(held) or 'nothing'}: it needs "
            f"{' or '.join(IMAGE_KEYS)}, [N, H, W, C]"
        )
    _check_layout(path, images.shape)
    try:
        images = decoding.quantise(images)
    except decoding.Unreadable as error:
        raise errors.Refusal(f"{path} {error}") from error
    return images.reshape(*images.shape[:3], -1), ids


def _check_layout(path, shape):
    if len(shape) == VOLUMES_RANK and 0 not in shape:
        flat = "images.shape[3:]" if shape[1] == 1 else "images.shape[2:]"
        raise errors.Refusal(
            f"the images of {path} have the shape {shape}, as volumes [N, D, H, W, C] "
            f"do, and networks here take images: save their slices, images.reshape(-1, "
            f"*{flat})"
        )
    if len(shape) not in (3, 4) or 0 in shape:
        raise errors.Refusal(
            f"the images of {path} have the shape {shape}: save [N, H, W, C]"
        )
    # The rule for .npy files holds for each image here too: judge it as such a file.
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": shape[1:]}
    )
    try:
        decoding.describe(header.getvalue())
    except decoding.Unreadable as error:
        raise errors.Refusal(
            f"each image of {path} {error}, with images.transpose(0, 2, 3, 1)"
        ) from error


def _layout_remark(path, height, width, channels):
    return (
        f"{path}: read as images of {height}x{width} with {channels} channels; if they "
        "are [N, C, H, W], save images.transpose(0, 2, 3, 1), and if they are volumes "
        f"[N, D, H, W], their slices, images.reshape(-1, {width}, {channels})"
    )


def _one_of(arrays, keys):
    return next((arrays[key] for key in keys if key in arrays.files), None)


def _shape(request, size, own_channels):
    """Return (H, W, C) to train on."""
    height, width = request.image_size or size
    if size[0] < height or size[1] < width:
        raise errors.Refusal(
            f"the images of {request.path} are {size[0]}x{size[1]}, smaller than "
            f"data.image_size {height}x{width}, and enlarging would blur them: lower it"
        )
    if request.crop == "none" and size != (height, width):
        raise errors.Refusal(
            f"data.crop=none: the images of {request.path} are {size[0]}x{size[1]}, "
            f"not {height}x{width}: set --config.data.crop=center to cut them"
        )
    channels = request.channels or own_channels
    if not decoding.is_convertible(own_channels, channels, alpha=False):
        raise errors.Refusal(
            f"data.channels={channels}: the images of {request.path} have "
            f"{own_channels} channels, which cannot be converted; leave it 0"
        )
    return height, width, channels


def _labels(ids, count, request):
    if request.labels not in ("auto", "none"):
        raise errors.Refusal(
            f"data.labels={request.labels!r}: an .npz file carries its own; use auto "
            "or none"
        )
    if ids is None or request.labels == "none":
        return labels_lib.none(count)
    if ids.shape != (count,) or ids.dtype.kind not in "iu":
        raise errors.Refusal(
            f"the labels of {request.path} are {ids.dtype} {ids.shape}: save one "
            f"integer for each of the {count} images, or set data.labels=none"
        )
    labels_lib.check_integers(ids, request.path)
    names = tuple(str(number) for number in range(ids.max() + 1))
    return labels_lib.Labels(ids.astype(np.int32), names)
