"""Inpainting as a recipe: which parts a method takes, for the mode and for Python."""

import dataclasses

import numpy as np

from ddpm_jax.builders import chains, prompts
from ddpm_jax.builders import editing as build_editing
from ddpm_jax.builders import process as build_process
from ddpm_jax.builders import sampling as build_sampling
from ddpm_jax.builders.data import DataInfo
from ddpm_jax.core import errors
from ddpm_jax.diffusion import inpainting, reconstruction
from ddpm_jax.editing import delta, edit, labels, plans
from ddpm_jax.sampling import recipe as recipe_lib
from ddpm_jax.sampling.transforms import CLASS, HOLE, PICTURE

KNOWN = ("known", "known_mask")  # what a network reads that was trained to inpaint
OF_CLASSES = ("label", CLASS)  # keys of the condition that hold classes
RESAMPLINGS = {"fast": 1, "good": 5, "best": 10}  # by editing.quality

# Of `METHODS`, by model.inpainting.
USUAL = {False: "repaint", True: "trained"}


def plan(config, facts: DataInfo, given: plans.Given) -> plans.Plan:
    """Return what makes the holes of pictures, editing.variants times each.

    Args:
        config: of the run; editing.* says how.
        facts: of its data.
        given: the pictures, with holes.

    Raises:
        Refusal: settings that do not fit together.
    """
    if config.model.kind in chains.KINDS:
        return delta.plan(config, facts, given)
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
    classes = labels.of_results(config, facts, given.count)
    parts, resolved = make(config)
    arrays = {PICTURE: given.values, HOLE: given.holes[..., None]}
    variants = config.editing.variants
    recipe = build_editing.recipe(
        config,
        facts,
        "inpaint",
        arrays=arrays,
        resolved={"method": method, **resolved},
        repeats=variants,
        computed=KNOWN if sees_known else (),
        **given.parts,
        **parts,
    )
    condition = [(key, classes) for key in recipe.condition_keys if key in OF_CLASSES]
    condition += [pair for pair in recipe.condition if pair[0] not in OF_CLASSES]
    recipe = dataclasses.replace(recipe, condition=tuple(condition))
    wanted = variants * given.count
    return plans.Plan(config, recipe, wanted, lambda _: (arrays, None), given.count)


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


def summary(config, saved) -> list[str]:
    """Return what guides the holes, in a line each.

    Args:
        config: of the run.
        saved: what its config.json says, see `trained_run.SavedRun`.
    """
    config = with_prompt(config)
    texts = prompts.of(config, saved.facts)
    lines = [] if texts is None else texts.summary()
    guided = build_sampling.guidance_lines(config, saved.facts, saved.imported)
    return [*lines, *guided]


def with_holes(given: plans.Given, holes) -> plans.Given:
    """Return pictures with what is to be made of them.

    Args:
        given: the pictures, [n, H, W, C].
        holes: bool, or 0 and 1, [n, H, W], or [H, W] for all.

    Raises:
        Refusal: no pictures, holes of another shape or type, or one that leaves all or
            nothing of a picture to be made.
    """
    if not given.count:
        raise errors.Refusal("nothing to fill: give pictures and holes")
    holes = _of_zeros_and_ones(plans.array_of("holes", holes))
    shape = given.stored.shape[:3]
    if holes.shape not in (shape, shape[1:]):
        raise errors.Refusal(
            f"holes of shape {holes.shape} for pictures of shape {given.stored.shape}: "
            f"give {shape[1:]} for all, or {shape}"
        )
    holes = np.broadcast_to(holes, shape)
    for name, share in zip(given.names, holes.mean(axis=(1, 2)), strict=True):
        if share in (0, 1):
            which = "all" if share else "no"
            raise errors.Refusal(
                f"the hole of {name} has {which} pixels: give a hole that has some of "
                "the picture, True where something is to be made"
            )
    return given._replace(holes=holes)


def _of_zeros_and_ones(holes: np.ndarray) -> np.ndarray:
    """Return holes as bool.

    Raises:
        Refusal: other values, NaN among them.
    """
    if holes.dtype.kind not in "biuf":
        raise errors.Refusal(f"holes of type {holes.dtype}: give bool, or 0 and 1")
    other = holes[(holes != 0) & (holes != 1)]
    if other.size:
        raise errors.Refusal(
            f"holes with the value {other[0]:g}: give bool, or 0 and 1, where 1 is to "
            "be made"
        )
    return holes.astype(bool)


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


def _delta(config):
    raise errors.Refusal(
        f"editing.method='delta' on a run of model.kind={config.model.kind!r}: it is "
        f"of {' and '.join(chains.KINDS)}; take repaint, replace or guided"
    )


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
    delta.METHOD: _delta,
}
