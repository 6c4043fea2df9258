"""The training loop: step, log, save, evaluate, until the end or a request to stop.

Every process of a job runs it alike. What they must agree on (when to stop, when to
roll back) is decided by values that all of them see at the same step.
"""

import contextlib
from collections.abc import Callable, Sequence

import jax

from ddpm_jax.core import errors
from ddpm_jax.data import pipeline
from ddpm_jax.runs import best as best_lib
from ddpm_jax.runs import checkpoints as checkpoints_lib
from ddpm_jax.runs import goodput, metric_writers
from ddpm_jax.runs import place as place_lib
from ddpm_jax.runtime import distributed, hang_watch
from ddpm_jax.runtime.cluster import preemption
from ddpm_jax.runtime.console import say
from ddpm_jax.training import nonfinite, progress
from ddpm_jax.training import state as state_lib

REPORTED = (errors.Refusal, OSError, jax.errors.JaxRuntimeError)
LATE = 2  # steps by which a job of several processes stops later: all must know


def is_due(done: int, every: int) -> bool:
    """Return whether an interval ends after `done` steps; 0 means never."""
    return every > 0 and done % every == 0


def run(  # noqa: PLR0912, PLR0915 - the story of a run, in order
    state: state_lib.TrainState,
    batches: pipeline.Prefetcher,
    take_step: jax.stages.Compiled,
    *,
    done: int,
    last_step: int,
    log_every: int,
    checkpoint_every: int,
    max_bad_steps: int,
    parts_due: Callable[[int], Sequence[str]],
    overdue: Sequence[str],
    monitor: Callable[..., best_lib.Best | None],
    report: Callable[..., None],
    report_bad_step: Callable[[nonfinite.NonFiniteStep, state_lib.TrainState], None],
    roll_back: Callable[[], tuple[state_lib.TrainState, int]],
    batches_from: Callable[[int], pipeline.Prefetcher],
    new_progress: Callable[..., progress.Progress],
    checkpoints: checkpoints_lib.Checkpoints,
    writer: metric_writers.Writer,
    place: place_lib.Place,
    stop: preemption.StopRequest,
    ledger: goodput.Ledger,
) -> tuple[int, bool]:
    """Train; return after which step the loop ended and whether training is finished.

    The order within a step is what makes a resume exact: the batch of step n is used
    once, then the state after n+1 steps may be saved, and only then is it evaluated.

    Args:
        state: after `done` steps; donated.
        batches: from step `done` on.
        take_step: `(state, batch) → (state, metrics)`.
        done, last_step: steps taken so far, and to take in all.
        log_every, checkpoint_every: intervals in steps.
        max_bad_steps: non-finite steps in a row that are too many.
        parts_due: `done → names` of the parts of the monitor that are due.
        overdue: names of parts to begin with: a stop came before them.
        monitor: `(state, done, parts, best) → best`: evaluates the state; the new best
            step, if it is.
        report: `(status, reason=…)`: writes the report.
        report_bad_step: called with every step whose update was skipped.
        roll_back: `() → (state, done)`, the last good state with new draws ahead of it.
        batches_from: `done → batches` from that step on.
        new_progress: `(first_step=…) → Progress`.
        checkpoints, writer, place: of the run.
        stop: requests to stop.
        ledger: where the time goes.

    Raises:
        Refusal: too many steps in a row were not finite, or something failed.
    """

    # ---- what happens in several places of the loop ----

    def begin():
        rolled_back = int(state.draw_epoch) > 0
        bad = nonfinite.NonFiniteSteps(max_bad_steps, rolled_back=rolled_back)
        ledger.begin(done)
        return checkpoints.best(), new_progress(first_step=done), bad

    @contextlib.contextmanager
    def saved_on_failure(*, is_saved=False):
        """Save the state if data, writing or evaluation fails: no step taken is lost.

        Nothing is added where the save of this step is under way and the run was not
        renamed meanwhile. Only a lone process saves: others would not know of it.
        """
        try:
            yield
        except Exception:
            if (
                distributed.count() == 1
                and not (is_saved and place.moved_to() is None)
                and done not in (0, checkpoints.latest_step())
            ):
                checkpoints.save(done, state)
            place.check()  # what tells more than the file that is missing
            raise

    def save():
        with ledger.spending(goodput.SAVING):
            checkpoints.save(done, state)

    def report_bad(bad_steps):
        for step in bad_steps:
            report_bad_step(step, state)

    def log(records):
        ledger.note(done, batches.wait_seconds)
        for record in records:
            writer.write(record)
            say(progress.line(record, last_step))
        report("running")

    def evaluate(parts, *, is_saved):
        nonlocal best
        watchdog.rest()  # it may take an hour without being a hang
        looking = ledger.spending(goodput.LOOKING)
        with saved_on_failure(is_saved=is_saved), looking:
            new_best = monitor(state, done, parts, best)
        if new_best:
            if not is_saved:
                save()
            checkpoints.keep_best(new_best)
            best = new_best
        steps.pause()
        watchdog.beat(f"preparing step {done + 1}")

    def ended(is_finished):
        ledger.note(done)  # the last report waits for the last save, see `last_report`
        return done, is_finished

    with (
        _reported_on_failure(report),
        hang_watch.HangWatchdog() as watchdog,
        contextlib.ExitStack() as opened,
    ):
        best, steps, bad = begin()
        if overdue:
            evaluate(overdue, is_saved=True)
            if stop.agreed():
                return ended(is_finished=False)
        while done < last_step:
            # ---- one step ----
            with saved_on_failure():
                _, batch = next(batches)
            watchdog.beat(f"taking step {done + 1}")
            state, metrics = take_step(state, batch)
            steps.add(metrics)
            done += 1
            report_bad(bad.add(done, metrics))
            with saved_on_failure():
                place.check()
            checkpoints.poll()  # errors of the save under way come out here

            # ---- what is due after it ----
            stopping = stop.agreed(late=LATE)
            ends = stopping or done >= last_step
            saves = ends or is_due(done, checkpoint_every)
            parts = parts_due(done)
            if saves or parts:  # first hear of every bad step so far
                report_bad(bad.drain())

            # ---- too many steps were not finite ----
            if bad.verdict != nonfinite.GO_ON:
                for record in steps.flush(done, batches.wait_seconds):
                    writer.write(record)
                if bad.verdict == nonfinite.STOP:
                    raise bad.refusal()
                watchdog.rest()
                ledger.note(done, batches.wait_seconds)
                rolled_back_from = done
                state = None  # its memory is needed for the checkpoint
                state, done = roll_back()
                writer.restart(done)
                writer.write({"step": done, "went_back_from": rolled_back_from})
                batches = opened.enter_context(batches_from(done))
                best, steps, bad = begin()
                watchdog.beat(f"preparing step {done + 1}")
                continue

            # ---- log, save, evaluate ----
            with saved_on_failure():
                if saves or parts:
                    log(steps.flush(done, batches.wait_seconds))
                elif is_due(done, log_every):
                    # Of the interval before: this one's numbers are still computed.
                    record = steps.turn(done, batches.wait_seconds)
                    log([record] if record else [])
            if saves:
                save()
            if parts and not stopping:
                evaluate(parts, is_saved=saves)
            if parts and stop.agreed():
                # Here, so that what was cut short is made up for at the next start.
                if not saves:
                    save()
                return ended(is_finished=False)
            if stopping:
                break
        return ended(is_finished=done >= last_step)


@contextlib.contextmanager
def _reported_on_failure(report):
    """Write into the report why training ended with an error."""
    try:
        yield
    except REPORTED as error:
        report("stopped", reason=_reason(error))
        raise


def _reason(error):
    return next(iter(str(error).splitlines()), type(error).__name__)


def last_report(
    report: Callable[..., None],
    ledger: goodput.Ledger,
    step: int,
    stopped_by: str | None,
) -> Callable[..., None]:
    """Return what writes the last report once all is saved, for `ExitStack.push`.

    Only then is it known that the run is whole, and what the last save took.

    Args:
        report: as for `run`.
        ledger: where the time went.
        step: steps taken.
        stopped_by: what asked training to stop; None where it is finished.
    """

    def write(kind, error, traceback):
        del kind, traceback
        ledger.ended(step)
        if isinstance(error, REPORTED):
            report("stopped", reason=_reason(error))
        elif error is None and stopped_by is None:
            report("finished")
        elif error is None:
            report("stopped", reason=stopped_by)

    return write
