"""Image data sets that TensorFlow Datasets has prepared on disk, read without it.

Reading needs no TensorFlow. Preparing does: TFDS 4.9 unpacks archives and reads many
files with it. So a set that is not there is refused with the commands that prepare it
in an environment of its own, and TensorFlow never enters this one.
"""

import difflib
import importlib.util
import re

import numpy as np

from ddpm_jax.core import errors
from ddpm_jax.data import captions_tfds, decoding, reading
from ddpm_jax.data.dataset import SPLITS, Dataset, Request, split_of

OWN_TEST_SPLITS = ("test", "validation")
UNKNOWN = -1  # label of an image that was not read yet


def cifar10(split: str, request: Request) -> Dataset:
    """Return CIFAR-10, 32×32×3 in 256 levels: 50,000 training, 10,000 test images.

    Raises:
        Refusal: see `tfds_dataset`.
    """
    return tfds_dataset("cifar10", split, request, known_as="cifar10")


def tfds_dataset(
    name: str, split: str, request: Request, *, known_as: str = ""
) -> Dataset:
    """Return a split of an image data set of TFDS.

    The test split is the data set's own "test", or else its "validation"; where it has
    neither, a share of "train", in which each image is decided by its index. Labels
    are those of the feature "label", if it is one of classes; captions see
    `captions_tfds.feature`.

    Args:
        name: TFDS's name of the data set; it needs a feature "image".
        split: "train" or "test".
        request: what else is asked for; `path` is the TFDS data directory, None means
            TFDS's default.
        known_as: the source's name; "" stands for tfds:<name>.

    Raises:
        Refusal: tensorflow_datasets is missing, there is no data set of this name, or
            it is not on disk with random access, or not what is asked for.
    """
    if importlib.util.find_spec("tensorflow_datasets") is None:
        raise errors.Refusal(
            f"{name} is read by tensorflow_datasets, which is not installed: "
            "pip install 'ddpm-jax[tfds]'"
        )
    builder = _builder(name, request.path)
    image_feature = _image_feature(name, builder.info)
    shape = _shape(name, image_feature, request)
    class_names = _class_names(name, builder.info, request)
    records, chosen = _records(name, builder, split, request)
    # Filled as the records are decoded.
    labels = np.full(len(chosen), UNKNOWN if class_names else 0, np.int32)

    def decode(index):
        record = records[int(chosen[index])]
        if class_names:
            labels[index] = _checked_label(record["label"], name, index)
        image = np.asarray(record["image"])
        return decoding.convert(image, shape[2], alpha=image.shape[2] == 4)

    random_crop = request.crop == "random" and split == "train"
    source = known_as or f"tfds:{name}"
    faults = reading.Faults(source, len(chosen), request.say)
    reader = reading.Reader(
        decode,
        names=[f"image {i}" for i in chosen],
        labels=labels,
        shape=shape,
        random_crop=random_crop,
        alpha=shape[2] == 4,
        cache_gib=request.cache_gib,
        faults=faults,
    )

    def read_labels(indices):
        indices = reader.shown(indices)
        unknown = [i for i in indices.tolist() if labels[i] == UNKNOWN]
        if unknown:
            undecoded = captions_tfds.undecoded(builder, _split(builder, split))
            for i in unknown:
                label = undecoded[int(chosen[i])]["label"]
                labels[i] = _checked_label(label, name, i)
        return labels[indices]

    captions = _captions(name, builder, split, request)

    def choose(indices, draws):
        return captions.choose(chosen[reader.shown(indices)], draws)

    return Dataset(
        name=source,
        split=split,
        shape=shape,
        levels=np.iinfo(image_feature.np_dtype).max + 1,
        num_classes=len(class_names) or None,
        class_names=class_names,
        num_examples=len(chosen),
        read=reader.read,
        read_labels=read_labels,
        read_captions=choose if captions is not None else None,
        all_captions=(lambda: _all_captions(name, builder, request))
        if captions is not None
        else None,
        content=captions.fingerprint() if captions is not None else "",
        random_crop=random_crop,
        count_unreadable=lambda: len(faults),
    )


def _builder(name, data_dir):
    """Return TFDS's builder of a data set that is on disk with random access."""
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        known = tfds.list_builders(with_community_datasets=False)
        wanted = re.split("[/:]", name)[0]
        close = difflib.get_close_matches(wanted, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}" if close else "none is alike"
        raise errors.Refusal(
            f"TFDS has no data set {wanted!r} ({hint}): choose one of its catalogue, "
            "https://www.tensorflow.org/datasets/catalog"
        ) from error
    except ValueError as error:  # no such configuration or version
        raise errors.Refusal(f"tfds:{name} cannot be opened: {error}") from error
    formats = builder.info.available_file_formats() if builder.info.splits else set()
    if not formats & set(tfds.core.FileFormat.with_random_access()):
        raise errors.Refusal(_how_to_prepare(name, builder))
    return builder


