"""Animations: of a chain, of latents, of classes, of guidance, of training."""

import dataclasses
from typing import NamedTuple

import numpy as np

from ddpm_jax import config as config_lib
from ddpm_jax.builders import editing as build_editing
from ddpm_jax.builders.network import null_label
from ddpm_jax.core import errors
from ddpm_jax.data import images as images_lib
from ddpm_jax.editing import animation as animation_lib
from ddpm_jax.editing import edit, training_film
from ddpm_jax.editing.animation import Animation, Frame
from ddpm_jax.metrics import motion
from ddpm_jax.report import animations, grids, sheets
from ddpm_jax.runtime import distributed, files, image_grid
from ddpm_jax.runtime.console import say
from ddpm_jax.sampling.starts import STATE

FRAMES_OF_A_CHAIN = 40
FRAMES_OF_A_LEG = {"walk": 24, "morph": 12, "guidance": 24}  # usual numbers
MOST_FPS, LEAST_SECONDS = 12, 4
STRIP_ROWS = 4
OWN_FIELDS = {"seeds": "walk", "scales": "guidance"}  # and the kind that reads them


class Film(NamedTuple):
    """Frames that are there, and what is written of them.

    Attributes:
        frames: as stored, [F, n, H, W, C].
        captions: of each frame, one for each block; () for none.
        marks: a short word for each frame.
        blocks: parts of a frame that stand side by side.
        is_loop: the first frame follows the last one.
        shown: numbers of the frames in the strip.
    """

    frames: np.ndarray
    captions: list[tuple[str, ...]]
    marks: list[str]
    blocks: int
    is_loop: bool
    shown: list[int]


def run(config, workdir) -> None:
    """Write RUN/edits/<tag>/animation.<format> and strip.png.

    Args:
        config: of the run; editing.kind says of what.
        workdir: the run.

    Raises:
        Refusal: a kind that the run cannot give, or settings that do not fit.
    """
    editing = config.editing
    animations.check(editing.format, editing.fps)
    check(config)
    saved = edit.read_run(config, workdir, "animate")
    if editing.kind == "train":
        store, captions, marks = training_film.make(saved, editing.frames)
        if distributed.is_first():
            frames = store.first(len(marks))
            numbers = list(range(len(frames)))
            shown = grids.evenly(numbers, training_film.STRIP_COLUMNS)
            film = Film(frames, captions, marks, 1, False, shown)
            write(film, config, store.folder)
        return
    animation = KINDS[editing.kind](config, saved.facts)
    opened = edit.open_run(config, saved)
    store, is_finished = animation_lib.make(opened, animation)
    if is_finished and distributed.is_first():
        frames = store.first(len(animation.frames))
        write(film_of(animation, frames), config, store.folder)


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
    told = f"seeds {sampling.seed} … {sampling.seed + seeds - 1}"
    recipe = dataclasses.replace(
        recipe, fingerprints=(*recipe.fingerprints, (STATE, told))
    )
    frames = []
    for leg, share in animation_lib.round_trip(count, seeds):
        ends = (sampling.seed + leg, sampling.seed + (leg + 1) % seeds)
        mark = f"{float(share):.0%}" if share else f"seed {ends[0]}"
        frames.append(Frame(recipe, "", mark, latents=(*ends, share)))
    shown = animation_lib.shown_of_loop(count, seeds)
    return Animation(recipe, tuple(frames), config.editing.variants, True, shown)


def _morph(config, facts) -> Animation:
    """A loop from class to class, with the noise of the images as it is."""
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


def _guidance(config, facts) -> Animation:
    """The same noise under a scale of guidance that goes up and down again."""
    _refuse_guidance(config, "give --scales=0,6, from and to")
    scales = config.editing.scales
    if len(scales) != 2 or scales[0] == scales[1]:
        raise errors.Refusal(
            f"editing.scales={','.join(f'{s:g}' for s in scales)}: give two different "
            "scales, from and to, such as --scales=0,6"
        )
    if not config.sampling.negative and null_label(config, facts) is None:
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


# ---- what is written -----------------------------------------------------------------


def film_of(animation: Animation, frames: np.ndarray) -> Film:
    """Return the frames of an animation with their words."""
    captions = [(frame.caption,) if frame.caption else () for frame in animation.frames]
    if animation.is_one_chain:
        states = [(f"x_t, {c}" if c != "image" else c) for (c,) in captions]
        captions = [(state, "estimate of x_0") for state in states]
    marks = [frame.mark for frame in animation.frames]
    blocks = 2 if animation.is_one_chain else 1
    return Film(frames, captions, marks, blocks, animation.is_loop, animation.shown)


def write(film: Film, config, folder) -> None:
    """Write animation and strip, and say where they are and how much they move."""
    editing = config.editing
    shown = images_lib.shown(film.frames)
    fps = editing.fps or usual_fps(film)
    pictures = [
        sheets.frame(images, captions=captions, blocks=film.blocks)
        for images, captions in zip(shown, film.captions, strict=True)
    ]
    said = motion.motion(shown, is_loop=film.is_loop)
    say(f"neighbouring frames are {said}")
    data = animations.encode(pictures, editing.format, fps=fps, is_loop=film.is_loop)
    if editing.format == "gif" and pictures[0].shape[-1] > 1:
        say(
            "note: a GIF has 256 colours; --format=webp keeps all, from the same frames"
        )
    path = folder / animations.NAMES[editing.format]
    files.write_bytes(path, data)
    image_grid.write_png(folder / "strip.png", strip(film._replace(frames=shown)))
    height, width = pictures[0].shape[:2]
    seconds = len(pictures) / fps
    say(f"frames:    {folder / 'samples.npz'}")
    say(f"strip:     {folder / 'strip.png'}")
    say(
        f"animation: {path} ({len(pictures)} frames of {width}x{height}, "
        f"{seconds:.1f} s{', a loop' if film.is_loop else ''})"
    )


def usual_fps(film: Film) -> int:
    """Return the frames a second of an animation that lasts some seconds."""
    return max(2, min(MOST_FPS, round(len(film.frames) / LEAST_SECONDS)))


def strip(film: Film) -> np.ndarray:
    """Return a still of some frames, a column each."""
    each = film.frames.shape[1] // film.blocks
    rows, names = [], []
    for image in range(min(each, STRIP_ROWS // film.blocks)):
        for block in range(film.blocks):
            rows.append([film.frames[f, block * each + image] for f in film.shown])
            names.append(("x_t", "estimate\nof x_0")[block] if film.blocks > 1 else "")
    if film.frames.shape[1] == 1:
        rows = [[training_film.half(tile) for tile in row] for row in rows]
    return sheets.sheet(rows, [film.marks[f] for f in film.shown], names=names)
