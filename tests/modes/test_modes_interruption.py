"""Ctrl-C while training, in this process and in one of its own."""

import os
import re
import signal
import subprocess
import sys

import pytest
from small_runs import (
    ROOT,
    STEPS,
    TINY,
    Told,
    assert_same_bits,
    checkpoints,
    metrics,
    state_of,
)

from ddpm_jax.runtime import rundir


def test_a_stopped_run_goes_on_to_the_same_bits(first_run, tmp_path, tell, interrupted):
    arguments = [
        *TINY,
        f"--workdir={tmp_path / 'run'}",
        f"--config.train.steps={STEPS}",
        "--config.train.log_every=1",
    ]
    # The first line about a step is written while later steps are under way.
    told = interrupted(rundir.RunDir, "append_metrics", lambda: tell(*arguments))
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


def start(*arguments, log_steps, **options):
    """Start a training process and return it once it has told of its first step."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ddpm_jax.main", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        **options,
    )
    said = []
    for line in process.stdout:
        said.append(line)
        if line.startswith("step "):
            log_steps -= 1
            if not log_steps:
                return process, said
    raise AssertionError("".join(said))


def finish(process, said):
    said += process.stdout.readlines()
    return Told(process.wait(timeout=120), "".join(said), "")


def test_control_c_in_a_terminal_saves_and_the_run_goes_on(first_run, tmp_path, tell):
    process, said = start(
        *TINY,
        f"--workdir={tmp_path / 'run'}",
        "--config.train.steps=100000",
        "--config.train.checkpoint_every=100000",
        log_steps=1,
    )
    process.send_signal(signal.SIGINT)
    told = finish(process, said)
    assert told.status == 0, told.out
    assert "Traceback" not in told.out
    stopped = int(re.search(r"stopped by SIGINT at step (\d+)", told.out)[1])
    assert f"--workdir={tmp_path}/run" in told.lines[-1]
    assert checkpoints(tmp_path / "run") == [f"{stopped}", f"{stopped}.sha256.json"]

    steps = f"--config.train.steps={stopped + 3}"
    assert f"resumed at step {stopped}" in tell(f"--workdir={tmp_path}/run", steps).out
    assert tell(*TINY, f"--workdir={tmp_path}/whole", steps).status == 0
    assert_same_bits(state_of(tmp_path / "run"), state_of(tmp_path / "whole"))


@pytest.mark.slow
def test_a_killed_process_loses_only_what_was_not_saved(first_run, tmp_path, tell):
    process, said = start(
        *TINY,
        f"--workdir={tmp_path / 'run'}",
        "--config.train.steps=100000",
        "--config.train.checkpoint_every=10",
        log_steps=20,
    )
    os.kill(process.pid, signal.SIGKILL)
    assert finish(process, said).status == -signal.SIGKILL
    published = (tmp_path / "run" / "checkpoints").glob("*.sha256.json")
    newest = max(int(path.name.partition(".")[0]) for path in published)
    assert newest % 10 == 0
    told = tell(f"--workdir={tmp_path / 'run'}", f"--config.train.steps={newest + 2}")
    assert f"resumed at step {newest}" in told.out
    steps = [record["step"] for record in metrics(tmp_path / "run")]
    assert steps == sorted(set(steps))


@pytest.mark.slow
def test_a_schedulers_request_is_a_request_too(first_run, tmp_path):
    process, said = start(
        *TINY,
        f"--workdir={tmp_path / 'run'}",
        "--config.train.steps=100000",
        log_steps=1,
    )
    process.send_signal(signal.SIGTERM)
    told = finish(process, said)
    assert told.status == 0
    assert "stopped by SIGTERM" in told.out
