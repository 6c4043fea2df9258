"""From one picture to another, or from one sample of the run to another."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from ddpm_jax.builders import editing as build_editing
from ddpm_jax.builders import process as build_process
from ddpm_jax.builders import sampling as build_sampling
from ddpm_jax.core import errors, keys
from ddpm_jax.diffusion import interpolation, solvers
from ddpm_jax.editing import edit, labels, latents, plain, plans
from ddpm_jax.editing import ends as ends_lib
from ddpm_jax.runtime.console import say
from ddpm_jax.sampling import recipe as recipe_lib
from ddpm_jax.sampling import starts, transforms

FRAMES = 8
MIXES = {
    "linear": lambda one, other, share: (1 - share) * one + share * other,
    "spherical": interpolation.spherical,
    "preserving": lambda one, other, share: interpolation.circular(
        one, other, share * np.float32(np.pi / 2)
    ),
}


def plan(config, facts, given: plans.Given) -> plans.Plan:
    """Return what makes editing.frames pictures on the way from one to the other.

    Args:
        config: of the run; editing.* says how.
        facts: of its data.
        given: two pictures; none with editing.samples.

    Raises:
        Refusal: pictures or settings that do not fit.
    """
    check_given(config, given.names)
    method = method_of(config)
    edit.check_used(
        config,
        {
            "levels": (method == "noised", "the method noised"),
            "keep_size": (bool(given.count), "given pictures"),
        },
    )
    frames = config.editing.frames or FRAMES
    if frames < 2:
        raise errors.Refusal(
            f"editing.frames={frames}: give at least 2, the two ends among them"
        )
    shares = np.linspace(0, 1, frames, dtype=np.float32)
    way = METHODS[method](config, facts, given.values, shares)
    recipe = build_editing.recipe(
        way.config,
        facts,
        "interpolate",
        arrays=way.uses,
        resolved={"method": method, "frames": frames, "mix": way.mix},
        path=way.path,
        **given.parts,
        **way.parts,
    )
    recipe = ends_lib.applied(way.config, recipe, way.ends(recipe), way.shares)

    def compute(opened):
        return way.compute(opened, recipe, given.names)

    return plans.Plan(way.config, recipe, way.rows * frames, compute, way.rows)


def check_given(config, names: Sequence[str]) -> None:
    """Refuse other than two pictures, or samples of the run.

    Args:
        config: of the run.
        names: of the pictures.
    """
    numbers = config.editing.samples
    if names and numbers:
        raise errors.Refusal(
            f"--image={names[0]} and --samples={','.join(map(str, numbers))}: keep one"
        )
    if not numbers and len(names) != 2:
        raise errors.Refusal(
            f"--mode=interpolate and {len(names)} pictures: give two, --image=F "
            "--image=G, or two samples of the run, --samples=0,7"
        )


def method_of(config) -> str:
    """Return the method, from editing.method and from what is given."""
    editing = config.editing
    usual = "samples" if editing.samples else "encode"
    method = editing.method or usual
    known = (
        ("samples",) if editing.samples else tuple(m for m in METHODS if m != "samples")
    )
    errors.choose("editing.method", dict.fromkeys(known), method)
    return method


class Way(NamedTuple):
    """How to go from one to the other.

    Attributes:
        config: with what the method has settled.
        path: of the chain, None for the solver's own.
        mix: that was taken.
        parts: of the recipe, see `builders.editing.recipe`.
        ends: `recipe → what the network is told of the ends`.
        shares: λ of each image.
        uses: the arrays that name what it starts from.
        compute: `(opened, recipe, names) → arrays by name, latents.Encoded or None`.
        rows: of frames.
    """

    config: object
    path: tuple | None
    mix: str
    parts: Mapping[str, object]
    ends: Callable[[recipe_lib.Recipe], ends_lib.Ends]
    shares: np.ndarray
    uses: Mapping[str, np.ndarray]
    compute: object
    rows: int = 1


def mix_of(config, choices: tuple[str, ...]) -> str:
    """Return editing.mix, the first of the choices where it is not given."""
    mix = config.editing.mix or choices[0]
    errors.choose("editing.mix", dict.fromkeys(choices), mix)
    return mix


# ---- methods: config, facts, pictures, λ → how ---------------------------------------


def _encode(config, facts, values, shares):
    """Mixes of the latents, decoded without noise (Song et al. 2021, DDIM)."""
    edit.check_temperature(config, "encoded pictures")
    classes = labels.of_results(config, facts, 2)
    ends = functools.partial(ends_lib.of_pictures, classes=classes)
    mix = mix_of(config, ("spherical", "linear", "preserving"))
    config = _without_noise(latents.settled(config))
    kept = build_process.respaced(config, "sampling")
    path = latents.decoding_path(config, kept)

    def compute(opened, recipe, names):
        encoded = latents.encode(opened, recipe, values, classes)
        latents.check(config, encoded, names)
        return {starts.STATE: mixed(mix, encoded.latents, shares)}, encoded

    parts = {"start": "given"}
    return Way(config, path, mix, parts, ends, shares, {starts.STATE: values}, compute)


def _of_samples(config, facts, values, shares):
    """Mixes of x_T of two samples, or one x_T between two classes."""
    del values
    mix = mix_of(config, ("spherical", "linear", "preserving"))
    config = _without_noise(latents.settled(config, encodes=False))
    numbers = config.editing.samples
    if len(numbers) not in (1, 2) or min(numbers) < 0:
        raise errors.Refusal(
            f"editing.samples={tuple(numbers)}: give the numbers of two samples, such "
            "as 0,7, or one number and two classes in sampling.labels"
        )
    plain.check_numbers("editing.samples", numbers)
    ends = functools.partial(ends_lib.of_samples, config=config, numbers=numbers)
    numbers = (*numbers, numbers[0])[:2]

    def compute(opened, recipe, names):
        del opened, names
        state = plain.first_states(recipe, numbers)
        return {starts.STATE: mixed(mix, state, shares)}, None

    parts = {"start": "given"}
    uses = {starts.STATE: np.asarray(numbers)}
    return Way(config, None, mix, parts, ends, shares, uses, compute)


def _noised(config, facts, values, shares):
    """Mixes of the noised pictures, decoded with noise (Ho et al. 2020, DDPM)."""
    edit.check_temperature(config, "noised pictures")
    classes = labels.of_results(config, facts, 2)
    ends = functools.partial(ends_lib.of_pictures, classes=classes)
    mix = mix_of(config, ("linear", "preserving"))
    if not isinstance(build_sampling.solver(config), solvers.Memoryless):
        raise errors.Refusal(
            f"editing.method='noised' with sampling.method={config.sampling.method!r}, "
            "which keeps a memory of the chain: take ancestral or ddim"
        )
    kept = build_process.respaced(config, "sampling")
    levels = _levels(config, kept)
    whole = config.diffusion.num_steps
    shown = ", ".join(str(kept.timesteps[k] + 1) for k in levels)
    say(f"rows at t = {shown} of {whole}")
    rows = np.tile(shares, len(levels))
    arrays = {
        transforms.PICTURE: values,
        transforms.MIX: rows,
        transforms.LEVEL: np.repeat(np.asarray(levels, np.int32), len(shares)),
    }
    uses, name = dict(arrays), "mixed"
    if mix == "preserving":
        name = "mixed_preserving"
        stream = keys.key_for(config.sampling.seed, "edit/other_noise", index=[0])
        shape = values.shape[1:]
        noise = np.asarray(keys.normal_each(stream, shape))
        arrays[transforms.OTHER_NOISE] = noise
        # Of the seed alone: draws of other devices may be rounded in another way.
        uses[transforms.OTHER_NOISE] = np.asarray(config.sampling.seed)
    parts = {
        "also": (recipe_lib.part(name),),
        "shares_noise": True,
    }
    made = (config, None, mix, parts, ends, rows, uses)
    return Way(*made, lambda *_: (arrays, None), len(levels))


def _levels(config, kept) -> list[int]:
    """Return the kept steps nearest to editing.levels, without doubles.

    Raises:
        Refusal: none, or one that is no share of T.
    """
    levels = config.editing.levels
    bad = [share for share in levels if not 0 < share <= 1]
    if bad or not levels:
        raise errors.Refusal(
            f"editing.levels={tuple(levels)}: give shares of T above 0 and up to 1, "
            "such as 0.25,0.5,1"
        )
    wanted = [share * kept.original_num_steps - 1 for share in levels]
    steps = np.asarray(kept.timesteps)
    return sorted({int(np.argmin(np.abs(steps - t))) for t in wanted})


def _noise_map(config, facts, values, shares):
    """Mixes of the noise of every step of a stochastic chain; the ends are exact."""
    edit.check_temperature(config, "pictures and their noise maps")
    classes = labels.of_results(config, facts, 2)
    ends = functools.partial(ends_lib.of_pictures, classes=classes)
    mix = mix_of(config, ("spherical", "linear", "preserving"))
    kept = build_process.respaced(config, "sampling")
    latents.check_noise_maps(config, len(shares), values[0], kept)

    def compute(opened, recipe, names):
        del names
        maps = latents.noise_maps_of(opened, recipe, values, classes, 2)
        made = {
            starts.MAPPED: mixed(mix, maps[starts.MAPPED], shares),
            transforms.RESIDUAL: mixed("linear", maps[transforms.RESIDUAL], shares),
        }
        # Each step's noise on its own arc, as if it were an image.
        one, other = maps[starts.NOISE_MAPS]
        steps = [arc(mix, one, other, share) for share in shares]
        made[starts.NOISE_MAPS] = np.stack(steps)
        return made, None

    parts = {
        "start": "mapped",
        "also": (recipe_lib.part("residual"),),
    }
    names = (starts.MAPPED, starts.NOISE_MAPS, transforms.RESIDUAL)
    uses = dict.fromkeys(names, values)
    return Way(config, None, mix, parts, ends, shares, uses, compute)


METHODS = {
    "encode": _encode,
    "noised": _noised,
    "noise_map": _noise_map,
    "samples": _of_samples,
}


def _without_noise(config):
    """Refuse noise that would make neighbouring frames differ."""
    if config.sampling.eta:
        raise errors.Refusal(
            f"sampling.eta={config.sampling.eta:g} between latents: the way from one "
            "to the other is decoded without noise; leave it 0"
        )
    return config


def mixed(mix: str, states: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return the mixes [frames, ...] of two states [2, ...].

    Args:
        mix: a key of `MIXES`.
        states: float32.
        shares: λ [frames].
    """
    ways = [arc(mix, states[:1], states[1:], share) for share in shares]
    return np.concatenate(ways)


def arc(mix: str, one: np.ndarray, other: np.ndarray, share: float) -> np.ndarray:
    """Return the mixes of pairs of states, [n, ...] each; the ends to the bit.

    Args:
        mix: a key of `MIXES`.
        one, other: float32.
        share: λ; 0 gives `one`, 1 gives `other`.
    """
    if share in (0, 1):
        return other if share else one
    shares = np.full(len(one), share, np.float32)
    if mix == "linear":
        shares = shares.reshape(-1, *[1] * (one.ndim - 1))
    return np.asarray(MIXES[mix](jnp.asarray(one), jnp.asarray(other), shares))
