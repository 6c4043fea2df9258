"""The training loop: step, look, save, until the end, a request to stop or bad numbers.

Every process of a job runs it alike. What they must agree on (when to stop, when to go
back) is decided by values that all of them see at the same step.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence

import jax

from ddpm_jax.core import errors
from ddpm_jax.data import pipeline
from ddpm_jax.runs import best as best_lib
from ddpm_jax.runs import checkpoints, goodput, metric_writers
from ddpm_jax.runs import place as place_lib
from ddpm_jax.runtime import distributed, hang_watch
from ddpm_jax.runtime.cluster import preemption
from ddpm_jax.runtime.console import say
from ddpm_jax.training import intervals, nonfinite, progress
from ddpm_jax.training import state as state_lib

LATE = 2  # steps after which a request to stop is met, where several must hear of it
FINISHED, STOPPED, GO_BACK = "finished", "stopped", "go back"


@dataclasses.dataclass(frozen=True)
class Job:
    """What the loop works with.

    Attributes:
        train: config.train.
        writer: gets the records.
        saved: the checkpoints.
        place: the run's directory.
        compiled: `(state, batch) → (state, metrics)`.
        observer: looks at the state and writes the report: `look`, `report`.
        stop: requests to stop.
        batches_from: `step → Prefetcher`.
        go_back: `() → (state, step)`, the last good state with new draws ahead of it.
        note_bad: `(BadStep, state)`, told of every step whose update was left out.
        speed: keyword arguments of `progress.Progress`: the work of an image.
        ledger: where the time goes.
    """

    train: object
    writer: metric_writers.Writer
    saved: checkpoints.Checkpoints
    place: place_lib.Place
    compiled: jax.stages.Compiled
    observer: object
    stop: preemption.StopRequest
    batches_from: Callable[[int], pipeline.Prefetcher]
    go_back: Callable[[], tuple[state_lib.TrainState, int]]
    note_bad: Callable[[nonfinite.BadStep, state_lib.TrainState], None]
    speed: dict
    ledger: goodput.Ledger


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How the loop ended: after which step, and why (one of the words above)."""

    step: int
    why: str


def run(
    job: Job,
    batches: pipeline.Prefetcher,
    state,
    done: int,
    missing: Sequence[str] = (),
) -> Outcome:
    """Run the loop and leave a report that tells how it ended.

    Args:
        job: what to work with.
        batches: from step `done` on.
        state: after `done` steps; donated.
        done: steps taken.
        missing: names of `intervals` to look at first: a stop came before them.

    Raises:
        Refusal: too many steps in a row were not finite, or something failed.
    """
    try:
        outcome = attempt(job, batches, state, done, missing)
        if outcome.why == GO_BACK:
            state, done = job.go_back()
            job.writer.restart(done)
            job.writer.write({"step": done, "went_back_from": outcome.step})
            with job.batches_from(done) as again:
                outcome = attempt(job, again, state, done)
        job.ledger.note(outcome.step)
    except (errors.Refusal, OSError, jax.errors.JaxRuntimeError) as error:
        report(job, "stopped", reason=str(error).splitlines()[0])
        raise
    if outcome.why == FINISHED:
        report(job, "finished")
    else:
        report(job, "stopped", reason=job.stop.signal_name)
    return outcome


def attempt(job, batches, state, done, missing=()) -> Outcome:
    """Run the loop once; it may end because training has to go back."""
    with hang_watch.Watch() as moving:
        return _Loop(job, batches, state, done, moving).run(missing)


def report(job: Job, status: str, *, reason: str = "") -> None:
    """Write the report; that it cannot be written is no reason to stop."""
    if job.place.moved_to():  # it would stand alone under the name of before
        return
    try:
        job.observer.report(status, reason=reason)
    except OSError as error:
        say(f"{error.filename} cannot be written ({error.strerror})")


