"""Inpainting as a recipe: which parts a method takes, for the mode and for Python."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from ddpm_jax.builders import editing as build_editing
from ddpm_jax.builders import process as build_process
from ddpm_jax.builders import prompts
from ddpm_jax.builders import sampling as build_sampling
from ddpm_jax.builders.data import DataInfo
from ddpm_jax.core import errors
from ddpm_jax.data import images as images_lib
from ddpm_jax.diffusion import inpainting, reconstruction
from ddpm_jax.editing import edit, labels
from ddpm_jax.sampling import recipe as recipe_lib
from ddpm_jax.sampling.transforms import CLASS, HOLE, PICTURE

KNOWN = ("known", "known_mask")  # what a network reads that was trained to inpaint
OF_CLASSES = ("label", CLASS)  # keys of the condition that hold classes
RESAMPLINGS = {"fast": 1, "good": 5, "best": 10}  # by editing.quality

# Of `METHODS`, by model.inpainting.
USUAL = {False: "repaint", True: "trained"}


def recipe(
    config, facts: DataInfo, arrays: Mapping[str, np.ndarray], *, name: str
) -> recipe_lib.Recipe:
    """Return what makes the holes of pictures, editing.variants times each.

    Args:
        config: of the run; editing.* says how.
        facts: of its data.
        arrays: `PICTURE`, float32 [n, H, W, C] in [-1, 1], and `HOLE`, bool
            [n, H, W, 1], True where something is to be made.
        name: of the pictures, for the tag.

    Raises:
        Refusal: settings that do not fit together.
    """
    config = with_prompt(config)
    sees_known = config.model.inpainting
    method = config.editing.method or USUAL[sees_known]
    make = errors.choose("editing.method", METHODS, method)
    repaints = method == "repaint", "--method=repaint"
    edit.check_used(
        config,
        {
            **dict.fromkeys(("quality", "resamplings", "jump"), repaints),
            "likelihood": (method == "guided", "--method=guided"),
        },
    )
    classes = labels.of_results(config, facts, len(arrays[PICTURE]))
    parts, resolved = make(config)
    given = {
        "image": build_editing.word(name, arrays[PICTURE]),
        "mask": build_editing.fingerprint(arrays[HOLE])[:8],
    }
    made = build_editing.recipe(
        config,
        facts,
        "inpaint",
        given=given,
        arrays=arrays,
        resolved={"method": method, **resolved},
        shape=arrays[PICTURE].shape[1:],
        repeats=config.editing.variants,
        computed=KNOWN if sees_known else (),
        **parts,
    )
    condition = [(key, classes) for key in made.condition_keys if key in OF_CLASSES]
    condition += [pair for pair in made.condition if pair[0] not in OF_CLASSES]
    return dataclasses.replace(made, condition=tuple(condition))


def with_prompt(config):
    """Return the config, with the empty prompt where a hole may be filled without one.

    That is so of networks that see what is known. The empty prompt is the condition
    that guidance leads away from, so that there is nothing to be guided to.
    """
    sampling = config.sampling
    if not (config.model.inpainting and config.model.text_layers) or sampling.prompts:
        return config
    config = config.copy_and_resolve_references()
    config.sampling.prompts = ("",)
    if not sampling.negative:
        config.sampling.guidance_scale, config.sampling.guidance_w = 1.0, 0.0
    return config


def told(config, saved) -> list[str]:
    """Return what guides the holes, in a line each.

    Args:
        config: of the run.
        saved: what its config.json says, see `trained_run.SavedRun`.
    """
    config = with_prompt(config)
    texts = prompts.of(config, saved.facts)
    lines = [] if texts is None else texts.told()
    return [*lines, *build_sampling.guidance_told(config, saved.imported)]


def check_pictures(pictures, holes, facts) -> None:
    """Refuse pictures and holes that a run cannot take as they are.

    Args:
        pictures: array [n, H, W, C].
        holes: bool array [n, H, W] or [H, W].
        facts: of the run's data.

    Raises:
        Refusal: names the shape or type that is wanted.
    """
    if pictures.shape[1:] != facts.shape:
        raise errors.Refusal(
            f"pictures of shape {pictures.shape}: give [n, "
            f"{', '.join(map(str, facts.shape))}], as sample() returns them"
        )
    wanted = images_lib.stored_type(facts.levels)
    if pictures.dtype != wanted:
        raise errors.Refusal(
            f"pictures of type {pictures.dtype}: give {wanted}, as sample() returns "
            "them"
        )
    if holes.shape not in (pictures.shape[:3], pictures.shape[1:3]):
        raise errors.Refusal(
            f"holes of shape {holes.shape} for pictures of shape {pictures.shape}: "
            f"give {pictures.shape[1:3]} for all, or {pictures.shape[:3]}"
        )


# ---- methods: config → parts of the recipe, and fields of config.editing -------------


def _replace(config):
    del config
    return {"also": (recipe_lib.part("known_region"),)}, {}


def _repaint(config):
    editing = config.editing
    kept = build_process.respaced(config, "sampling").num_steps
    resamplings = editing.resamplings or RESAMPLINGS[editing.quality]
    jump = editing.jump or max(1, min(10, kept // 10))
    solver = build_sampling.solver(config)
    inpainting.check_repaint(kept, resamplings=resamplings, jump=jump, solver=solver)
    path = inpainting.repaint_path(kept, resamplings=resamplings, jump=jump)
    parts = {"also": (recipe_lib.part("known_region"),), "path": path}
    return parts, {"resamplings": resamplings, "jump": jump, "quality": "good"}


def _guided(config):
    likelihood = config.editing.likelihood
    reconstruction.check_reconstruction(
        build_process.respaced(config, "sampling"), likelihood=likelihood
    )
    guide = recipe_lib.part(f"reconstruction_{likelihood}", scale=1.0)
    return {"also": (guide, recipe_lib.part("pasted"))}, {}


def _trained(config):
    if not config.model.inpainting:
        raise errors.Refusal(
            "editing.method='trained' on a run whose network does not see the known "
            "part of a picture (model.inpainting=False): take repaint, replace or "
            "guided, or a run with GLIDE's base_inpaint.pt"
        )
    return {"also": (recipe_lib.part("overwritten"), recipe_lib.part("pasted"))}, {}


METHODS = {
    "replace": _replace,
    "repaint": _repaint,
    "guided": _guided,
    "trained": _trained,
}
