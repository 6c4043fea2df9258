"""Between two ends: what the network is told of each, in a recipe of the frames.

The ends are two classes, two texts, or one of either for all frames. What the network
says is (1−λ) of what it says of the one and λ of what it says of the other.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from ddpm_jax.core import errors
from ddpm_jax.editing.inpainting import OF_CLASSES
from ddpm_jax.sampling import branches
from ddpm_jax.sampling import recipe as recipe_lib

Ends = Mapping[str, tuple]  # key of a condition → (of the one end, of the other)


def of_pictures(recipe: recipe_lib.Recipe, classes) -> Ends:
    """Return what is told of the ends between two pictures.

    Args:
        recipe: with the condition of plain sampling.
        classes: of the two results, or None for a run without.

    Raises:
        Refusal: more texts than ends.
    """
    found = {}
    for key, values in recipe.condition:
        if key in OF_CLASSES:
            found[key] = tuple(classes)
            continue
        if len(values) > 2:
            raise errors.Refusal(
                f"{len(values)} prompts between two pictures: give one for all frames, "
                "or two, one for each end"
            )
        found[key] = (values[0], values[-1])
    return found


def of_samples(recipe: recipe_lib.Recipe, config, numbers: Sequence[int]) -> Ends:
    """Return what is told of the ends between two samples.

    Each has the class and the text that plain sampling gives it. One sample is between
    the two classes or texts that are asked for.

    Args:
        recipe: with the condition of plain sampling.
        config: of the run.
        numbers: of the samples, one or two.

    Raises:
        Refusal: one sample, and nothing that differs.
    """
    if recipe.drawn:
        raise errors.Refusal(
            "sampling.labels=random with --samples: name one class, or two"
        )
    is_one = len(set(numbers)) == 1
    turns = [i // recipe.repeats for i in (numbers[0], numbers[-1])]
    found = {}
    for key, values in recipe.condition:
        is_class = key in OF_CLASSES
        asked = config.sampling.labels if is_class else config.sampling.prompts
        found[key] = tuple(values[turn % len(values)] for turn in turns)
        if is_one and asked:
            found[key] = (values[0], values[-1])
    if is_one:
        _check_one(config, recipe, found, numbers)
    return found


def _check_one(config, recipe, ends, numbers) -> None:
    """Refuse one sample between other than two ends."""
    for key, values in recipe.condition:
        is_class = key in OF_CLASSES
        asked = config.sampling.labels if is_class else config.sampling.prompts
        if asked and len(values) > 2:
            field, noun = ("labels", "classes") if is_class else ("prompts", "texts")
            raise errors.Refusal(
                f"sampling.{field} names {len(values)} {noun}, and one sample is "
                "between two: give two"
            )
    if not _differing(ends):
        named = len(config.sampling.labels)
        hint = f"; sampling.labels names {named} classes" if named else ""
        raise errors.Refusal(
            f"editing.samples={tuple(numbers)}: both ends are one sample{hint}; give "
            "two numbers, or one number and two classes in sampling.labels, such as "
            "3,5, or two prompts"
        )


def applied(
    config, recipe: recipe_lib.Recipe, ends: Ends, shares: Sequence[float]
) -> recipe_lib.Recipe:
    """Return the recipe of images between two ends.

    Args:
        config: of the run.
        recipe: of the images, with the condition of plain sampling.
        ends: of `of_pictures` or `of_samples`.
        shares: λ of each image.

    Raises:
        Refusal: another run that guides, which is told of one end alone.
    """
    differing = _differing(ends)
    guides = [n for n in ("classifier", "weaker") if config.sampling[n]]
    if differing and guides:
        noun, nouns = ("class", "classes")
        if differing[0] not in OF_CLASSES:
            noun, nouns = ("text", "texts")
        raise errors.Refusal(
            f"two {nouns} and sampling.{guides[0]}: between them it is told none; give "
            f"one {noun}, or leave sampling.{guides[0]} empty"
        )
    made = mixed(recipe, ends, shares, differing)
    return dataclasses.replace(made, repeats=1, drawn=())


def mixed(
    recipe: recipe_lib.Recipe,
    ends: Ends,
    shares: Sequence[float],
    keys: Sequence[str],
) -> recipe_lib.Recipe:
    """Return the recipe with (1−λ) of the one end and λ of the other in its condition.

    Args:
        recipe: of the images.
        ends: of the two ends; other keys of the condition stay as they are.
        shares: λ of each image.
        keys: those of the ends that differ.
    """
    condition = [(key, values) for key, values in recipe.condition if key not in ends]
    condition += [(key, (one,)) for key, (one, _) in ends.items()]
    if keys:
        condition += [(branches.other_key(k), (ends[k][1],)) for k in keys]
        condition.append((branches.SHARE, tuple(map(float, shares))))
    return dataclasses.replace(recipe, condition=tuple(condition))


def _differing(ends) -> list[str]:
    return [key for key, (one, other) in ends.items() if one != other]
