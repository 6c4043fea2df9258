"""Training arms and measuring them, until all that claims need is stored."""

import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from benchmarks.claims import arms, claim, measures, quality, store, training
from ddpm_jax.builders import trained_run
from ddpm_jax.core import errors
from ddpm_jax.runtime.console import say

GUIDED, CLASSIFIER = "hybrid", "classifier"


class Job(NamedTuple):
    """A run and what is measured on it, in one go."""

    arm: str
    seed: int
    measures: tuple[str, ...]


def jobs(claims: Sequence[claim.Claim], seeds: Sequence[int]) -> list[Job]:
    """Return what claims need, in the order of `arms.ARMS`, all seeds of an arm first.

    What a classifier guides comes after the classifier.

    Args:
        claims: to be tested.
        seeds: of the runs.
    """
    needs = frozenset().union(*(one.needs for one in claims))
    wanted = {arm: [m for a, m in needs if a == arm] for arm in arms.ARMS}
    led = [m for m in wanted[GUIDED] if measures.MEASURES[m].take is measures.guided]
    found = []
    for arm in arms.ARMS:
        own = sorted(set(wanted[arm]) - set(led))
        if arm == CLASSIFIER and led:
            found += [Job(arm, seed, ()) for seed in seeds]
            found += [Job(GUIDED, seed, tuple(sorted(led))) for seed in seeds]
        elif own or (arm == GUIDED and led):
            found += [Job(arm, seed, tuple(own)) for seed in seeds]
    return found


class Runner:
    """Does jobs, keeping every number as soon as it is there."""

    def __init__(self, kept: store.Store, workdir: pathlib.Path, *, fast: bool = False):
        """Set where numbers and runs lie.

        Args:
            kept: the stored numbers.
            workdir: folder of the runs.
            fast: tiny runs and measurements, which show that everything works.
        """
        self._store = kept
        self._workdir = workdir
        self._fast = fast
        self._judge = None
        self._trainer = training.Trainer()

    def missing(self, job: Job) -> list[str]:
        """Return the measurements of a job that are not stored.

        Raises:
            Refusal: they are stored with other settings.
        """
        return [
            name
            for name in job.measures
            if self._store.values(job.arm, job.seed, name, self._settings(name)) is None
        ]

    def is_done(self, job: Job) -> bool:
        """Return whether a job's numbers are stored, and its run where it is needed."""
        if job.arm != CLASSIFIER:
            return not self.missing(job)
        kept = self._store.read(job.arm, job.seed)
        folder = arms.run_folder(self._workdir, job.arm, job.seed)
        return kept is not None and folder.exists()

    def do(self, job: Job) -> None:
        """Train if need be, and measure what is missing.

        Raises:
            Refusal: numbers of another config are stored.
        """
        say(f"{job.arm}, seed {job.seed}: {', '.join(job.measures) or 'training'}")
        if arms.ARMS[job.arm].is_exact:
            for name in self.missing(job):
                self._take(job, {}, name, job.seed)
            return
        config = arms.config(job.arm, job.seed, self._workdir, fast=self._fast)
        record = arms.record(config)
        self._store.check_config(job.arm, job.seed, record)
        folder = arms.run_folder(self._workdir, job.arm, job.seed)
        self._train(job, config, record, folder)
        left = self.missing(job)
        if not left:
            return
        trained = trained_run.open_run(folder)
        if self._judge is None:
            self._judge = quality.Quality(trained.mesh)
        classifier = arms.run_folder(self._workdir, CLASSIFIER, job.seed)
        subject = measures.Subject(trained, self._judge, job.seed, str(classifier))
        for name in left:
            self._take(job, record, name, subject)

    def _train(self, job, config, record, folder):
        """Bring a run to its end, and note how long it took."""
        began = time.perf_counter()
        if self._trainer.train(config, record, folder):
            seconds = time.perf_counter() - began
            values = {"steps": config.train.steps}
            add = self._store.add
            add(job.arm, job.seed, record, values=values, seconds=seconds)
            say(f"  trained in {seconds:.0f} s")

    def _take(self, job, record, name, subject):
        began = time.perf_counter()
        settings = self._settings(name)
        values = measures.MEASURES[name].take(subject, **settings)
        seconds = time.perf_counter() - began
        self._store.add(
            job.arm,
            job.seed,
            record,
            measure=name,
            settings=settings,
            values=values,
            seconds=seconds,
        )
        numbers = {k: v for k, v in values.items() if not isinstance(v, list)}
        told = ", ".join(f"{k} {v:.4g}" for k, v in numbers.items())
        say(f"  {name}: {told} ({seconds:.0f} s)")

    def _settings(self, name):
        return measures.settings(name, fast=self._fast)


def do_all(runner: Runner, wanted: Sequence[Job], minutes: float | None) -> list[Job]:
    """Do jobs in turn; return those that are left.

    Args:
        runner: does them.
        wanted: jobs.
        minutes: that may be used; a job is begun only where the longest so far would
            still fit. None for no end.

    Raises:
        Refusal: the time does not suffice for the first job.
    """
    left = [job for job in wanted if not runner.is_done(job)]
    began, longest = time.perf_counter(), 0.0
    for number, job in enumerate(left):
        used = time.perf_counter() - began
        if minutes is not None and used + longest > 60 * minutes:
            if number == 0 or minutes <= 0:
                raise errors.Refusal(
                    f"--minutes={minutes:g} leaves no time for a job: give more"
                )
            say(f"{used / 60:.1f} of {minutes:g} minutes are used: stopping here")
            say_left(left[number:], longest)
            return left[number:]
        start = time.perf_counter()
        runner.do(job)
        longest = max(longest, time.perf_counter() - start)
    return []


def say_left(left: Sequence[Job], seconds: float) -> None:
    """Say what is left and how long it may take on this machine.

    Args:
        left: jobs.
        seconds: of one job, the longest so far.
    """
    for arm, count in counted(left):
        minutes = count * seconds / 60
        say(f"  left: {arm}, {count} seeds, at most {minutes:.0f} minutes")


def counted(left: Sequence[Job]) -> Iterator[tuple[str, int]]:
    """Yield each arm of some jobs with the number of its jobs."""
    for arm in dict.fromkeys(job.arm for job in left):
        yield arm, sum(job.arm == arm for job in left)
