"""Training arms and measuring them, until all that claims need is stored."""

import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from benchmarks.claims import (
    arms,
    claim,
    measures,
    points,
    quality,
    store,
    training,
)
from ddpm_jax.builders import trained_run
from ddpm_jax.runtime.console import say

GUIDED, CLASSIFIER = "hybrid", "classifier"


class Job(NamedTuple):
    """A run and what is measured on it, in one go.

    Attributes:
        arm, seed: of the run.
        measures: on it.
        serves: measurements of another run that it is trained for.
    """

    arm: str
    seed: int
    measures: tuple[str, ...]
    serves: tuple[str, ...] = ()


def jobs(claims: Sequence[claim.Claim]) -> list[Job]:
    """Return what claims need, in the order of `arms.ARMS`, all seeds of an arm first.

    What a classifier guides comes after the classifier.

    Args:
        claims: to be tested.
    """
    needs = frozenset().union(*(one.needs for one in claims))
    wanted = {arm: [m for a, m in needs if a == arm] for arm in arms.ARMS}
    led = [m for m in wanted[GUIDED] if measures.MEASURES[m].take is measures.guided]
    found = []
    for arm in arms.ARMS:
        own = sorted(set(wanted[arm]) - (set(led) if arm == GUIDED else set()))
        seeds = arms.ARMS[arm].seeds
        if arm == CLASSIFIER and led:
            led = tuple(sorted(led))
            found += [Job(arm, seed, (), serves=led) for seed in seeds]
            found += [Job(GUIDED, seed, led) for seed in seeds]
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
        self._judges = {}
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
        if not job.serves:
            return not self.missing(job)
        served = Job(GUIDED, job.seed, job.serves)
        folder = arms.run_folder(self._workdir, job.arm, job.seed)
        trained = self._store.read(job.arm, job.seed) is not None and folder.exists()
        return trained or not self.missing(served)

    def do(self, job: Job, *, ends: float | None = None) -> None:
        """Train if need be, and measure what is missing.

        Args:
            job: what to do.
            ends: see `training.Trainer.train`.

        Raises:
            Refusal: numbers of another config are stored.
            NoTimeLeft: the training would take too long.
        """
        say(f"{job.arm}, seed {job.seed}: {', '.join(job.measures) or 'training'}")
        if arms.ARMS[job.arm].data == "plane":
            for name in self.missing(job):
                self._take(job, {}, name, job.seed)
            return
        config = arms.config(job.arm, job.seed, self._workdir, fast=self._fast)
        record = arms.record(config)
        self._store.check_config(job.arm, job.seed, record)
        folder = arms.run_folder(self._workdir, job.arm, job.seed)
        self._train(job, config, record, folder, ends)
        left = self.missing(job)
        if not left:
            return
        trained = trained_run.open_run(folder, network=arms.own_network(config))
        classifier = arms.run_folder(self._workdir, CLASSIFIER, job.seed)
        judge = self._judge(job.arm, trained.mesh)
        subject = measures.Subject(trained, judge, job.seed, str(classifier))
        for name in left:
            if ends is not None and time.perf_counter() > ends:
                raise training.NoTimeLeft("no time left: give more --minutes")
            self._take(job, record, name, subject)

    def _judge(self, arm, mesh):
        data = arms.ARMS[arm].data
        if data not in self._judges:
            of_points = data == "points"
            self._judges[data] = points.Judge() if of_points else quality.Quality(mesh)
        return self._judges[data]

    def _train(self, job, config, record, folder, ends):
        """Bring a run to its end, and note how long it took."""
        began = time.perf_counter()
        if self._trainer.train(config, record, folder, ends=ends):
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
    """Do jobs in turn, as long as there is time.

    Args:
        runner: does them.
        wanted: jobs.
        minutes: that may be used: a training is left where its first steps say that it
            would take longer, a measurement is begun before the end only. None for no
            end.

    Returns:
        The jobs that are left.
    """
    left = [job for job in wanted if not runner.is_done(job)]
    began, longest = time.perf_counter(), 0.0
    ends = None if minutes is None else began + 60 * minutes
    for number, job in enumerate(left):
        start = time.perf_counter()
        try:
            runner.do(job, ends=ends)
        except training.NoTimeLeft as refusal:
            say(str(refusal))
            say_left(left[number:], longest)
            return left[number:]
        longest = max(longest, time.perf_counter() - start)
    return []


def say_left(left: Sequence[Job], seconds: float) -> None:
    """Say what is left and how long it may take on this machine.

    Args:
        left: jobs.
        seconds: of one job, the longest so far.
    """
    for arm, count in counted(left):
        about = f", at most {count * seconds / 60:.0f} minutes" if seconds else ""
        say(f"  left: {arm}, {count} seeds{about}")


def counted(left: Sequence[Job]) -> Iterator[tuple[str, int]]:
    """Yield each arm of some jobs with the number of its jobs."""
    for arm in dict.fromkeys(job.arm for job in left):
        yield arm, sum(job.arm == arm for job in left)
