"""Training, from top to bottom: data, network, state, the loop, the end."""

import contextlib
import dataclasses
import pathlib
import time

import jax

from ddpm_jax import builders, messages, runs
from ddpm_jax import config as config_lib
from ddpm_jax import observer as observer_lib
from ddpm_jax.builders import own_network
from ddpm_jax.core import errors
from ddpm_jax.data import order as order_lib
from ddpm_jax.data import pipeline
from ddpm_jax.models import network as network_lib
from ddpm_jax.models import own
from ddpm_jax.runtime import (
    checkpoints,
    compilation,
    devices,
    preemption,
    rundir,
    versions,
    writers,
)
from ddpm_jax.runtime import mesh as mesh_lib
from ddpm_jax.runtime.console import say
from ddpm_jax.training import progress


def run(config, workdir, network: network_lib.Network | None = None) -> None:
    """Train, or go on training, the run in `workdir`.

    Args:
        config: the whole config, its values checked.
        workdir: directory of the run.
        network: one of the user's own; None for the one that config.model describes.

    Raises:
        Refusal: anything about the config, the data, the directory or the numbers that
            does not permit to go on.
    """
    started = time.perf_counter()
    runs.check_trained_here(workdir)
    check_microbatches(config)
    writers.check(config.train.writers)
    devices.check()
    compilation.enable_cache()
    dataset = builders.dataset(config, "train")
    facts = builders.DataFacts.of(dataset)
    check_same_run(config, facts, network, workdir)
    order = order_lib.Order(len(dataset), config.train.batch_size, config.seed)
    mesh = builders.mesh(config)
    mesh_lib.check_batch(mesh, config.train.batch_size, "train.batch_size")
    mesh_lib.check_batch(
        mesh,
        config.train.batch_size // config.train.microbatches,
        "train.batch_size / train.microbatches",
    )
    if network is None:
        network = builders.network(config, facts)
    else:
        own_network.check(network, config, facts)
    train_step = builders.train_step(config, facts, network)
    abstract = builders.abstract_state(config, network, mesh)
    observer_lib.check(config, facts)
    is_new = not rundir.RunDir(pathlib.Path(workdir)).config.exists()
    if config.train.init_from and is_new:  # a run that exists needs its source no more
        runs.check_transfer(config, network)

    # Nothing above has written a file: what is refused leaves no trace.
    run_dir = rundir.RunDir.create(workdir)
    say(f"run directory {run_dir.path}")
    say(messages.describe(config, facts, network, mesh))
    with (
        run_dir.lock(),
        preemption.StopRequest() as stop,
        checkpoints.Checkpoints(
            run_dir.checkpoints, keep=config.train.keep_checkpoints
        ) as saved,
    ):
        state, first_step = start_state(config, run_dir, saved, abstract, network, mesh)
        write_config(run_dir, config, facts, network)
        if first_step >= config.train.steps:
            say(f"the run has its {config.train.steps} steps already")
            say(messages.closing(run_dir, network, workdir))
            return
        if stop.requested:
            say(f"stopped by {stop.signal_name} before step {first_step + 1}")
            return
        with (
            writers.open_writers(
                config.train.writers,
                run_dir=run_dir,
                config=config.to_dict(),
                name=run_dir.path.name,
                step=first_step,
            ) as writer,
            # The first batches are prepared while the step compiles.
            pipeline.batches(
                dataset,
                order,
                first_step=first_step,
                flip=config.data.flip,
                seed=config.seed,
                place=placer(config, mesh),
            ) as batches,
        ):
            observer = observer_lib.Observer(
                config,
                facts,
                network,
                mesh,
                dataset=dataset,
                run_dir=run_dir,
                writer=writer,
                should_stop=lambda: stop.requested,
            )
            compiled = compilation.compile_ahead(
                builders.jitted_step(train_step, abstract, mesh),
                abstract,
                builders.abstract_batch(config, facts, mesh),
                what="the train step",
            )
            say(f"first step {time.perf_counter() - started:.1f} s after the start")
            job = Job(writer, saved, compiled, batches, observer, stop)
            last = reported_loop(config.train, job, state, first_step)
    if last < config.train.steps:
        say(f"stopped by {stop.signal_name} at step {last}; everything is saved")
        say(f"go on with: {messages.how_to_go_on(network, workdir)}")
        return
    say(f"finished {last} steps in {progress.duration(time.perf_counter() - started)}")
    say(messages.closing(run_dir, network, workdir))


# ---- the loop ------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Job:
    """What the loop works with."""

    writer: writers.Writer
    saved: checkpoints.Checkpoints
    compiled: jax.stages.Compiled
    batches: pipeline.Prefetcher
    observer: observer_lib.Observer
    stop: preemption.StopRequest


def reported_loop(train, job, state, done) -> int:
    """Run the loop and leave a report that tells how it ended; return its step."""
    try:
        last = loop(train, job, state, done)
    except (errors.Refusal, OSError) as error:
        report(job, "stopped", reason=str(error))
        raise
    if last == train.steps:
        report(job, "finished")
    else:
        report(job, "stopped", reason=job.stop.signal_name)
    return last


def report(job, status, *, reason="") -> None:
    """Write the report; that it cannot be written is no reason to stop."""
    try:
        job.observer.report(status, reason=reason)
    except OSError as error:
        say(f"{error.filename} cannot be written ({error.strerror})")


