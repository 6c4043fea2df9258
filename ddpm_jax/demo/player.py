"""A run opened once, and jobs made with it while somebody looks.

A job begins as the command line that is shown beside its result: the config is what
that line says, so that the line makes the same images. Chains are made by the sampler
of all modes, an entry of the path at a time.
"""

import shlex
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ddpm_jax.builders import sampling as build_sampling
from ddpm_jax.config import command_line, modes, prompts, reading
from ddpm_jax.core import errors, flags
from ddpm_jax.data import images as images_lib
from ddpm_jax.editing import animation as animation_lib
from ddpm_jax.editing import edit, plans
from ddpm_jax.sampling import recipe as recipe_lib
from ddpm_jax.sampling import sampler as sampler_lib

PREVIEW_SECONDS = 0.3  # between two previews, at least
KNOWN_AFTER = 3  # entries after which the time is known: the first one compiles
PROGRAM = ("python", "-m", "ddpm_jax.main")
STEPS, RESPACING = "--config.sampling.steps=", "--config.sampling.respacing="
BATCH = 4  # images made at a time: one size, so that no number of images compiles


class Job(NamedTuple):
    """What is asked for.

    Attributes:
        arguments: of the command line that makes the same.
        config: of that command line.
        recipe: of the images.
        wanted: how many.
        compute: `opened → arrays` that the recipe names; None for none.
        results: where no chain has to make them.
        animation: that the images are the frames of, None for none.
        batch_size: images made at a time.
    """

    arguments: tuple[str, ...]
    config: Any
    recipe: recipe_lib.Recipe
    wanted: int
    compute: Callable[[edit.Opened], Mapping[str, np.ndarray]] | None = None
    results: np.ndarray | None = None
    animation: animation_lib.Animation | None = None
    batch_size: int = BATCH

    @property
    def command(self) -> str:
        """The command line, as it is typed into a shell."""
        return shlex.join((*PROGRAM, *self.arguments))

    @classmethod
    def of(cls, line: tuple[str, ...], plan: plans.Plan) -> "Job":
        """Return the job of an edit.

        Args:
            line: its command line.
            plan: of the edit.
        """
        return cls(
            line,
            plan.config,
            plan.recipe,
            plan.wanted,
            lambda opened: plan.compute(opened)[0],
            plan.results,
        )


class Progress(NamedTuple):
    """How far a job is.

    Attributes:
        done, whole: entries of the paths, of all batches together.
        seconds_left: None until it is known.
        images: as samples are stored, [n, ...]; the estimates of x_0 of those that are
            not made yet, and the results where done is whole.
    """

    done: int
    whole: int
    seconds_left: float | None
    images: np.ndarray

    @property
    def is_finished(self) -> bool:
        """Whether the images are the results."""
        return self.done == self.whole


