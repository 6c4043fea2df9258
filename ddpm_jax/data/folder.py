"""The user's own images: a folder of files, or the same folder zipped."""

import hashlib
import pathlib

import numpy as np

from ddpm_jax.core import errors
from ddpm_jax.data import captions_files, decoding, files, marks, reading, survey
from ddpm_jax.data import labels as labels_lib
from ddpm_jax.data.dataset import Dataset, Request, encoded, split_of


def folder(split: str, request: Request) -> Dataset:
    """Return a split of the images below the folder `request.path`.

    See `files.open_images` for what is found, `labels.assign` for the classes and
    `crops` for the preprocessing. The split of a file is decided by its path below the
    folder.

    Raises:
        Refusal: no such folder, nothing to read in it, more than 1 % unreadable files,
            or images that are not what is asked for.
    """
    if request.path and pathlib.Path(request.path).is_file():
        raise errors.Refusal(
            f"data.path {request.path!r} is a file: set data.name to zip or npz, or "
            "give the folder"
        )
    return _dataset("folder", split, request)


def zip_file(split: str, request: Request) -> Dataset:
    """Return a split of the images inside the zip file `request.path`.

    They are read from it without unpacking.

    Raises:
        Refusal: as `folder`; and a file that is no sound zip file.
    """
    if request.path and pathlib.Path(request.path).is_dir():
        raise errors.Refusal(
            f"data.path {request.path!r} is a folder: set data.name to folder, or give "
            "the zip file"
        )
    return _dataset("zip", split, request)


def _dataset(name, split, request):
    images = files.open_images(request.path)
    found = captions_files.find(images, request.captions, request.say)
    if found:
        images = found.images
    headers = survey.survey(images, request.say)
    faults = reading.Faults(
        images.root, len(images), request.say, known=headers.unreadable
    )
    labels = labels_lib.assign(images, request.labels)
    odd = labels_lib.remark(images, labels)
    if odd and split == "train":  # once, as both splits are loaded
        request.say(odd)
    levels = survey.levels(headers.found, images.root)
    names = [images.entries[i].name for i in headers.readable]
    channels = survey.channels(headers.found, names, request.channels, images.root)
    size = survey.image_size(
        headers.found, names, request.image_size, request.crop, images.root
    )
    if found:
        found.check(headers.readable)
    chosen = split_of(names, request.test_fraction, split)
    names = [names[i] for i in chosen]
    places = np.array(headers.readable, np.int64)[chosen]
    ids = labels.ids[places]
    if split == "train":
        _say_missing_classes(ids, labels.names, request.say)
    random_crop = request.crop == "random" and split == "train"
    reader = reading.Reader(
        lambda index: decoding.decode(images.read(names[index]), channels),
        names=names,
        labels=ids,
        shape=(*size, channels),
        random_crop=random_crop,
        alpha=channels == 4 and any(one.format != "NPY" for one in headers.found),
        cache_gib=request.cache_gib,
        faults=faults,
    )

    def read_captions(indices, draws):
        return found.captions.choose(places[reader.shown(indices)], draws)

    return Dataset(
        name=name,
        split=split,
        shape=(*size, channels),
        levels=levels,
        num_classes=labels.num_classes,
        class_names=labels.names,
        num_examples=len(names),
        read=reader.read,
        read_labels=lambda indices: ids[reader.shown(indices)],
        read_captions=read_captions if found else None,
        all_captions=(lambda: iter(found.captions)) if found else None,
        content=_content(images, labels, found),
        random_crop=random_crop,
        count_unreadable=lambda: len(faults),
        place=str(pathlib.Path(images.root).absolute()),
        marks=lambda known: _marks(images, labels, found, known),
    )


def _say_missing_classes(ids, class_names, say):
    present = set(ids.tolist())
    missing = [name for i, name in enumerate(class_names) if i not in present]
    if missing:
        say(
            f"no training image of {len(missing)} classes ({', '.join(missing[:5])}): "
            "all of theirs are in the test split; lower data.test_fraction"
        )


def _content(images, labels, found):
    """Return a hash of every file's path, size, label and captions."""
    digest = hashlib.sha256()
    for number, (entry, label) in enumerate(_labelled(images, labels)):
        digest.update(encoded(entry.name) + f"\0{entry.size}\0{label}\n".encode())
        if found:
            digest.update(f"{found.captions.digest(number)}\n".encode())
    return digest.hexdigest()


def _labelled(images, labels):
    return zip(images.entries, labels.ids.tolist(), strict=True)


def _marks(images, labels, found, known):
    """Return the mark of every file by name; those of `known` that hold are kept."""

    def mark(entry):
        try:
            return images.mark(entry.name, known.get(entry.name))
        except decoding.Unreadable:
            return marks.UNREADABLE, ""

    marked = reading.in_threads(mark, images.entries)
    return {
        entry.name: marks.Mark(
            entry.size, label, *one, found.captions.digest(number) if found else ""
        )
        for number, ((entry, label), one) in enumerate(
            zip(_labelled(images, labels), marked, strict=True)
        )
    }
