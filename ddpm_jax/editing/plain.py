"""The run's own samples on their way: x_T, and the state at a timestep."""

import dataclasses
import functools
import re
from collections.abc import Sequence

import jax
import numpy as np

from ddpm_jax.builders import sampling as build_sampling
from ddpm_jax.core import errors
from ddpm_jax.diffusion import paths
from ddpm_jax.editing import edit
from ddpm_jax.sampling import recipe as recipe_lib
from ddpm_jax.sampling import sampler

NUMBERS = 2**31  # of samples, which int32 counts
AT = re.compile(r"(\d+)@(\d+)")


def first_states(recipe: recipe_lib.Recipe, index) -> np.ndarray:
    """Return x_T of the samples with these numbers, float32 [n, ...].

    Args:
        recipe: of the samples.
        index: numbers [n].
    """
    inputs = recipe.inputs()
    drawn_by = {"seed": inputs["seed"], "settings": inputs["settings"]}
    return np.asarray(_drawn(drawn_by, np.asarray(index, np.int32), recipe.shape))


@functools.partial(jax.jit, static_argnames="shape")
def _drawn(inputs, index, shape):
    return sampler.first_state(inputs, index, shape)


def check_numbers(field: str, numbers: Sequence[int]) -> None:
    """Refuse numbers that no sample has.

    Raises:
        Refusal: names the field and the last number.
    """
    bad = [number for number in numbers if not 0 <= number < NUMBERS]
    if bad:
        raise errors.Refusal(
            f"{field}: there is no sample {bad[0]}: give 0 … {NUMBERS - 1}"
        )


def parsed(text: str) -> tuple[int, int]:
    """Return number and timestep of "i@t".

    Raises:
        Refusal: another form.
    """
    found = AT.fullmatch(text)
    if found is None:
        raise errors.Refusal(
            f"editing.from_sample={text!r}: give the number of a sample and the "
            "timestep where it is left, such as 3@120"
        )
    check_numbers("editing.from_sample", [int(found[1])])
    return int(found[1]), int(found[2])


def divided(recipe: recipe_lib.Recipe, t: int) -> tuple[tuple, tuple]:
    """Return the path of samples until it reaches an original timestep, and the rest.

    Args:
        recipe: of the samples.
        t: counted from 1, so that T is x_T.

    Raises:
        Refusal: a timestep where the chain does not come by.
    """
    path, kept = tuple(recipe.whole_path), recipe.schedule.timesteps
    there = {
        kept[at] + 1: position
        for position, (at, _, kind, *_) in enumerate(path)
        if kind != paths.CORRECT
    }
    if t not in there:
        near = sorted(there, key=lambda other: (abs(other - t), other))[:2]
        raise errors.Refusal(
            f"editing.from_sample=…@{t}: a chain of {recipe.schedule.num_steps} steps "
            f"does not come by t = {t}; the nearest are "
            f"{' and '.join(map(str, sorted(near)))}, of {min(there)} … {max(there)}"
        )
    return path[: there[t]], path[there[t] :]


def state_at(opened: edit.Opened, recipe: recipe_lib.Recipe, index: int, path):
    """Return the state [1, ...] of a sample after a path from x_T.

    Args:
        opened: the run.
        recipe: of the samples.
        index: number of the sample.
        path: its first part, see `divided`; empty for x_T itself.
    """
    if not path:
        return first_states(recipe, [index])
    made_by = build_sampling.make_sampler(
        dataclasses.replace(recipe, path=path),
        opened.config,
        opened.trained.network,
        opened.trained.mesh,
        weights=opened.weights,
    )
    size = sampler.rounded_batch(1, made_by.mesh)
    made = made_by.make(
        opened.weights.params,
        start=index,
        stop=index + 1,
        batch_size=size,
        on_step=opened.on_step,
    )
    return made.images
