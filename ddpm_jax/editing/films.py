"""Kinds of animations: which frames each is made of."""

import dataclasses

from ddpm_jax import config as config_lib
from ddpm_jax.builders import editing as build_editing
from ddpm_jax.builders.network import null_label
from ddpm_jax.core import errors
from ddpm_jax.editing import animation as animation_lib
from ddpm_jax.editing import prompt_morph
from ddpm_jax.editing.animation import Animation, Frame
from ddpm_jax.report import grids
from ddpm_jax.sampling.starts import STATE

FRAMES_OF_A_CHAIN = 40
FRAMES_OF_A_LEG = {"walk": 24, "morph": 12, "guidance": 24}  # usual numbers
OWN_FIELDS = {"seeds": "walk", "scales": "guidance"}  # and the kind that reads them


def check(config) -> None:
    """Refuse what no kind can do, and fields that the kind does not read."""
    editing, usual = config.editing, config_lib.base().editing
    if editing.frames == 1:
        raise errors.Refusal(
            "editing.frames=1: an animation has at least 2 frames; give more, or leave "
            "it 0 for the usual number"
        )
    for field, kind in OWN_FIELDS.items():
        if editing[field] != usual[field] and editing.kind != kind:
            raise errors.Refusal(
                f"editing.{field}={editing[field]} has no effect with --kind="
                f"{editing.kind}: it belongs to --kind={kind}; leave it out"
            )


# ---- kinds: config, facts → Animation ------------------------------------------------


def _denoise(config, facts) -> Animation:
    """A chain from noise to image, with the estimate of x_0 beside each state."""
    states = animation_lib.states_on(_recipe(config, facts).whole_path)
    count = config.editing.frames or min(len(states), FRAMES_OF_A_CHAIN)
    if count > len(states):
        steps = len(states) - 1
        raise errors.Refusal(
            f"editing.frames={count} of {steps} steps of sampling: give at most "
            f"{len(states)}, or raise sampling.steps"
        )
    recipe = _recipe(config, facts, frames=count)
    frames = []
    for position, t in grids.evenly(states, count):
        mark = f"t = {recipe.schedule.timesteps[t]}" if t >= 0 else "image"
        frames.append(Frame(recipe, mark, mark, position=position))
    shown = grids.evenly(list(range(count)), animation_lib.STRIP_COLUMNS)
    return Animation(recipe, tuple(frames), config.editing.variants, False, shown)


def _walk(config, facts) -> Animation:
    """A loop through the latents of several seeds, on arcs."""
    sampling, seeds = config.sampling, config.editing.seeds
    if sampling.method == "ancestral" or sampling.eta:
        what = f"eta={sampling.eta:g}" if sampling.eta else f"method={sampling.method}"
        raise errors.Refusal(
            f"sampling.{what} with --kind=walk: its noise would hide the way through "
            "the latents; give --config.sampling.method=ddim with eta 0, heun or "
            "dpmpp_2m"
        )
    if seeds < 2:
        raise errors.Refusal(
            f"editing.seeds={seeds}: a walk passes at least 2 seeds, such as --seeds=4"
        )
    count = _count(config, seeds)
    recipe = _recipe(config, facts, frames=count, start="given")
    which = f"seeds {sampling.seed} … {sampling.seed + seeds - 1}"
    recipe = dataclasses.replace(
        recipe, fingerprints=(*recipe.fingerprints, (STATE, which))
    )
    frames = []
    for leg, share in animation_lib.round_trip(count, seeds):
        ends = (sampling.seed + leg, sampling.seed + (leg + 1) % seeds)
        mark = f"{float(share):.0%}" if share else f"seed {ends[0]}"
        frames.append(Frame(recipe, "", mark, latents=(*ends, share)))
    shown = animation_lib.shown_of_loop(count, seeds)
    return Animation(recipe, tuple(frames), config.editing.variants, True, shown)


def _morph(config, facts) -> Animation:
    """A loop from class to class, or text to text; the noise stays as it is."""
    if config.model.text_layers:
        return _prompts(config, facts)
    _refuse_guidance(config, "it is the share of two classes there; leave it 1")
    labels = animation_lib.classes_of_morph(config, facts)
    names = facts.class_names
    count = _count(config, len(labels))
    recipe = _recipe(config, facts, frames=count)
    frames = []
    for leg, share in animation_lib.round_trip(count, len(labels)):
        one, other = labels[leg], labels[(leg + 1) % len(labels)]
        caption = names[one]
        if share:
            caption = f"{float(share):.0%} of the way from {names[one]} to "
            caption += names[other]
        mark = f"{float(share):.0%}" if share else names[one]
        made = animation_lib.faded(recipe, one, other, share)
        frames.append(Frame(made, caption, mark))
    shown = animation_lib.shown_of_loop(count, len(labels))
    return Animation(recipe, tuple(frames), config.editing.variants, True, shown)


