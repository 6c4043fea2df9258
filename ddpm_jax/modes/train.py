"""Training, from top to bottom: data, network, state, the loop, the end."""

import contextlib
import functools
import math
import time

import jax
import numpy as np

from ddpm_jax import runtime
from ddpm_jax.builders import captions, class_labels, data_marks, kinds, trained_run
from ddpm_jax.builders import network as build_network
from ddpm_jax.builders import planning as build_planning
from ddpm_jax.builders import step as build_step
from ddpm_jax.builders import training as build_training
from ddpm_jax.config import paths, reading
from ddpm_jax.core import conditions, errors
from ddpm_jax.data import images, inspection, pipeline
from ddpm_jax.data import order as order_lib
from ddpm_jax.diagnosis import leaves
from ddpm_jax.evaluation import monitor
from ddpm_jax.models import custom, functional
from ddpm_jax.runs import checkpoints, directory, goodput, metric_writers, place
from ddpm_jax.runtime import compilation, devices, distributed, sharding, versions
from ddpm_jax.runtime.cluster import preemption, shared_disk
from ddpm_jax.runtime.console import say
from ddpm_jax.training import crash_report, loop, messages, progress

INSPECTED = 64  # images, before the first step


def run(  # noqa: PLR0915 - the story of a training run, in order
    config, workdir, network: functional.Network | None = None
) -> int:
    """Train, or go on training, the run in `workdir`; return the exit status.

    Args:
        config: the whole config, its values checked.
        workdir: directory of the run.
        network: one of the user's own; None for the one that config.model describes.

    Raises:
        Refusal: anything about the config, the data, the directory or the numbers that
            does not permit to go on.
    """
    started = time.perf_counter()
    saved_run = trained_run.to_resume(workdir)
    metric_writers.check(config.train.writers)
    devices.split_cpu(config.mesh.cpu_devices)
    devices.check()
    mesh = build_training.mesh(config)
    build_planning.check_batch(config, mesh)
    compilation.enable_cache()
    check_same_run(saved_run, config, network)
    dataset, facts = captions.of_training(config, saved_run)
    marks = data_marks.check(saved_run, facts, dataset)
    order = order_lib.Order(len(dataset), config.train.batch_size, config.seed)
    if network is None:
        network = build_network.network(config, facts)
    else:
        network = build_network.custom_network(network, config, facts)
    train_step = build_step.train_step(config, facts, network)
    abstract = build_training.abstract_state(config, network, mesh)
    monitor.check(config, facts, network, dataset)
    is_new = distributed.from_first(saved_run is None)
    if is_new:  # one that exists no longer needs the runs that its config names
        check_new(config, facts, network)

    # Nothing above has written a file: what is refused leaves no trace.
    run_dir = directory.RunDir.create(workdir)
    shared_disk.check(run_dir.path)
    say(f"run directory {run_dir.path}")
    say_what_is_trained(config, facts, network, mesh, dataset)
    with (
        run_dir.lock(),
        place.Place(run_dir.path) as where,
        preemption.StopRequest() as stop,
        contextlib.ExitStack() as all_saved,
        checkpoints.Checkpoints(
            run_dir.checkpoints,
            keep=config.train.keep_checkpoints,
            keep_every=config.train.keep_every,
        ) as saved,
        build_planning.explaining_memory(config, mesh, abstract),
    ):
        state, first_step = start_state(config, run_dir, saved, abstract, network, mesh)
        write_config(run_dir, config, facts, network, marks)
        overdue = monitor.overdue(config.train, run_dir, first_step)
        if first_step >= config.train.steps and not overdue:
            say(f"the run has taken its {config.train.steps} steps already")
            say(closing(config, run_dir, network, workdir))
            return 0
        every = config.train.checkpoint_every
        saved.check_room(
            abstract,
            saves=math.ceil(config.train.steps / every) - first_step // every,
            best=config.train.evaluate_every > 0,
        )
        if stop.agreed():
            say(f"stopped by {stop.signal_name} before step {first_step + 1}")
            return status_of_stop(config, stop)
        batches_from = local_batches(config, network, dataset, order, mesh)
        with (
            metric_writers.open_writers(
                config.train.writers,
                run_dir=run_dir,
                config=config.to_dict(),
                name=run_dir.path.name,
                step=first_step,
            ) as writer,
            # The first batches are prepared while the step compiles.
            batches_from(first_step) as batches,
        ):
            take_step = compilation.compile_ahead(
                build_step.jitted_step(train_step, abstract, mesh),
                abstract,
                build_step.abstract_batch(config, facts, network, mesh),
                what="the train step",
            )
            evaluate = monitor.make(
                config,
                facts,
                network,
                mesh,
                dataset=dataset,
                run_dir=run_dir,
                writer=writer,
                should_stop=stop.agreed,
            )
            report_bad_step = crash_report.CrashReporter(
                kinds.of(config).reads(network),
                run_dir,
                order,
                dataset,
                command=messages.resume_command(network, workdir),
            )
            new_progress = functools.partial(
                progress.Progress,
                last_step=config.train.steps,
                batch_size=config.train.batch_size,
                **build_planning.speed(config, facts, network, mesh),
            )
            ledger = goodput.Ledger(run_dir, started)
            report = monitor.reporter(run_dir, where)
            say(f"first step {time.perf_counter() - started:.1f} s after the start")
            step, is_finished = loop.run(
                state,
                batches,
                take_step,
                done=first_step,
                last_step=config.train.steps,
                log_every=config.train.log_every,
                checkpoint_every=config.train.checkpoint_every,
                max_bad_steps=config.train.max_bad_steps,
                parts_due=lambda done: monitor.due(config.train, done),
                overdue=overdue,
                monitor=evaluate,
                report=report,
                report_bad_step=report_bad_step,
                roll_back=lambda: roll_back(
                    config, run_dir, saved, abstract, network, mesh
                ),
                batches_from=batches_from,
                new_progress=new_progress,
                checkpoints=saved,
                writer=writer,
                place=where,
                stop=stop,
                ledger=ledger,
            )
            asked = None if is_finished else stop.signal_name
            all_saved.push(loop.last_report(report, ledger, step, asked))
    spent = ledger.sentence()
    if not is_finished:
        say(f"stopped by {stop.signal_name} at step {step}; everything is saved")
        say(f"{spent}\nresume with: {messages.resume_command(network, workdir)}")
        return status_of_stop(config, stop)
    took = progress.duration(time.perf_counter() - started)
    say(f"finished {step} steps in {took}; {spent}")
    say(closing(config, run_dir, network, workdir))
    return 0


