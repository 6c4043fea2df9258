"""Variations of a picture: noise is added, up to a strength, and taken away again."""

import functools
import zlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from ddpm_jax.builders import editing as build_editing
from ddpm_jax.builders import process as build_process
from ddpm_jax.builders import sampling as build_sampling
from ddpm_jax.core import errors
from ddpm_jax.data import images as images_lib
from ddpm_jax.diffusion import process
from ddpm_jax.editing import edit, labels, latents, plain, plans
from ddpm_jax.runtime.console import say
from ddpm_jax.sampling import recipe as recipe_lib
from ddpm_jax.sampling import starts, transforms

LEAST = 0.999  # of a step of noise; a strength that was typed is rounded


def plan(config, facts, given: plans.Given) -> plans.Plan:
    """Return what makes editing.variants variations of each picture, or of a sample.

    Args:
        config: of the run; editing.* says how.
        facts: of its data.
        given: the pictures; none with editing.from_sample.

    Raises:
        Refusal: settings that do not fit.
    """
    text = config.editing.from_sample
    if text and given.count:
        raise errors.Refusal(
            f"{given.names[0]} and editing.from_sample={text}: variations are those of "
            "a picture or of a sample, keep one"
        )
    if text:
        return branch(config, facts)
    if not given.count:
        raise errors.Refusal(
            "nothing to vary: give a picture, --image=FILE, or --from-sample=i@t for "
            "variations of a sample of the run"
        )
    method, level = config.editing.method or "noise", noise_steps(config)
    errors.choose("editing.method", METHODS, method)
    edit.check_used(
        config,
        {"image_labels": (method != "noise", "the method encode or noise_map")},
    )
    way = METHODS[method](config, Varied(facts, given.values, level))
    variants = way.config.editing.variants
    recipe = build_editing.recipe(
        way.config,
        facts,
        "vary",
        arrays={name: given.values for name in way.uses},
        resolved={"method": method, "variants": variants},
        path=way.path,
        kept=way.kept,
        repeats=variants,
        **given.parts,
        **way.parts,
    )

    def compute(opened):
        return way.compute(opened, recipe, given.names)

    results = None if level else given.stored.repeat(variants, axis=0)
    wanted = variants * given.count
    return plans.Plan(way.config, recipe, wanted, compute, given.count, results)


class Varied(NamedTuple):
    """What is varied.

    Attributes:
        facts: of the run's data.
        values: of the pictures, float32 [n, H, W, C].
        level: steps of noise that are added, 0 … T.
    """

    facts: object
    values: np.ndarray
    level: int


class Way(NamedTuple):
    """How it is varied.

    Attributes:
        config: with what the method has settled.
        kept: the steps that are run, None for those of config.sampling.
        path: of the chain, None for the solver's own.
        parts: of the recipe, see `builders.editing.recipe`.
        uses: names of the arrays that it starts from.
        compute: `(opened, recipe, names) → arrays by name, latents.Encoded or None`.
    """

    config: object
    kept: process.Schedule | None
    path: tuple | None
    parts: Mapping[str, object]
    uses: tuple[str, ...]
    compute: Callable


def noise_steps(config) -> int:
    """Return the steps of noise that editing.strength stands for.

    Raises:
        Refusal: a strength outside 0 … 1, or of less than one step.
    """
    strength, whole = config.editing.strength, config.diffusion.num_steps
    if not 0 <= strength <= 1:
        raise errors.Refusal(
            f"editing.strength={strength:g}: choose 0 (the picture itself) … 1 (a new "
            "one)"
        )
    if 0 < strength * whole < LEAST:
        raise errors.Refusal(
            f"editing.strength={strength:g} is less than one of {whole} steps: choose "
            f"0, or {1 / whole:g} … 1"
        )
    return round(strength * whole)


def steps_from(config, level: int):
    """Return the config with the steps that are run, and these; and say from where.

    Raises:
        Refusal: more steps than there are below.
    """
    whole = config.diffusion.num_steps
    if level == whole:
        kept = build_process.respaced(config, "sampling")
    else:
        kept = build_process.respaced_below(config, level - 1)
        config = config.copy_and_resolve_references()
        config.sampling.steps = kept.num_steps
    say(f"from t = {level} of {whole} in {kept.num_steps} steps")
    return config, kept


# ---- methods: config and what is given → how -----------------------------------------


def _noise(config, given):
    """Noise is added to the picture at once (SDEdit, Meng et al. 2022)."""
    if given.level == 0:
        say("strength 0: the results are the pictures")
        return Way(config, None, None, {}, (), lambda *_: ({}, None))
    labels.of_results(config, given.facts, len(given.values))
    config, kept = steps_from(config, given.level)
    if given.level == config.diffusion.num_steps:
        say("strength 1: chains start from noise alone, and no picture is used")
        return Way(config, kept, None, {}, (), lambda *_: ({}, None))
    arrays = {transforms.PICTURE: given.values}
    parts = {"start": "noised"}
    return Way(config, kept, None, parts, tuple(arrays), lambda *_: (arrays, None))