def _prompts(config, facts) -> Animation:
    """A loop from text to text, each guided as config.sampling says."""
    texts = prompt_morph.texts_of(config, facts)
    number = len(texts.texts)
    count = _count(config, number)
    recipe = _recipe(config, facts, frames=count)
    frames = []
    for leg, share in animation_lib.round_trip(count, number):
        way = (leg, (leg + 1) % number, share)
        mark = f"{float(share):.0%}" if share else f"text {leg + 1}"
        made = prompt_morph.between(recipe, texts, *way)
        frames.append(Frame(made, prompt_morph.caption(texts, *way), mark))
    shown = animation_lib.shown_of_loop(count, number)
    return Animation(recipe, tuple(frames), config.editing.variants, True, shown)


def _guidance(config, facts) -> Animation:
    """The same noise under a scale of guidance that goes up and down again."""
    _refuse_guidance(config, "give --scales=0,6, from and to")
    scales = config.editing.scales
    if len(scales) != 2 or scales[0] == scales[1]:
        raise errors.Refusal(
            f"editing.scales={','.join(f'{s:g}' for s in scales)}: give two different "
            "scales, from and to, such as --scales=0,6"
        )
    has_other = null_label(config, facts) is not None or (
        config.model.text_layers and config.train.label_dropout
    )
    if not config.sampling.negative and not has_other:
        raise errors.Refusal(
            "--kind=guidance on a run without an unconditional branch: give "
            "--config.sampling.negative=CLASS to a run with classes, or train one with "
            "train.label_dropout=0.1"
        )
    count = _count(config, 2)
    # Any scale that mixes: that of each frame takes its place.
    changed = config.copy_and_resolve_references()
    changed.sampling.guidance_scale = 2.0
    recipe = _recipe(changed, facts, frames=count)
    settings = tuple(s for s in recipe.settings if s.name != "guidance_scale")
    recipe = dataclasses.replace(recipe, settings=settings)
    frames = []
    for leg, share in animation_lib.round_trip(count, 2):
        up = 1 - share if leg else share
        # Most happens at small scales, so that these take the more frames.
        low, high = sorted(scales)
        up = up if scales[0] == low else 1 - up
        scale = low + float(up) ** 2 * (high - low)
        made = animation_lib.guided(recipe, scale)
        frames.append(Frame(made, f"guidance scale {scale:.2f}", f"{scale:.2f}"))
    shown = grids.evenly(list(range(count // 2 + 1)), animation_lib.STRIP_COLUMNS)
    return Animation(recipe, tuple(frames), config.editing.variants, True, shown)


def plan(config, facts) -> Animation:
    """Return the animation of editing.kind, but "train", which no chain makes.

    Args:
        config: of the run.
        facts: of its data.

    Raises:
        Refusal: a kind that the run cannot give, or settings that do not fit.
    """
    return KINDS[config.editing.kind](config, facts)


KINDS = {"denoise": _denoise, "walk": _walk, "morph": _morph, "guidance": _guidance}


def _recipe(config, facts, *, frames=0, **parts):
    """Return the recipe of request and folder; `frames` is the number taken."""
    scales = tuple(float(scale) for scale in config.editing.scales)
    resolved = {"frames": frames, "scales": scales}
    return build_editing.recipe(config, facts, "animate", resolved=resolved, **parts)


def _count(config, legs) -> int:
    """Return the frames of a loop of some legs."""
    count = config.editing.frames or legs * FRAMES_OF_A_LEG[config.editing.kind]
    if count < legs:
        raise errors.Refusal(
            f"editing.frames={count}: a loop of {legs} legs has at least {legs} frames,"
            " such as --frames=" + str(legs * FRAMES_OF_A_LEG[config.editing.kind])
        )
    return count


def _refuse_guidance(config, remedy):
    for name, usual in (("guidance_scale", 1), ("guidance_w", 0)):
        if config.sampling[name] != usual:
            raise errors.Refusal(
                f"sampling.{name}={config.sampling[name]:g} with --kind="
                f"{config.editing.kind}: {remedy}"
            )