# ---- before the loop -----------------------------------------------------------------


def check_same_run(saved, config, network) -> None:
    """Refuse to go on with a run of another config or network.

    Raises:
        Refusal: names what differs, with both values.
    """
    if saved is None:
        return
    workdir = saved.run_dir.path
    custom.check_note(saved.stored, network, workdir)
    reading.check_same_run(saved.config, config, workdir=workdir)


def say_what_is_trained(config, facts, network, mesh, dataset) -> None:
    """Say what is trained on what, and what is odd about the data."""
    say(messages.describe(config, facts, network, mesh, kinds.of(config).noun))
    for line in remarks(dataset):
        say(line)
    if remark := class_labels.remark(facts.class_names):
        say(f"warning: {remark}")
    if found := versions.newer(versions.versions()):
        say(f"warning: {', '.join(found)} is newer than what ddpm_jax is tested with")
    if custom.note(network):
        rescaled = config.diffusion.rescale_timesteps
        for line in leaves.remarks(network, facts.shape, float_timesteps=rescaled):
            say(f"warning: {line}")


def remarks(dataset) -> list[str]:
    """Return what is odd about the pixels of some images, a line each."""
    if not images.is_image(dataset.shape):
        return []
    seen = inspection.inspect_dataset(dataset, limit=INSPECTED)
    found = inspection.remarks(dataset, seen)
    return [f"warning: {remark}; see --mode=data" for remark in found]