def _encode(config, given):
    """The picture is encoded up to t, and decoded with noise or as another class."""
    if given.level == 0:
        return _noise(config, given)
    count = len(given.values)
    edit.check_temperature(config, "an encoded picture")
    made_of = labels.of_pictures(config, given.facts, count)
    wanted = labels.of_results(config, given.facts, count)
    config = latents.settled(config)
    if not config.sampling.eta:
        if made_of == wanted:
            raise errors.Refusal(
                "sampling.eta=0 and no other class: the results would be the pictures; "
                "give sampling.eta above 0, up to 1, or the pictures' own class in "
                "--image-labels and another one in --config.sampling.labels"
            )
        say("sampling.eta=0 draws nothing: one variant of each picture")
        config.editing.variants = 1
    config, kept = steps_from(config, given.level)
    path = latents.decoding_path(config, kept)

    def compute(opened, recipe, names):
        encoded = latents.encode(opened, recipe, given.values, made_of)
        latents.check(config, encoded, names)
        return {starts.STATE: encoded.latents}, encoded

    return Way(config, kept, path, {"start": "given"}, (starts.STATE,), compute)


def _noise_map(config, given):
    """The noise of every step is found that returns the picture, and used again."""
    if given.level == 0:
        return _noise(config, given)
    count = len(given.values)
    edit.check_temperature(config, "a picture and its noise maps")
    made_of = labels.of_pictures(config, given.facts, count)
    if made_of == labels.of_results(config, given.facts, count):
        say("no other class is asked for: the results are the pictures, to rounding")
    config, kept = steps_from(config, given.level)
    latents.check_noise_maps(config, config.editing.variants, given.values, kept)
    names = (starts.MAPPED, starts.NOISE_MAPS, transforms.RESIDUAL)
    parts = {"start": "mapped", "also": (recipe_lib.part("residual"),)}
    compute = functools.partial(_maps, given, made_of)
    return Way(config, kept, None, parts, names, compute)


def _maps(given, made_of, opened, recipe, names):
    del names
    maps = latents.noise_maps_of(
        opened, recipe, given.values, made_of, recipe.repeats * len(given.values)
    )
    return maps, None


METHODS = {"noise": _noise, "encode": _encode, "noise_map": _noise_map}


# ---- variations of a sample ----------------------------------------------------------


def branch(config, facts) -> plans.Plan:
    """Return what makes variants of a sample that share its chain from x_T down to t.

    Args:
        config: of the run; editing.from_sample is "i@t".
        facts: of its data.

    Raises:
        Refusal: a chain without noise, or a t where it does not come by.
    """
    sampling, text = config.sampling, config.editing.from_sample
    if config.editing.method:
        raise errors.Refusal(
            f"--method={config.editing.method} and editing.from_sample={text}: keep one"
        )
    if sampling.method != "ancestral" and not sampling.eta:
        raise errors.Refusal(
            f"sampling.method={sampling.method!r} without noise has one image for each "
            "state: take ancestral, or ddim with sampling.eta above 0"
        )
    with_pictures = (False, "a given picture")
    names = ("strength", "image_labels", "keep_size")
    edit.check_used(config, dict.fromkeys(names, with_pictures))
    number, t = plain.parsed(text)
    usual = build_sampling.recipe(config, facts)
    before, after = plain.divided(usual, t)
    say(
        f"sample {number} down to t = {t} of {config.diffusion.num_steps} in "
        f"{len(before)} steps, and {len(after)} steps from there"
    )
    own = usual.requested_condition(np.asarray([number]))
    recipe = build_editing.recipe(
        config,
        facts,
        "vary",
        arrays={starts.STATE: np.asarray([number, t])},
        resolved={"method": "branch"},
        path=after,
        start="given",
        condition=tuple((key, (_frozen(own[key][0]),)) for key in own),
        drawn=(),
        repeats=1,
        # Other draws than those that led there.
        seed=zlib.crc32(f"{sampling.seed} {text}".encode()),
    )
    states = []

    def state(opened):
        if not states:
            states.append(plain.state_at(opened, usual, number, before))
        return states[0]

    return plans.Plan(
        config,
        recipe,
        config.editing.variants,
        lambda opened: ({starts.STATE: state(opened)}, None),
        shown=lambda opened: images_lib.to_stored(state(opened), facts.levels),
    )


def _frozen(value):
    """Return a value of a condition as recipes hold it."""
    return tuple(value.tolist()) if value.ndim else value.item()
