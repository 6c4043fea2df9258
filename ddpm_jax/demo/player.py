"""A run opened once, and jobs made with it while somebody looks.

A job begins as the command line that is shown beside its result: the config is what
that line says, so that the line makes the same images. Chains are made by the sampler
of all modes, an entry of the path at a time.
"""

import concurrent.futures
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ddpm_jax.builders import sampling as build_sampling
from ddpm_jax.config import command_line, modes, prompts, reading
from ddpm_jax.core import errors, flags
from ddpm_jax.data import images as images_lib
from ddpm_jax.demo import worker as worker_lib
from ddpm_jax.editing import animation as animation_lib
from ddpm_jax.editing import edit, plans
from ddpm_jax.runtime import home
from ddpm_jax.sampling import recipe as recipe_lib
from ddpm_jax.sampling import sampler as sampler_lib

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
            not made yet, and the results where done is whole. None while given pictures
            are encoded, which comes before.
    """

    done: int
    whole: int
    seconds_left: float | None
    images: np.ndarray | None

    @property
    def is_finished(self) -> bool:
        """Whether the images are the results."""
        return self.images is not None and self.done == self.whole


class Player:
    """A run that makes jobs.

    Attributes:
        opened: the run on its devices.
        workdir: of the run, absolute: command lines are typed anywhere.
        config: of the run, with the changes of the command line.
        most_seconds: that a job may take.
    """

    def __init__(self, config, saved, workdir: str, *, most_seconds: float = 300.0):
        self.opened = edit.open_run(saved, config)
        self.config = config
        self.workdir = str(home.expanded(workdir).absolute())
        self.most_seconds = most_seconds
        self._worker = worker_lib.Worker()
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

    def play(self, job: Job) -> Iterator[Progress | None]:
        """Make a job, and yield how far it is, now and then and at the end.

        Jobs are made one after another; None is yielded while a job waits, and while
        its first program is compiled. A job whose iterator is closed ends there.

        Raises:
            Refusal: it takes too long.
        """
        return self._worker.follow(lambda tell: self.make(job, tell))

    def make(self, job: Job, tell: Callable[[Progress], None]) -> Progress:
        """Make a job here and now, and return its results.

        Args:
            job: to be made.
            tell: is told how far it is, after every entry of every chain but the last;
                what it raises ends the job.

        Raises:
            Refusal: it takes too long.
        """
        if job.results is not None:
            return Progress(1, 1, 0.0, job.results)
        watch = _Watch(tell, self.most_seconds)
        make = self._images if job.animation is None else self._frames
        return make(job, watch)

    def close(self) -> None:
        """End what is under way."""
        self._worker.close()

    def warm(self, jobs) -> concurrent.futures.Future:
        """Begin to compile what jobs need, by an entry of each; others wait for it.

        Raises:
            Refusal: settings that the run cannot meet.
        """
        with flags.as_program():
            made_by = [(self._sampler(job), self._size(job)) for job in jobs]

        def work(tell):
            for sampler, size in made_by:
                params = self.opened.weights.params
                next(sampler.steps(params, start=0, stop=1, batch_size=size))
                tell(None)

        return self._worker.begin(work)[0]

    def _images(self, job, watch) -> Progress:
        """Return the results of chains."""
        sampler = self._sampler(job, watch.before)
        size, levels, made = self._size(job), self.facts.levels, []
        starts = range(0, job.wanted, size)
        pace = _Pace(len(job.recipe.whole_path) * len(starts))
        for start in starts:
            stop = min(start + size, job.wanted)
            for step in sampler.steps(
                self.opened.weights.params, start=start, stop=stop, batch_size=size
            ):
                left = pace.left()
                is_last = step.done == step.whole
                image = step.state if is_last else step.estimate
                now = images_lib.to_stored(image, levels)
                shown = np.concatenate([*made, now])
                progress = Progress(pace.done, pace.whole, left, shown)
                if not progress.is_finished:
                    watch.tell(progress)
            made.append(now)
        return progress

    def _frames(self, job, watch) -> Progress:
        """Return the frames of an animation; what is told shows one under way."""
        film, levels = job.animation, self.facts.levels
        batches = -(-film.variants // self._size(job))
        chains = len(film.distinct) * batches
        pace = _Pace(len(job.recipe.whole_path) * chains)

        def on_step(step):
            left = pace.left()
            shown = images_lib.to_stored(step.estimate, levels)
            progress = Progress(pace.done, pace.whole, left, shown)
            if not progress.is_finished:  # what is shown is no frame yet
                watch.tell(progress)

        opened = self.opened._replace(config=job.config, on_step=on_step)
        frames = animation_lib.in_memory(opened, film)
        return Progress(pace.done, pace.whole, 0.0, frames)

    def _size(self, job) -> int:
        """Return how many images are made at a time."""
        many = job.wanted if job.animation is None else job.animation.variants
        mesh = self.opened.trained.mesh
        return sampler_lib.rounded_batch(min(job.batch_size, many), mesh)

    def _sampler(self, job, on_step=None):
        """Return what makes the results; `on_step` is told of chains before them."""
        opened = self.opened._replace(config=job.config, on_step=on_step)
        trained = opened.trained
        return build_sampling.make_sampler(
            job.recipe,
            job.config,
            trained.network,
            trained.mesh,
            weights=opened.weights,
            arrays=job.compute(opened) if job.compute else None,
        )


class _Watch:
    """Ends a job that takes too long, and tells the rest how far it is."""

    def __init__(self, tell, most_seconds: float):
        self._tell, self._longest = tell, most_seconds
        self._began, self._pace = time.monotonic(), None

    def tell(self, now: Progress) -> None:
        """Tell how far a job is.

        Raises:
            Refusal: it takes too long, or will.
        """
        check_time(time.monotonic() - self._began, now.seconds_left, self._longest)
        self._tell(now)

    def before(self, step: sampler_lib.Step) -> None:
        """Tell of an entry of a chain that comes before the results."""
        if step.done == 1:
            self._pace = _Pace(step.whole)
        left = self._pace.left()
        self.tell(Progress(step.done, step.whole, left, None))


def check_time(taken: float, left: float | None, longest: float) -> None:
    """Refuse what takes longer than a request may.

    Args:
        taken: seconds.
        left: seconds, None where not known yet.
        longest: seconds.

    Raises:
        Refusal: it takes too long, or will.
    """
    whole = taken + (left or 0)
    if whole > longest:
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