class _Loop:
    """The state of a loop under way.

    The order within a step is what makes a resume exact: the batch of step n is used
    once, then the state after n+1 steps may be saved, and only then looked at.
    """

    def __init__(self, job, batches, state, done, moving):
        self.job = job
        self.batches = batches
        self.state = state
        self.done = done
        self.moving = moving
        self.best: best_lib.Best | None = job.saved.best()
        self.watch = progress.Progress(
            first_step=done,
            last_step=job.train.steps,
            batch_size=job.train.batch_size,
            **job.speed,
        )
        self.bad = nonfinite.BadSteps(
            job.train.max_bad_steps, rolled_back=int(state.draw_epoch) > 0
        )

    def run(self, missing) -> Outcome:
        """Take steps until train.steps, a request to stop, or too many bad ones."""
        job, train, due = self.job, self.job.train, intervals.due
        job.ledger.begin(self.done)
        if missing and (ended := self.make_up(missing)):
            return ended
        for batch in self.kept_batches():
            self.moving.beat(f"taking step {self.done + 1}")
            self.state, metrics = job.compiled(self.state, batch)
            self.watch.add(metrics)
            self.done += 1
            self.note(self.bad.add(self.done, metrics))
            with self.keeping():
                job.place.check()
            job.saved.poll()
            stopping = job.stop.agreed(late=LATE)
            ends = stopping or self.done >= train.steps
            saves = ends or due(self.done, train.checkpoint_every)
            looks = intervals.looks(train, self.done)
            if saves or looks:
                self.note(self.bad.drain())
            if self.bad.verdict != nonfinite.GO_ON:
                return self.go_back()
            with self.keeping():
                if saves or looks:
                    self.log(self.watch.flush(self.done, self.batches.wait_seconds))
                elif due(self.done, train.log_every):
                    turned = self.watch.turn(self.done, self.batches.wait_seconds)
                    self.log(filter(None, [turned]))
            if saves:
                self.save()
            if looks and not stopping:
                self.look(looks, is_saved=saves)
            if looks and job.stop.agreed():
                # Here, so that what was cut short is made up for at the next start.
                if not saves:
                    self.save()
                return Outcome(self.done, STOPPED)
            if ends:
                break
        return Outcome(self.done, FINISHED if self.done >= train.steps else STOPPED)

    def kept_batches(self):
        """Yield the batches; what ends the data saves the steps taken first."""
        while True:
            with self.keeping():
                try:
                    _, batch = next(self.batches)
                except StopIteration:
                    return
            yield batch

    def make_up(self, missing) -> Outcome | None:
        """Look at what a stop came before; return how the loop ended, if it did."""
        self.look(missing, is_saved=True)
        if self.job.stop.agreed():
            return Outcome(self.done, STOPPED)
        if self.done >= self.job.train.steps:
            return Outcome(self.done, FINISHED)
        return None

    def save(self) -> None:
        """Save the state; what training waits for here is no training."""
        with self.job.ledger.spending(goodput.SAVING):
            self.job.saved.save(self.done, self.state)

    def log(self, records) -> None:
        """Write and print records, and bring the report up to date."""
        self.job.ledger.note(self.done, self.batches.wait_seconds)
        for record in records:
            self.job.writer.write(record)
            say(progress.line(record, self.job.train.steps))
        report(self.job, "running")

    def look(self, parts, *, is_saved: bool) -> None:
        """Make what is due now: grids, validation, evaluation; keep the best step."""
        job = self.job
        self.moving.rest()  # what follows may rightly take an hour
        looking = job.ledger.spending(goodput.LOOKING)
        with self.keeping(is_saved=is_saved), looking:
            best = job.observer.look(self.state, self.done, parts, self.best)
        if best:
            if not is_saved:
                self.save()
            job.saved.keep_best(best)
            self.best = best
        self.watch.pause()

    def note(self, bad_steps) -> None:
        """Tell of steps whose update was left out."""
        for bad in bad_steps:
            self.job.note_bad(bad, self.state)

    def go_back(self) -> Outcome:
        """Return that training goes back, or refuse if it did so before.

        Raises:
            Refusal: it did.
        """
        for record in self.watch.flush(self.done, self.batches.wait_seconds):
            self.job.writer.write(record)
        if self.bad.verdict == nonfinite.ROLL_BACK:
            return Outcome(self.done, GO_BACK)
        raise self.bad.refusal()

    @contextlib.contextmanager
    def keeping(self, *, is_saved: bool = False):
        """Save the state if data, writing or looking fails: no step taken is lost.

        One process can do so alone; of several the others would not know.

        Args:
            is_saved: whether the last step's save is under way, which is as good,
                unless the run was renamed meanwhile.
        """
        try:
            yield
        except Exception:
            saved, place = self.job.saved, self.job.place
            if (
                distributed.count() == 1
                and not (is_saved and place.moved_to() is None)
                and self.done not in (0, saved.latest_step())
            ):
                saved.save(self.done, self.state)
            place.check()  # what tells more than the file that is missing
            raise
