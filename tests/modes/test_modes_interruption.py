"""Requests to stop while training, in this process and in one of its own."""

import functools
import re
import signal

import processes
import pytest
from small_runs import (
    STEPS,
    TINY,
    assert_same_bits,
    checkpoints,
    metrics,
    state_of,
)

from ddpm_jax.metrics import bits
from ddpm_jax.runs import directory
from ddpm_jax.runtime import compilation, image_grid


def test_a_stopped_run_goes_on_to_the_same_bits(first_run, tmp_path, tell, interrupted):
    arguments = [
        *TINY,
        f"--workdir={tmp_path / 'run'}",
        f"--config.train.steps={STEPS}",
        "--config.train.log_every=1",
    ]
    # The first line about a step is written while later steps are under way.
    told = interrupted(directory.RunDir, "append_metrics", lambda: tell(*arguments))
    assert told.status == 0
    stopped = int(re.search(r"stopped by SIGINT at step (\d+)", told.out)[1])
    assert 0 < stopped < STEPS
    assert "everything is saved" in told.out
    assert told.lines[-1].endswith(f"python -m ddpm_jax.main --workdir={tmp_path}/run")
    assert str(stopped) in checkpoints(tmp_path / "run")

    again = tell(f"--workdir={tmp_path / 'run'}")
    assert again.status == 0
    assert f"resumed at step {stopped}" in again.out
    assert_same_bits(state_of(tmp_path / "run"), state_of(first_run[0]))
    steps = [record["step"] for record in metrics(tmp_path / "run")]
    assert steps == sorted(set(steps))


def test_a_scheduler_is_told_that_training_is_not_finished(tmp_path, tell, interrupted):
    run = tmp_path / "run"
    more = ["--config.train.log_every=1", f"--config.train.steps={3 * STEPS}"]
    option = "--config.train.exit_code_on_preemption=143"
    for arguments, number, status in (
        ([*TINY, *more, option], signal.SIGINT, 0),  # a person's Ctrl-C
        ([], signal.SIGTERM, 143),
        ([], None, 0),  # finished
    ):
        command = functools.partial(tell, f"--workdir={run}", *arguments)
        if number is None:
            told = command()
        else:
            told = interrupted(directory.RunDir, "append_metrics", command, number)
            name = signal.Signals(number).name
            stopped = re.search(rf"stopped by {name} at step (\d+)", told.out)[1]
            assert f"{stopped}.sha256.json" in checkpoints(run)
        assert told.status == status, told.out + told.err


@pytest.mark.parametrize(
    ("owner", "name", "stopped"),
    [
        pytest.param(bits.Sums, "add", 3, id="in an evaluation"),
        pytest.param(image_grid, "grid", 3, id="in a grid", marks=pytest.mark.slow),
        pytest.param(
            compilation, "compile_ahead", 1, id="compiling", marks=pytest.mark.slow
        ),
    ],
)
def test_a_stop_between_steps(
    owner, name, stopped, first_run, tmp_path, tell, interrupted
):
    arguments = [
        *TINY,
        f"--workdir={tmp_path / 'run'}",
        f"--config.train.steps={STEPS}",
        "--config.train.sample_every=3",
        "--config.train.evaluate_every=3",
    ]
    told = interrupted(owner, name, lambda: tell(*arguments))
    assert told.status == 0, told.err
    # What was due after step 3 and is not there is made up for at the next start.
    assert f"stopped by SIGINT at step {stopped}; everything is saved" in told.out
    again = tell(f"--workdir={tmp_path / 'run'}")
    assert again.status == 0, again.err
    assert f"resumed at step {stopped}" in again.out
    assert_same_bits(state_of(tmp_path / "run"), state_of(first_run[0]))
    scored = [r["step"] for r in metrics(tmp_path / "run") if "test_bits_per_dim" in r]
    assert scored == [3, 6]
    grids = {path.name for path in (tmp_path / "run" / "samples").iterdir()}
    assert grids == {"step_3.png", "step_6.png"}


@pytest.mark.slow
def test_a_stop_in_the_last_evaluation_is_made_up_for(tmp_path, tell, interrupted):
    arguments = [
        *TINY,
        f"--workdir={tmp_path / 'run'}",
        f"--config.train.steps={STEPS}",
        f"--config.train.evaluate_every={STEPS}",
    ]
    told = interrupted(bits.Sums, "add", lambda: tell(*arguments))
    assert told.status == 0, told.err
    assert f"stopped by SIGINT at step {STEPS}; everything is saved" in told.out
    again = tell(f"--workdir={tmp_path / 'run'}")
    assert f"finished {STEPS} steps" in again.out
    records = metrics(tmp_path / "run")
    assert [r["step"] for r in records if "test_bits_per_dim" in r] == [STEPS]
    assert "steps already" in tell(f"--workdir={tmp_path / 'run'}").out


def test_control_c_in_a_terminal_saves_and_the_run_goes_on(first_run, tmp_path, tell):
    run = tmp_path / "run"
    arguments = [*TINY, f"--workdir={run}", "--config.train.checkpoint_every=100000"]
    told = stopped_by(signal.SIGINT, tmp_path / "said", *arguments, devices=8)
    stopped = int(re.search(r"stopped by SIGINT at step (\d+)", told.out)[1])
    assert told.lines[-1].endswith(f"--workdir={run}")
    assert checkpoints(run) == [f"{stopped}", f"{stopped}.sha256.json"]

    steps = f"--config.train.steps={stopped + 3}"
    assert f"resumed at step {stopped}" in tell(f"--workdir={run}", steps).out
    assert tell(*TINY, f"--workdir={tmp_path}/whole", steps).status == 0
    assert_same_bits(state_of(run), state_of(tmp_path / "whole"))


def stopped_by(number, folder, *arguments, after="\nstep ", **options):
    """Start endless training, send it one signal and return what it said."""
    endless = "--config.train.steps=100000"
    with processes.started(folder, *arguments, endless, **options) as (process,):
        process.wait_for_line(after)
        process.running.send_signal(number)
        told = process.finish()
    assert told.status == 0, told.out + told.err
    assert "Traceback" not in told.err
    return told


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment", ["initialising the weights", "compiling the train step", "\nstep "]
)
def test_a_schedulers_request_is_met_at_any_time(moment, tmp_path):
    said, runs = tmp_path / "said", [tmp_path / "run", tmp_path / "whole"]
    arguments = [*TINY, f"--workdir={runs[0]}"]
    told = stopped_by(signal.SIGTERM, said, *arguments, after=moment)
    stopped = re.search(r"stopped by SIGTERM (?:at|before) step (\d+)", told.out)[1]
    steps = f"--config.train.steps={int(stopped) + 3}"
    for run in runs:
        (again,) = processes.told(said, *TINY, f"--workdir={run}", steps)
        assert again.status == 0, again.out + again.err
    assert_same_bits(*map(processes.whole_state, runs))
