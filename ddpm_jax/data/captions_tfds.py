"""Captions of data sets that TensorFlow Datasets has prepared: features of text."""

import functools

import numpy as np

from ddpm_jax.core import errors
from ddpm_jax.data import captions as captions_lib
from ddpm_jax.data import captions_tables

PREFIX = "feature:"  # of data.captions, before the name of a feature
PROGRESS_EVERY = 50_000  # records
CHUNK = 1_000  # records that are read at a time


def feature(name: str, info, how: str) -> str | None:
    """Return the feature that holds the captions, None for none.

    Args:
        name: of the data set.
        info: TFDS's description of it.
        how: "none"; "feature:NAME"; or "auto", for the first feature that is called as
            columns of captions in tables are, and is of text.

    Raises:
        Refusal: there is no such feature of text.
    """
    features = dict(info.features.items())
    of_text = [key for key, one in features.items() if _path(one) is not None]
    if how == "none":
        return None
    if how == "auto":
        return next((n for n in captions_tables.TEXT_COLUMNS if n in of_text), None)
    wanted = how.removeprefix(PREFIX)
    if wanted not in of_text:
        known = ", ".join(f"{PREFIX}{key}" for key in of_text) or "none, as there is no"
        raise errors.Refusal(
            f"data.captions={how!r}: {name} has no feature of text that is called so: "
            f"choose {known}"
        )
    return wanted


def undecoded(builder, split: str):
    """Return TFDS's records of a split whose images stay as they are on the disk."""
    import tensorflow_datasets as tfds

    images = [
        key
        for key, one in builder.info.features.items()
        if isinstance(one, tfds.features.Image)
    ]
    skipped = {key: tfds.decode.SkipDecoding() for key in images}
    return builder.as_data_source(split, decoders=skipped)


@functools.lru_cache(maxsize=2)  # of a split: both are asked for twice
def read(folder: str, split: str, wanted: str, say) -> captions_lib.Captions:
    """Return the captions of all records of a split.

    Args:
        folder: of the prepared data set.
        split: TFDS's name of it.
        wanted: the feature.
        say: called with lines of progress.

    Raises:
        Refusal: a record without caption, or a caption that is no text.
    """
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(folder)
    path = _path(builder.info.features[wanted])
    records = undecoded(builder, split)

    def texts():
        for start in range(0, len(records), CHUNK):
            if start and start % PROGRESS_EVERY == 0:
                say(f"read the captions of {start:,} of {len(records):,} images …")
            numbers = range(start, min(start + CHUNK, len(records)))
            found = records.__getitems__(list(numbers))
            for number, record in zip(numbers, found, strict=True):
                where = f"image {number} of {folder}"
                yield _texts(record[wanted], path, where)

    found = captions_lib.Captions(texts())
    missing = np.flatnonzero(found.counts == 0)
    if missing.size:
        raise errors.Refusal(
            f"{missing.size:,} of {len(found):,} images of {folder} have no caption "
            f"(image {missing[0]} of {split!r} is the first): choose another feature, "
            "or train without captions, with model.text_layers=0"
        )
    return found


def _path(one) -> tuple[str, ...] | None:
    """Return the keys that lead to the text inside of a feature; None without any."""
    import tensorflow_datasets as tfds

    if isinstance(one, tfds.features.Text):
        return ()
    if isinstance(one, tfds.features.Sequence):
        return _path(one.feature)
    if isinstance(one, tfds.features.FeaturesDict):
        held = dict(one.items())
        names = [n for n in captions_tables.TEXT_COLUMNS if n in held]
        for key in names:
            below = _path(held[key])
            if below is not None:
                return (key, *below)
    return None


def _texts(value, path, where):
    for key in path:
        value = value[key]
    texts = value if isinstance(value, list | tuple | np.ndarray) else [value]
    decoded = (
        captions_lib.decoded(text, f"the caption of {where}")
        if isinstance(text, bytes)
        else str(text)
        for text in texts
    )
    cleaned = (captions_lib.cleaned(text, where) for text in decoded)
    return tuple(text for text in cleaned if text)
