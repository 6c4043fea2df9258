"""Names of classes as captions, in a sentence: "a photo of a cat"."""

import dataclasses

from ddpm_jax.core import errors
from ddpm_jax.data.dataset import Dataset

HOLE = "{class}"  # of a template, where the name of the class stands
WORD = "classes"  # stands for the usual template
USUAL = f"a photo of a {HOLE}"


def is_template(how: str) -> bool:
    """Return whether data.captions asks for captions of names of classes."""
    return how == WORD or HOLE in how


def captioned(dataset: Dataset, how: str) -> Dataset:
    """Return a data set whose captions are the names of its classes.

    Args:
        dataset: with classes.
        how: the template, or "classes" for the usual one.

    Raises:
        Refusal: there are no classes.
    """
    if dataset.read_labels is None or not dataset.class_names:
        raise errors.Refusal(
            f"data.captions={how!r}: the images of {dataset.name!r} have no classes: "
            "choose data.labels so that they have, or captions from files"
        )
    template = USUAL if how == WORD else how
    # "black_cat" is one word to a tokenizer, and "black cat" are two that it may know.
    texts = [
        " ".join(template.replace(HOLE, name.replace("_", " ")).split())
        for name in dataset.class_names
    ]
    return dataclasses.replace(
        dataset,
        read_captions=lambda indices, draws: [
            texts[label] for label in dataset.read_labels(indices).tolist()
        ],
        all_captions=lambda: texts,
    )