class Player:
    """A run that makes jobs.

    Attributes:
        opened: the run on its devices.
        workdir: as it was given.
        config: of the run, with the changes of the command line.
        most_seconds: that a job may take.
    """

    def __init__(self, config, saved, workdir: str, *, most_seconds: float = 300.0):
        self.opened = edit.open_run(saved, config)
        self.workdir, self.config = workdir, config
        self.most_seconds = most_seconds
        self._compiling = threading.Lock()
        before = dict(reading.leaves(saved.config.to_dict()))
        self._changed = tuple(
            f"--config.{name}={typed(value)}"
            for name, value in reading.leaves(config.to_dict())
            # None cannot be typed: a respacing says that there are no steps.
            if value not in (before.get(name), None) and name != prompts.FIELD
        )

    @property
    def facts(self):
        """The facts of the run's data."""
        return self.opened.facts

    def understood(self, mode: str, *arguments: str):
        """Return a command line of this run, and its config.

        Args:
            mode: of the command line.
            arguments: its own.

        Raises:
            Refusal: as on the command line.
        """
        given = f"--mode={mode}", f"--workdir={self.workdir}"
        has_steps = any(one.startswith(STEPS) for one in arguments)
        changed = [
            one
            for one in self._changed
            if not (has_steps and one.startswith(RESPACING))  # keep one of the two
        ]
        line = (*given, *changed, *arguments)
        command = command_line.parse(("ddpm-jax", *line), modes.MODES, "")
        return line, command.config

    def play(self, job: Job) -> Iterator[Progress]:
        """Make a job, and yield how far it is, now and then and at the end.

        A job whose iterator is closed ends there.

        Raises:
            Refusal: it takes too long.
        """
        if job.results is not None:
            yield Progress(1, 1, 0.0, job.results)
            return
        if job.animation is not None:
            yield from self._film(job)
            return
        began = time.monotonic()
        with flags.as_program():
            sampler, params = self._sampler(job), self.opened.weights.params
            size = sampler_lib.rounded_batch(
                min(job.batch_size, job.wanted), sampler.mesh
            )
        levels = self.facts.levels
        starts = range(0, job.wanted, size)
        entries = len(job.recipe.whole_path)
        pace, made, told = _Pace(entries * len(starts)), [], 0.0
        for start in starts:
            stop = min(start + size, job.wanted)
            steps = sampler.steps(params, start=start, stop=stop, batch_size=size)
            for step in self._each(steps):
                left = pace.left()
                self._check_time(time.monotonic() - began, left)
                is_last = step.done == step.whole
                if is_last or time.monotonic() - told > PREVIEW_SECONDS:
                    told = time.monotonic()
                    image = step.state if is_last else step.estimate
                    now = images_lib.to_stored(image, levels)
                    shown = np.concatenate([*made, now])
                    yield Progress(pace.done, pace.whole, left, shown)
            made.append(now)

    def warm(self, jobs) -> None:
        """Compile what jobs need, by an entry of each of them."""
        for job in jobs:
            self.first_entry(job)

    def first_entry(self, job: Job) -> None:
        """Make one entry of the path of a job, which compiles its programs."""
        with flags.as_program():
            sampler, params = self._sampler(job), self.opened.weights.params
        size = sampler_lib.rounded_batch(min(job.batch_size, job.wanted), sampler.mesh)
        next(self._each(sampler.steps(params, start=0, stop=1, batch_size=size)))

    def _sampler(self, job):
        trained = self.opened.trained
        return build_sampling.make_sampler(
            job.recipe,
            job.config,
            trained.network,
            trained.mesh,
            weights=self.opened.weights,
            arrays=job.compute(self._for(job)) if job.compute else None,
        )

    def _for(self, job) -> edit.Opened:
        return self.opened._replace(config=job.config)

    def _film(self, job) -> Iterator[Progress]:
        """Yield the last frame that is made, and all of them at the end."""
        began, levels, frames = time.monotonic(), self.facts.levels, []
        making = animation_lib.made(self._for(job), job.animation, 0)
        pace = _Pace(job.wanted)
        while len(frames) < job.wanted:
            with flags.as_program():
                frames.append(images_lib.to_stored(next(making), levels))
            left = pace.left()
            self._check_time(time.monotonic() - began, left)
            if pace.done < pace.whole:
                yield Progress(pace.done, pace.whole, left, frames[-1])
        yield Progress(pace.done, pace.whole, 0.0, np.stack(frames))

    def _each(self, steps) -> Iterator[sampler_lib.Step]:
        """Yield steps; the thread that asks for the next one may be another."""
        first = True
        while True:
            with flags.as_program():
                if first:
                    with self._compiling:  # the same program is compiled once
                        step = next(steps, None)
                else:
                    step = next(steps, None)
            if step is None:
                return
            first = False
            yield step

    def _check_time(self, taken, left):
        longest = self.most_seconds
        if taken > longest or (left is not None and taken + left > longest):
            whole = taken + (left or 0)
            raise errors.Refusal(
                f"that takes about {whole:.0f} s here, and a request may take "
                f"{longest:.0f} s: ask for fewer steps or images, or give the command "
                "below in a terminal"
            )


class _Pace:
    """Counts entries, and tells how long the rest takes."""

    def __init__(self, whole: int):
        self.done, self.whole, self._known = 0, whole, None

    def left(self) -> float | None:
        """Return the seconds left after one more entry, None where not known yet."""
        self.done += 1
        now = time.monotonic()
        if self.done == KNOWN_AFTER:
            self._known = now
        if self._known is None or self.done <= KNOWN_AFTER:
            return None
        each = (now - self._known) / (self.done - KNOWN_AFTER)
        return each * (self.whole - self.done)


def typed(value) -> str:
    """Return a value of a config field as it is typed on a command line."""
    if isinstance(value, list | tuple):
        return ",".join(map(typed, value))
    return str(value)