def loop(train, job, state, done) -> int:
    """Take steps until train.steps or a request to stop; return the step.

    The order within a step is what makes a resume exact: the batch of step n is used
    once, then the state after n+1 steps may be saved, and only then looked at.
    """
    due = observer_lib.due
    watch = progress.Progress(
        first_step=done, last_step=train.steps, batch_size=train.batch_size
    )

    def log(records):
        for record in records:
            job.writer.write(record)
            say(progress.line(record, train.steps))
        report(job, "running")

    for _, batch in job.batches:
        state, metrics = job.compiled(state, batch)
        watch.add(metrics)
        done += 1
        job.saved.poll()
        ends = done >= train.steps or job.stop.requested
        saves = ends or due(done, train.checkpoint_every)
        looks = observer_lib.looks(train, done)
        with keeping(job, watch, state, done):
            if saves or looks:
                log(watch.flush(done, job.batches.wait_seconds))
            elif due(done, train.log_every):
                log(filter(None, [watch.turn(done, job.batches.wait_seconds)]))
        if saves:
            # The flush above has seen that every step so far is finite.
            job.saved.save(done, state)
        if looks and not job.stop.requested:
            with (
                contextlib.nullcontext() if saves else keeping(job, watch, state, done)
            ):
                best = job.observer.look(state, done, job.saved.best())
            if best:
                if not saves:
                    job.saved.save(done, state)
                job.saved.keep_best(best)
            watch.pause()
        if ends:
            break
    return done


@contextlib.contextmanager
def keeping(job, watch, state, done: int):
    """Save the state if writing or looking fails: that must not cost the steps taken.

    Raises:
        Refusal: a step was not finite; nothing is saved then.
    """
    try:
        yield
    except Exception:
        for _ in watch.flush(done, job.batches.wait_seconds):
            pass  # it refuses what is not finite
        job.saved.save(done, state)
        raise


# ---- before the loop -----------------------------------------------------------------


def check_microbatches(config) -> None:
    """Refuse a batch that cannot be split as asked, before anything is loaded."""
    size, parts = config.train.batch_size, config.train.microbatches
    if size % parts:
        raise errors.Refusal(
            f"train.microbatches={parts} does not divide train.batch_size={size}: "
            f"use {largest_divisor(size, parts)}"
        )


def largest_divisor(number: int, limit: int) -> int:
    """Return the largest divisor of `number` that is at most `limit`."""
    return max(part for part in range(1, limit + 1) if number % part == 0)


def check_same_run(config, facts, network, workdir) -> None:
    """Refuse to go on with a run of another config, network or other data.

    Raises:
        Refusal: names what differs, with both values.
    """
    run_dir = rundir.RunDir(pathlib.Path(workdir))
    if not run_dir.config.exists():
        return
    own.check_note(run_dir.read_config(), network, workdir)
    saved, before = runs.read(run_dir)
    config_lib.check_same_run(saved, config, workdir=workdir)
    if before != facts:
        raise errors.Refusal(
            f"the data of {workdir} has changed: {before.num_examples} examples of "
            f"{before.image_shape} with fingerprint {before.fingerprint} then, "
            f"{facts.num_examples} of {facts.image_shape} with {facts.fingerprint} "
            "now; restore it, or choose another --workdir"
        )


def placer(config, mesh):
    """Return what moves a batch to the devices, without labels nobody reads."""
    names = ("image", "label") if config.model.class_conditional else ("image",)
    return lambda rows: mesh_lib.put_batch(mesh, {name: rows[name] for name in names})


def start_state(config, run_dir, saved, abstract, network, mesh):
    """Return the state to go on from and its step; prints the receipt of a resume."""
    if saved.latest_step() is None:
        return new_state(config, run_dir, abstract, network, mesh), 0
    restored = saved.restore(abstract)
    runs.say_skipped(restored, say)
    if restored.step > config.train.steps:
        raise errors.Refusal(
            f"train.steps={config.train.steps}: the run has taken {restored.step} "
            "steps already; give at least as many"
        )
    moved = run_dir.truncate_metrics_after(restored.step)
    say(messages.receipt(restored, config, moved))
    return restored.state, restored.step


def new_state(config, run_dir, abstract, network, mesh):
    """Return the state of step 0, drawn or taken from another run."""
    damaged = sorted(path.name for path in run_dir.checkpoints.glob("damaged-*"))
    if damaged:
        raise errors.Refusal(
            f"{run_dir.checkpoints} holds no whole checkpoint but "
            f"{', '.join(damaged)}: restore one from a copy, or choose another "
            "--workdir to start again"
        )
    if run_dir.config.exists():
        moved = run_dir.truncate_metrics_after(0)
        say(
            "the run has no checkpoint yet: it starts again at step 0"
            + (f"; {moved} lines moved to metrics.superseded.jsonl" if moved else "")
        )
    say("drawing the initial weights …")
    params = builders.initial_params(config, network, mesh)
    if config.train.init_from:
        params = runs.transfer(config.train.init_from, params, mesh=mesh, say=say)
    return builders.initial_state(config, params, abstract)


def write_config(run_dir, config, facts, network) -> None:
    """Write config.json: the resolved config, the data's facts, the versions.

    A network of the user's own, which the config does not describe, is noted.
    """
    run_dir.write_json(
        run_dir.config,
        {
            "config": config.to_dict(),
            "data": dataclasses.asdict(facts),
            "versions": versions.versions(),
            **own.note(network),
        },
    )
