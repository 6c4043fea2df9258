"""Animations of a run: which chains make the frames, and making them.

A frame holds n images, [n, H, W, C]. Image v of each frame has the noise of image v of
--mode=sample, so that neighbouring frames differ by what the animation is about alone.
All frames but those of one chain are made by one compiled program: latents, classes and
scales are inputs of it.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from ddpm_jax.builders import guides as guides_lib
from ddpm_jax.builders import sampling as build_sampling
from ddpm_jax.core import errors
from ddpm_jax.data import images as images_lib
from ddpm_jax.diffusion import interpolation, samplers
from ddpm_jax.diffusion.paths import CORRECT, STEP
from ddpm_jax.editing import edit, plain
from ddpm_jax.runtime import distributed
from ddpm_jax.runtime.cluster import preemption
from ddpm_jax.runtime.console import say
from ddpm_jax.sampling import archive, generation
from ddpm_jax.sampling import recipe as recipe_lib
from ddpm_jax.sampling import sampler as sampler_lib
from ddpm_jax.sampling.starts import STATE
from ddpm_jax.training import progress

STRIP_COLUMNS = 9


class Frame(NamedTuple):
    """What one frame is made by.

    Attributes:
        recipe: of its chain.
        caption: words below it; "" for none.
        mark: a shorter word, for strips.
        latents: (seed, seed, share between them) of where the chain starts; None for
            the recipe's own noise.
        position: on the path, before which a chain is shown; None for a chain of its
            own, of which the end is shown.
    """

    recipe: recipe_lib.Recipe
    caption: str = ""
    mark: str = ""
    latents: tuple[int, int, Fraction] | None = None
    position: int | None = None


class Animation(NamedTuple):
    """Frames to make.

    Attributes:
        recipe: of request and folder.
        frames: in the order in which they are shown.
        variants: images of each; a frame of a chain holds its state and, after them,
            as many estimates of x_0.
        is_loop: the first frame follows the last one.
        shown: numbers of the frames in the still strip.
    """

    recipe: recipe_lib.Recipe
    frames: tuple[Frame, ...]
    variants: int
    is_loop: bool
    shown: list[int]

    @property
    def is_one_chain(self) -> bool:
        """Whether all frames come from one chain."""
        return self.frames[0].position is not None

    @property
    def distinct(self) -> tuple[Frame, ...]:
        """The frames that are made; others are equal to one of them."""
        if self.is_one_chain:
            return self.frames[:1]
        return tuple({_key(frame): frame for frame in self.frames}.values())


def round_trip(frames: int, legs: int) -> list[tuple[int, Fraction]]:
    """Return (leg, share of it) of each frame of a loop, every leg begun at its start.

    Args:
        frames: of the whole loop, at least as many as legs.
        legs: of about equal length.
    """
    ends = [Fraction(frames * leg, legs).__round__() for leg in range(legs + 1)]
    return [
        (leg, Fraction(frame - begin, end - begin))
        for leg, (begin, end) in enumerate(itertools.pairwise(ends))
        for frame in range(begin, end)
    ]


def shown_of_loop(frames: int, legs: int) -> list[int]:
    """Return the frames of a loop that its strip shows: the begin of each leg first."""
    columns = min(frames, legs * max(1, STRIP_COLUMNS // legs))
    return [round(number * frames / columns) for number in range(columns)]


# ---- making --------------------------------------------------------------------------


def make(opened: edit.Opened, animation: Animation) -> tuple[archive.SampleStore, bool]:
    """Make the frames, or go on making them.

    Returns:
        Their store, arr_0 [F, n, H, W, C], and whether all are there; if not, the same
        command goes on.
    """
    count = len(animation.frames)
    folder = opened.trained.run_dir.edits
    store = generation.open_store(folder, animation.recipe, opened.weights)
    if distributed.from_first(store.is_finished(count)):
        say(f"{count} frames exist already: {store.archive}")
        return store, True
    done = distributed.from_first(store.count())
    if done:
        say(f"resuming after {done} of {count} frames")
    _say_cost(opened, animation)
    with preemption.StopRequest() as stop:
        for images in made(opened, animation, done):
            stored = images_lib.to_stored(images, opened.facts.levels, store.dtype)
            store.add(done, stored[None])
            done += 1
            if done == count or done % max(1, count // 10) == 0:
                say(f"{done}/{count} frames")
            if stop.agreed():
                break
    if done < count:
        say(f"stopped by {stop.signal_name} after {done} of {count} frames")
        say("the same command goes on from there")
        return store, False
    if distributed.is_first():
        store.finish(count, None)
    distributed.barrier("the archive of frames")
    return store, True


def in_memory(opened: edit.Opened, animation: Animation) -> np.ndarray:
    """Return the frames as samples are stored, [F, n, H, W, C]."""
    frames = list(made(opened, animation, 0))
    return images_lib.to_stored(np.stack(frames), opened.facts.levels)


def made(opened: edit.Opened, animation: Animation, done: int) -> Iterator[np.ndarray]:
    """Yield the frames from number `done` on, float32 [n, H, W, C] each."""
    chain = _Chains(opened, animation)
    if animation.is_one_chain:
        yield from chain.snapshots()[done:]
        return
    kept = {}
    for number, frame in enumerate(animation.frames):
        if number < done:
            continue
        key = _key(frame)
        if key not in kept:
            kept[key] = chain.end(frame)
        yield kept[key]


def _key(frame: Frame):
    """Return what is equal for frames that are the same picture."""
    recipe, latents = frame.recipe, frame.latents
    if latents and latents[0] > latents[1]:  # the same arc from its other end
        latents = (latents[1], latents[0], 1 - latents[2])
    return recipe.guidance, recipe.negative, recipe.condition, latents


class _Chains:
    """Makes the chains of an animation on the run's devices."""

    def __init__(self, opened, animation):
        guides = guides_lib.named(opened.config)
        guides_lib.check_weights(guides, opened.weights)
        trained = opened.trained
        self._opened, self._animation, self._states = opened, animation, {}
        self._others = guides_lib.opened(guides, trained.mesh)
        self._batch_size = sampler_lib.rounded_batch(
            min(opened.config.sampling.batch_size, animation.variants), trained.mesh
        )

    def sampler(self, frame, trajectory=()) -> sampler_lib.Sampler:
        trained = self._opened.trained
        return sampler_lib.Sampler(
            frame.recipe,
            trained.network,
            trained.mesh,
            trajectory=trajectory,
            arrays=self._arrays(frame),
            others=self._others,
        )

    def end(self, frame) -> np.ndarray:
        """Return the images of a chain."""
        return np.concatenate([m.images for m in self._batches(self.sampler(frame))])

    def snapshots(self) -> np.ndarray:
        """Return states and what the network takes them for, [F, 2n, H, W, C].

        The chain keeps its state after a position, and the estimate that was made
        there, from the state before.
        """
        frames = self._animation.frames
        starts = [frame.position for frame in frames]
        length = len(frames[0].recipe.whole_path)
        kept = {p for start in starts for p in (start - 1, start)}
        kept = sorted(kept & set(range(length)))
        at = {position: number for number, position in enumerate(kept)}
        states, estimates, images = self._kept(frames[0], kept)
        recipe = self._animation.recipe
        x_T = self._x_T(recipe.seed)
        found = []
        for start in starts:
            state = states[at[start - 1]] if start else x_T
            estimate = estimates[at[start]] if start < length else images
            found.append(np.concatenate([state, estimate]))
        return np.stack(found)

    def _kept(self, frame, kept):
        """Return states and estimates after positions, [S, n, ...], and the images."""
        if self._opened.on_step is not None:
            return self._looked_at(frame, kept)
        parts = list(self._batches(self.sampler(frame, kept)))
        return (
            np.concatenate([getattr(part, name) for part in parts], axis=axis)
            for name, axis in (("states", 1), ("estimates", 1), ("images", 0))
        )

    def _looked_at(self, frame, kept):
        """Return the same from what is told on the way.

        The program keeps nothing: another number of frames compiles nothing.
        """
        found = {position: [] for position in kept}

        def on_step(step):
            self._opened.on_step(step)
            if step.done - 1 in found:
                found[step.done - 1].append((step.state, step.estimate))

        parts = list(self._batches(self.sampler(frame), on_step))
        pairs = [
            [np.concatenate(arrays) for arrays in zip(*found[position], strict=True)]
            for position in kept
        ]
        states, estimates = (np.stack(arrays) for arrays in zip(*pairs, strict=True))
        return states, estimates, np.concatenate([part.images for part in parts])

    def seconds_per_entry(self) -> float:
        """Return how long one entry of the path takes; it compiles the program."""
        made_by = self.sampler(self._animation.frames[0])
        batches = -(-self._animation.variants // self._batch_size)
        params = self._opened.weights.params
        return batches * made_by.seconds_per_entry(params, self._batch_size)

    def _batches(self, made_by, on_step=None) -> Iterator[sampler_lib.Made]:
        parts = generation.batches(
            made_by,
            self._opened.weights.params,
            start=0,
            stop=self._animation.variants,
            batch_size=self._batch_size,
            on_step=on_step or self._opened.on_step,
        )
        return (made for _, made in parts)

    def _arrays(self, frame):
        if frame.latents is None:
            return {}
        seed, other, share = frame.latents
        one = self._x_T(seed)
        if not share:  # an arc gives its ends to rounding alone
            return {STATE: one}
        mixed = interpolation.spherical(one, self._x_T(other), float(share))
        return {STATE: np.asarray(mixed)}

    def _x_T(self, seed):
        """Return where the images of a seed start, as the sampler draws it."""
        if seed not in self._states:
            recipe = dataclasses.replace(self._animation.recipe, seed=seed % 2**32)
            index = np.arange(self._animation.variants)
            self._states[seed] = plain.first_states(recipe, index)
        return self._states[seed]


def _say_cost(opened, animation) -> None:
    """Say how often the network will be evaluated, and for how long."""
    chains = len(animation.distinct)
    evaluations = animation.recipe.evaluations
    say(
        f"{len(animation.frames)} frames of {animation.variants} images from {chains} "
        f"{'chain' if chains == 1 else 'chains'}; compiling the sampler first …"
    )
    seconds = _Chains(opened, animation).seconds_per_entry()
    took = progress.duration(seconds * evaluations * chains)
    say(f"{evaluations} evaluations of the network for each chain: about {took}")


# ---- parts of the kinds --------------------------------------------------------------


def states_on(path: samplers.Path) -> list[tuple[int, int]]:
    """Return (position, t) of every state on a path, before the entry of its t.

    The last one is the image: position len(path), t = −1 of paths that end there.
    """
    found = [(0, path[0][0])]
    for position, (_, t_next, kind, *_) in enumerate(path):
        if kind in (STEP, CORRECT):  # after others a step is not complete
            found.append((position + 1, t_next))
    return found


def faded(
    recipe: recipe_lib.Recipe, one: int, other: int, share: Fraction
) -> recipe_lib.Recipe:
    """Return the recipe of a cross-fade between two classes.

    The network's mean is (1−λ) that of class `one` + λ that of class `other`, and the
    variance, where it is learned, that of the nearer class. At λ = 0 and 1 the images
    are those of the class.

    Args:
        recipe: of a run with classes, without guidance.
        one, other: indices of the classes.
        share: λ.
    """
    if share > Fraction(1, 2) or (share == Fraction(1, 2) and other < one):
        one, other, share = other, one, 1 - share
    other = one if share == 0 else other
    return dataclasses.replace(
        recipe,
        guidance=(recipe_lib.part("classifier_free", scale=float(1 - share)),),
        negative=(("label", other),),
        condition=(("label", (one,)),),
        drawn=(),
        repeats=1,
    )


def guided(recipe: recipe_lib.Recipe, scale: float) -> recipe_lib.Recipe:
    """Return a recipe with another scale of classifier-free guidance."""
    parts = [
        recipe_lib.part(part.name, scale=scale)
        if part.name == "classifier_free"
        else part
        for part in recipe.guidance
    ]
    return dataclasses.replace(recipe, guidance=tuple(parts))


def classes_of_morph(config, facts) -> tuple[int, ...]:
    """Return the classes that a morph passes, in order.

    Raises:
        Refusal: a run without classes, or classes between which nothing changes.
    """
    if not config.model.class_conditional:
        raise errors.Refusal(
            "--kind=morph on a run without classes: it changes images from class to "
            "class; give --kind=walk, or train a run with model.class_conditional=True"
        )
    for field in ("classifier", "weaker"):
        if config.sampling[field]:
            raise errors.Refusal(
                f"sampling.{field}={config.sampling[field]} with --kind=morph: a "
                "morph mixes two classes, and no other run can guide it; leave it empty"
            )
    found = build_sampling.classes(config, facts)
    labels = found.labels
    is_unasked = not config.sampling.labels and len(labels) > MOST_CLASSES
    if found.are_drawn or is_unasked:
        raise errors.Refusal(
            f"--kind=morph needs the classes to pass, of {len(found.names)}: such as "
            f"--config.sampling.labels={found.names[0]},{found.names[-1]}"
        )
    if any(a == b for a, b in zip(labels, (*labels[1:], labels[0]), strict=True)):
        raise errors.Refusal(
            f"--kind=morph passes the classes {', '.join(map(str, labels))} and goes "
            "back to the first: give two or more in sampling.labels, neighbours "
            "different"
        )
    return labels


MOST_CLASSES = 10  # that a morph passes unasked
