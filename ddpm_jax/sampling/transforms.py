"""What a recipe changes a chain by, besides solver, hooks and guidance by mixing.

A transform is a function here, or in a file of its own, and an entry of `TRANSFORMS`.
It belongs to one of the three places of `diffusion.samplers.sample`:

    "denoiser"      denoise → denoise, which may be differentiated
    "prediction"    (x_t, t, prediction) → prediction, such as a classifier's gradient
    "step"          (x, t_next, noise) → x, on x_T and after every step
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from ddpm_jax.diffusion import process

DENOISER, PREDICTION, STEP = PLACES = ("denoiser", "prediction", "step")


class Tools(NamedTuple):
    """What a transform is made with, inside the compiled program.

    Attributes:
        tables: the (respaced) process; its arrays are longer than T′.
        index: int32 [B], numbers of the images.
        condition: of these images, by key.
        arrays: what the caller gave by name, such as an image and its mask.
        networks: by name, `(x_t, t_seen, condition) → output` with their weights.
    """

    tables: process.Tables
    index: jax.Array
    condition: Mapping[str, jax.Array]
    arrays: Mapping[str, Any]
    networks: Mapping[str, Callable]


class Transform(NamedTuple):
    """An entry of `TRANSFORMS`.

    Attributes:
        place: one of `PLACES`.
        make: `(tools, **options) → callable` of that place; options are the numbers of
            the recipe's part, traced.
        form: of a prediction transform, "mean" or "score": what the solver must read;
            "" for both.
    """

    place: str
    make: Callable
    form: str = ""


TRANSFORMS: dict[str, Transform] = {}


def made(names: tuple[str, ...], options, tools: Tools) -> dict[str, list[Callable]]:
    """Return the transforms of each place, in the order of the recipe.

    Args:
        names: keys of `TRANSFORMS`.
        options: the numbers of each, by name.
        tools: what they are made with.
    """
    found = {place: [] for place in PLACES}
    for name, numbers in zip(names, options, strict=True):
        transform = TRANSFORMS[name]
        found[transform.place].append(transform.make(tools, **numbers))
    return found