def _image_feature(name, info):
    import tensorflow_datasets as tfds

    features = dict(info.features.items())
    feature = features.get("image")
    if not isinstance(feature, tfds.features.Image) or feature.np_dtype not in (
        np.uint8,
        np.uint16,
    ):
        raise errors.Refusal(
            f"{name} has the features {features}: choose a data set with an 'image' of "
            "8 or 16 bits"
        )
    return feature


def _shape(name, feature, request):
    """Return (H, W, C) to train on."""
    *size, own_channels = feature.shape
    if request.image_size is None and None in size:
        raise errors.Refusal(
            f"the images of {name} differ in size: set for example "
            "--config.data.image_size=64 to cut them to one"
        )
    height, width = request.image_size or size
    if None not in size and (size[0] < height or size[1] < width):
        raise errors.Refusal(
            f"the images of {name} are {size[0]}x{size[1]}, smaller than "
            f"data.image_size {height}x{width}, and enlarging would blur them: lower it"
        )
    if request.crop == "none" and tuple(size) != (height, width):
        raise errors.Refusal(
            f"data.crop=none: the images of {name} are not all {height}x{width}: set "
            "--config.data.crop=center to cut them"
        )
    channels = request.channels or own_channels
    alpha = own_channels == 4
    if not decoding.is_convertible(own_channels, channels, alpha=alpha):
        raise errors.Refusal(
            f"data.channels={channels}: images of {name!r} have {own_channels}, which "
            "cannot be converted; leave the field 0"
        )
    return height, width, channels


def _class_names(name, info, request):
    import tensorflow_datasets as tfds

    if request.labels not in ("auto", "none"):
        raise errors.Refusal(
            f"data.labels={request.labels!r}: {name} carries its own; use auto or none"
        )
    feature = dict(info.features.items()).get("label")
    if request.labels == "none" or not isinstance(feature, tfds.features.ClassLabel):
        return ()
    return tuple(feature.names)


def _checked_label(label, name, index):
    if label < 0:
        raise errors.Refusal(
            f"image {index} of {name} has no label in this split: set data.labels=none"
        )
    return label


def _records(name, builder, split, request):
    """Return TFDS's records and the indices of those that belong to the split."""
    splits = builder.info.splits
    if "train" not in splits:
        raise errors.Refusal(
            f"{name} has no split 'train', only {', '.join(sorted(splits))}: choose "
            "another data set"
        )
    records = builder.as_data_source(_split(builder, split))
    if _own_test_split(builder):
        return records, np.arange(len(records))
    names = map(str, range(len(records)))
    return records, split_of(names, request.test_fraction, split)


def _own_test_split(builder):
    return next((s for s in OWN_TEST_SPLITS if s in builder.info.splits), None)


def _split(builder, split):
    """Return TFDS's name of the split that holds one of ours."""
    return (_own_test_split(builder) or "train") if split == "test" else "train"


def _captions(name, builder, split, request):
    """Return the captions of all records of a split, or None."""
    feature = captions_tfds.feature(name, builder.info, request.captions)
    if feature is None:
        return None
    folder = str(builder.info.data_dir)
    return captions_tfds.read(folder, _split(builder, split), feature, request.say)


def _all_captions(name, builder, request):
    different = {_split(builder, split): split for split in SPLITS}
    for split in different.values():
        yield from _captions(name, builder, split, request)


def _how_to_prepare(name, builder):
    info = builder.info
    # The folder ends in NAME/VERSION or NAME/CONFIG/VERSION.
    folder = str(info.data_dir)
    data_dir = folder[: folder.rindex(f"/{builder.name}/")]
    if info.splits:
        # TFDS does not write a second format beside the first.
        found = f"{name} is in {folder} in the format {info.file_format.value}"
        data_dir += "-array_record"
    else:
        found = f"{name} is not in {folder}"
    program = (
        f"import tensorflow_datasets as tfds; tfds.builder({name!r}, "
        f"data_dir={data_dir!r}, file_format='array_record').download_and_prepare()"
    )
    first = ""
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        instructions = " ".join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
        first = (
            f"first put the files that cannot be downloaded by a program into "
            f"{data_dir}/downloads/manual ({instructions.rstrip('.')}); then "
        )
    return (
        f"{found}, but is needed in TFDS's array_record format: point data.path at a "
        f"TFDS directory that holds it so, or {first}prepare it once with the command "
        "below (in an environment of its own: TFDS needs TensorFlow for this step "
        f"alone) and set data.path to {data_dir}: python -m venv tfds-env && "
        "tfds-env/bin/pip install tensorflow tensorflow-datasets importlib_resources "
        f'&& tfds-env/bin/python -c "{program}"'
    )
