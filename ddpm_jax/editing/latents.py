"""Pictures as latents, from which a chain without noise returns them.

Encoded and decoded is with one solver and without clipping: clipping on the way cannot
be undone. Decoding ends at t = 0, where encoding began.
"""

import dataclasses
import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ddpm_jax.builders import guidance as build_guidance
from ddpm_jax.builders import sampling as build_sampling
from ddpm_jax.core import errors
from ddpm_jax.diffusion import inversion, solvers
from ddpm_jax.editing import edit
from ddpm_jax.runtime import distributed, files
from ddpm_jax.runtime.console import say
from ddpm_jax.sampling import (
    branches,
    generation,
    noise_maps,
    sampler,
    starts,
    transforms,
)
from ddpm_jax.sampling import recipe as recipe_lib

PEAK = 2.0  # of values in [−1, 1]
USUAL = (0.9, 1.1)  # deviations of latents that a network takes for noise
MOST_MAPS = 2**33  # bytes of noise maps
FEW = 3  # names in a warning
FILE = "encoding.json"  # beside the results


class Encoded(NamedTuple):
    """Latents of n pictures.

    Attributes:
        latents: float32 [n, ...]; None where they are only told of.
        psnr: of each picture, encoded and decoded, in dB with peak 2.
        mean, deviation: of the noise that each latent is taken for.
    """

    latents: np.ndarray | None
    psnr: Sequence[float]
    mean: Sequence[float]
    deviation: Sequence[float]


def settled(config, *, encodes: bool = True):
    """Return the config with a solver without noise, and say what was changed.

    Args:
        config: of the run.
        encodes: whether pictures are encoded, so that clipping is left out too.

    Raises:
        Refusal: a method that has no deterministic form, or guidance while encoding.
    """
    config = config.copy_and_resolve_references()
    sampling = config.sampling
    if sampling.method == "ancestral":
        say("ancestral steps are random: ddim takes their place")
        sampling.method = "ddim"
    known = solvers.ENCODER_OF if encodes else solvers.SOLVERS
    if sampling.method not in known:
        raise errors.Refusal(
            f"sampling.method={sampling.method!r} does not encode pictures: choose one "
            f"of {', '.join(solvers.ENCODER_OF)}"
        )
    if encodes:
        sampling.clip, sampling.dynamic_threshold = False, 0.0
        _check_unguided(config)
    return config


def _check_unguided(config) -> None:
    """Refuse guidance while encoding, which no chain undoes."""
    sampling = config.sampling
    scale = build_guidance.guidance_scale(sampling)
    active = [f"guidance_scale={scale:g}"] if scale not in (0, 1) else []
    active += [
        f"{name}={sampling[name]}"
        for name in ("classifier", "weaker")
        if sampling[name]
    ]
    if active and not config.editing.force:
        raise errors.Refusal(
            f"sampling.{active[0]} while encoding: a guided chain does not return the "
            "picture; sample with guidance_scale 1 (or 0, unconditional), or go on "
            "all the same with --force on a command line"
        )


# ---- encoding ------------------------------------------------------------------------


def decoding_path(config, kept):
    """Return the path from the latent to the picture, to t = 0.

    Raises:
        Refusal: too few steps.
    """
    with errors.about("sampling.steps"):
        return inversion.decoding_path(kept.num_steps, build_sampling.solver(config))


def encode(
    opened: edit.Opened, recipe: recipe_lib.Recipe, pictures: np.ndarray, labels
) -> Encoded:
    """Return the latents of pictures, and how well they decode; both are made here.

    Args:
        opened: the run, with a `settled` config.
        recipe: that decodes; it names the state of its start.
        pictures: float32 [n, ...].
        labels: of each picture, or None.
    """
    name = solvers.ENCODER_OF[recipe.solver.name]
    count = len(pictures)
    alike = {
        "repeats": 1,
        "condition": _condition_of_pictures(recipe, labels),
        "drawn": (),
        "start": "given",
        "shares_noise": False,
    }
    up = recipe_lib.part(name)
    flags = {t: more for t, _, _, *more in recipe.whole_path}
    path = recipe_lib.made(recipe_lib.solver_table(), up).path(
        recipe.schedule.num_steps
    )
    path = tuple((t, n, kind, *flags.get(t, ())) for t, n, kind in path)
    latents = _made(
        opened,
        dataclasses.replace(recipe, solver=up, path=path, **alike),
        pictures,
        count,
    )
    down = recipe.solver
    if "eta" in dict(down.options):
        down = recipe_lib.part(down.name, eta=0.0)
    back = _made(
        opened, dataclasses.replace(recipe, solver=down, **alike), latents, count
    )
    errors_of = np.mean((back - pictures).reshape(count, -1).astype(float) ** 2, 1)
    psnr = 10 * np.log10(PEAK**2 / np.maximum(errors_of, 1e-20))
    noise = _noise_in(recipe.schedule, latents, pictures).reshape(count, -1)
    return Encoded(
        latents, psnr.tolist(), noise.mean(1).tolist(), noise.std(1).tolist()
    )


def _condition_of_pictures(recipe, labels):
    """Return the condition of given pictures: each is of one class, under one text.

    Two pictures have the texts of the two ends; what lies between belongs to results
    alone.
    """
    of_classes = ("label", transforms.CLASS)
    classes = [(key, labels) for key in recipe.condition_keys if key in of_classes]
    between = {branches.SHARE, *map(branches.other_key, recipe.condition_keys)}
    given = dict(recipe.condition)
    rest = [
        (key, (*values, *given.get(branches.other_key(key), ())))
        for key, values in recipe.condition
        if key not in {*of_classes, *between}
    ]
    return (*classes, *rest)


