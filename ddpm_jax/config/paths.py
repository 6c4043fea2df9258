"""The fields of a config that are paths: the same place from every directory."""

import os

from ddpm_jax.runtime import home

FIELDS = (
    "data.path",
    "data.labels",
    "train.init_from",
    "evaluation.samples",
    "evaluation.reference",
    "evaluation.inception",
)
SEVERAL = ("sampling.low_res",)  # each entry is a path
LABELS = "data.labels"
# What data.labels says that is no path; labels.csv lies in the root of the data.
WORDS = ("auto", "folders", "prefix", "none", "labels.csv")


def _is_path(field, value):
    # An address, such as gs://…, is nothing below this directory.
    is_word = field == LABELS and value in WORDS
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

    Which table gives the labels is no difference: what stands in it is compared with
    the data.
    """
    if not _is_path(field, value):
        return value
    return "a table" if field == LABELS else os.path.abspath(home.expanded(value))