def check_new(config, facts, network) -> None:
    """Refuse a new run that the runs which its config names do not fit."""
    kinds.of(config).check_new(config, facts)
    if config.train.init_from:
        trained_run.check_transfer(config, network, facts)


def local_batches(config, network, dataset, order, mesh):
    """Return `first step → Prefetcher` of the rows that this process loads."""
    specs = kinds.of(config).reads(network)
    rows = sharding.process_rows(mesh, config.train.batch_size)

    def place(batch):
        # What the train step does not read stays where it is.
        condition = conditions.selected(specs, batch, dataset.name)
        return sharding.put_batch(mesh, {"image": batch["image"], **condition})

    return lambda step: pipeline.batches(
        dataset,
        order,
        first_step=step,
        flip=config.data.flip,
        seed=config.seed,
        start=rows.start,
        stop=rows.stop,
        place=place,
    )


def start_state(config, run_dir, saved, abstract, network, mesh):
    """Return the state to go on from and its step; prints what was resumed."""
    if saved.latest_step() is None:
        return new_state(config, run_dir, abstract, network, mesh), 0
    restored = saved.restore(abstract)
    trained_run.say_skipped(restored)
    if restored.step > config.train.steps:
        raise errors.Refusal(
            f"train.steps={config.train.steps}: the run has taken {restored.step} "
            "steps already; give at least as many"
        )
    before = saved.numerics(restored.step)
    if before != runtime.NUMERICS:
        say(
            f"checkpoint {restored.step} was written with numerics {before} and this "
            f"version has {runtime.NUMERICS}: the run resumes, equal up to rounding "
            "and not bit for bit"
        )
    moved = run_dir.truncate_metrics_after(restored.step)
    rate = float(build_training.learning_rate(config)(restored.step))
    say(messages.resume_summary(restored, config, moved, rate=rate))
    return restored.state, restored.step


def roll_back(config, run_dir, saved, abstract, network, mesh):
    """Return the last good state, from which every draw is another, and its step."""
    say("rolling back to the last good checkpoint, with new draws of t and noise")
    saved.wait()
    state, step = start_state(config, run_dir, saved, abstract, network, mesh)
    epoch = np.int32(int(state.draw_epoch) + 1)
    placed = jax.device_put(epoch, state.draw_epoch.sharding)
    return state.replace(draw_epoch=placed), step


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
    say("initialising the weights …")
    params = build_training.initial_params(config, network, mesh)
    if config.train.init_from:
        params = trained_run.transfer(config, params, mesh=mesh)
    return build_training.initial_state(config, params, abstract)


def write_config(run_dir, config, facts, network, marks) -> None:
    """Write config.json: the resolved config, the data's facts, the versions.

    A network of the user's own, which the config does not describe, is noted. The marks
    of the data's files lie beside it.
    """
    data_marks.write(run_dir, marks)
    run_dir.write_json(
        run_dir.config,
        {
            "config": paths.absolute(config).to_dict(),
            "data": captions.write(run_dir, facts),
            "versions": versions.versions(),
            **custom.note(network),
        },
    )


# ---- after it ------------------------------------------------------------------------


def closing(config, run_dir, network, workdir) -> str:
    """Return the last lines: where the run is and how to use it."""
    use = kinds.of(config).use(config, workdir)
    return messages.closing(run_dir, network, workdir, use)


def status_of_stop(config, stop: preemption.StopRequest) -> int:
    """Return the exit status of a training that was stopped and is saved.

    A scheduler takes 0 for finished and would not start the job again; a person who
    pressed Ctrl-C is told nothing by another number.
    """
    return config.train.exit_code_on_preemption if stop.is_preemption else 0