def _noise_in(schedule, latents, pictures):
    """Return what of a latent is not the picture itself; at T−1, all of it."""
    if schedule.timesteps[-1] == schedule.original_num_steps - 1:
        return latents
    signal = schedule.alpha_bar[-1]
    return (latents - np.sqrt(signal) * pictures) / np.sqrt(1 - signal)


def _made(opened, recipe, state, count):
    """Return the end of the chains that start at given states, as floats."""
    made_by = build_sampling.make_sampler(
        recipe,
        opened.config,
        opened.trained.network,
        opened.trained.mesh,
        weights=opened.weights,
        arrays={starts.STATE: np.asarray(state, np.float32)},
    )
    size = min(opened.config.sampling.batch_size, count)
    parts = generation.batches(
        made_by,
        opened.weights.params,
        start=0,
        stop=count,
        batch_size=sampler.rounded_batch(size, made_by.mesh),
        on_step=opened.on_step,
    )
    return np.concatenate([made.images for _, made in parts])


# ---- noise maps ----------------------------------------------------------------------


def check_noise_maps(config, repeats: int, values: np.ndarray, kept) -> None:
    """Refuse noise maps that a chain does not have, or that are too large.

    Args:
        config: of the run.
        repeats: maps of each picture.
        values: of the pictures, float32 [n, ...].
        kept: the process of the chain.

    Raises:
        Refusal: a chain without noise, another run that guides, or many GiB.
    """
    sampling = config.sampling
    if sampling.method != "ancestral" and not sampling.eta:
        raise errors.Refusal(
            f"sampling.method={sampling.method!r} without noise has no noise maps: "
            "take ancestral, or ddim with sampling.eta above 0"
        )
    if sampling.classifier or sampling.weaker:
        raise errors.Refusal(
            "editing.method='noise_map' with another run that guides: leave "
            "sampling.classifier and sampling.weaker empty, or take another method"
        )
    size = repeats * values.nbytes * kept.num_steps
    if size > MOST_MAPS:
        raise errors.Refusal(
            f"noise maps of {size / 2**30:.1f} GiB: take fewer sampling.steps, "
            f"pictures or variants, for at most {MOST_MAPS / 2**30:.0f}"
        )


def noise_maps_of(
    opened: edit.Opened, recipe: recipe_lib.Recipe, pictures, labels, count: int
):
    """Return the noise maps of pictures by name, [count, ...], see `noise_maps`.

    Args:
        opened: the run.
        recipe: that decodes.
        pictures: float32 [n, ...], which take turns after recipe.repeats images.
        labels: of each picture, or None.
        count: of maps.
    """
    condition = _condition_of_pictures(recipe, labels)
    return noise_maps.of_pictures(
        dataclasses.replace(recipe, condition=condition, transforms=()),
        opened.trained.network,
        opened.trained.mesh,
        opened.weights.params,
        pictures,
        count,
        batch_size=opened.config.sampling.batch_size,
    )


# ---- what came of it -----------------------------------------------------------------


def check(config, encoded: Encoded, names: Sequence[str]) -> None:
    """Say how well pictures were encoded, and refuse where it was not well enough.

    Args:
        config: of the run.
        encoded: the latents.
        names: of the pictures' files.

    Raises:
        Refusal: a PSNR below editing.min_psnr, unless editing.force.
    """
    tell(encoded, names)
    least = config.editing.min_psnr
    worst = int(np.argmin(encoded.psnr))
    if encoded.psnr[worst] >= least or config.editing.force:
        return
    raise errors.Refusal(
        f"{names[worst]}, encoded and decoded, comes back with "
        f"{encoded.psnr[worst]:.1f} dB, and editing.min_psnr is {least:g}: the result "
        "would not show it; take more sampling.steps, the method heun or dpmpp_2m, or "
        "the picture's true class, or go on all the same with --force on a command "
        "line"
    )


def tell(encoded: Encoded, names: Sequence[str]) -> None:
    """Say how well pictures were encoded, in a line each, and which are unusual."""
    rows = zip(names, encoded.psnr, encoded.mean, encoded.deviation, strict=True)
    for name, psnr, mean, deviation in rows:
        say(
            f"{name}: encoded and decoded with {psnr:.1f} dB; its latent has mean "
            f"{mean:.2f} and deviation {deviation:.2f} (0 and 1 are noise)"
        )
    pairs = zip(names, encoded.deviation, strict=True)
    odd = [name for name, found in pairs if not USUAL[0] <= found <= USUAL[1]]
    if odd:
        more = f" and {len(odd) - FEW} more" if len(odd) > FEW else ""
        say(
            f"warning: latents of {', '.join(odd[:FEW])}{more} have a deviation "
            f"outside {USUAL[0]} … {USUAL[1]}: the network was trained with 1, and "
            "what is made from a mix of them may be pale or rough"
        )


def write(store, encoded: Encoded | None, names: Sequence[str]) -> None:
    """Keep what was said of the encoding beside the results, or say it again.

    Args:
        store: of the results.
        encoded: None where all was there and nothing has been encoded.
        names: of the pictures' files.
    """
    file = store.folder / FILE
    if encoded is not None:
        if distributed.is_first():
            record = {k: v for k, v in encoded._asdict().items() if k != "latents"}
            files.write_json(file, {"pictures": list(names), **record})
    elif file.exists():
        record = json.loads(file.read_text())
        tell(Encoded(None, *(record[k] for k in Encoded._fields[1:])), names)
