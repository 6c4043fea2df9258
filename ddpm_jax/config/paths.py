"""The fields of a config that are paths: the same place from every directory."""

import os

from ddpm_jax.runtime import home

FIELDS = (
    "data.path",
    "data.labels",
    "data.captions",
    "train.init_from",
    "evaluation.samples",
    "evaluation.reference",
    "evaluation.inception",
)
SEVERAL = ("sampling.low_res",)  # each entry is a path
# What these fields say that is no path; labels.csv lies in the root of the data.
WORDS = {
    "data.labels": ("auto", "folders", "prefix", "none", "labels.csv"),
    "data.captions": ("auto", "none", "files", "classes"),
}
# What is in a value of data.captions that is a sentence, or names a feature of TFDS.
NO_PATH = ("{class}", "feature:")


def _is_path(field, value):
    # An address, such as gs://…, is nothing below this directory.
    is_word = value in WORDS.get(field, ())
    if field == "data.captions":
        is_word = is_word or any(mark in value for mark in NO_PATH)
    return field in FIELDS and bool(value) and "://" not in value and not is_word


def expand(config) -> None:
    """Put the home folder for "~" into paths, in place.

    Raises:
        Refusal: that folder is not known.
    """
    _change(config, lambda value: str(home.expanded(value)))


def absolute(config):
    """Return a copy to be stored, whose paths do not depend on this directory."""
    config = config.copy_and_resolve_references()
    _change(config, lambda value: os.path.abspath(home.expanded(value)))
    return config


def _change(config, change):
    for path in FIELDS:
        section, name = path.split(".")
        value = config[section][name]
        if _is_path(path, value):
            config[section][name] = change(value)
    for path in SEVERAL:
        section, name = path.split(".")
        config[section][name] = tuple(map(change, config[section][name]))


def meaning(field: str, value):
    """Return what a value says, for a comparison: relative or absolute is the same.

    Which table gives the labels or captions is no difference: what stands in it is
    compared with the data.
    """
    if not _is_path(field, value):
        return value
    return "a table" if field in WORDS else os.path.abspath(home.expanded(value))
