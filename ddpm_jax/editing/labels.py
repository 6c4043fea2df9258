"""Classes of the pictures that are given, for runs that make pictures of a class."""

from collections.abc import Sequence

from ddpm_jax.builders import class_labels, prompts
from ddpm_jax.builders import guidance as build_guidance
from ddpm_jax.builders import sampling as build_sampling
from ddpm_jax.core import errors

MANY = 10  # classes that a refusal names


def of_results(config, facts, count: int) -> tuple[int, ...] | None:
    """Return the class of what is made from each of `count` pictures.

    Returns:
        As many; None where the run has no classes, or where they do not matter.

    Raises:
        Refusal: a run that needs a class and was given none, several that do not fit,
            or settings of other numbers of images.
    """
    prompts.check_given(config)
    asked = build_sampling.classes(config, facts)
    if config.sampling.per_class:
        raise errors.Refusal(
            f"sampling.per_class={config.sampling.per_class} with given pictures: give "
            "sampling.labels, one class or one for each picture, and editing.variants"
        )
    if asked is None:
        return None
    if not config.sampling.labels:
        if build_guidance.leaves_classes_out(config.sampling):
            return (0,) * count  # the network is not told
        raise needed(config, asked.names)
    if asked.are_drawn:
        raise errors.Refusal(
            "sampling.labels=random with given pictures: name one class, or one for "
            "each picture"
        )
    return _fitting("sampling.labels", asked.labels, count)


def of_pictures(config, facts, count: int) -> tuple[int, ...] | None:
    """Return the class that each of `count` given pictures is of.

    It is that of editing.image_labels, else that of the results.
    """
    results = of_results(config, facts, count)
    given = config.editing.image_labels
    if results is None or not given:
        if given:
            raise errors.Refusal(
                f"editing.image_labels={given} on a run without classes: leave it out"
            )
        return results
    try:
        found = class_labels.indices(given, facts.class_names)
    except errors.Refusal as refusal:
        message = str(refusal).replace("sampling.labels", "editing.image_labels")
        raise errors.Refusal(message) from refusal
    return _fitting("editing.image_labels", found, count)


def needed(config, names: Sequence[str]) -> errors.Refusal:
    """Return the refusal of a picture without a class."""
    shown = ", ".join(names[:MANY])
    if len(names) > MANY:
        shown += f", … ({len(names)})"
    found = ""
    if config.model.class_conditional:
        found = ", or likeliest to have it found by the network"
    return errors.Refusal(
        "this run makes pictures of a class, and sampling.labels is empty: give "
        f"--labels=…, one for all or one for each{found}; there are {shown}"
    )


def _fitting(field, labels, count):
    if len(labels) not in (1, count):
        raise errors.Refusal(
            f"{field}: {len(labels)} classes for {count} pictures: give one for all, "
            "or one for each"
        )
    return tuple(labels) * (count if len(labels) == 1 else 1)
