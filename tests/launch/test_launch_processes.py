"""The launchers with real processes, and with stand-ins for srun and gcloud."""

import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest
from launching import LAUNCH, NASTY, PLACE, STAND_IN, TPU, TRAINING, executable, launch


@pytest.fixture
def start(bare, python):
    """Return a function that starts local.sh with the stand-in; ends it afterwards."""
    running = []

    def run(*options, arguments=()):
        workdir = pathlib.Path(bare["HOME"]) / "a run"
        command = ["bash", LAUNCH / "local.sh", f"--python={python}", *options, "--"]
        process = subprocess.Popen(
            [*command, f"--workdir={workdir}", *arguments],
            env=bare,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        running.append(process)
        return process, pathlib.Path(f"{workdir}.logs")

    yield run
    for process in running:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=20)


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def says(path, text):
    return path.exists() and text in path.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_each_process_once(start, number):
    process, logs = start("--processes=2", arguments=[NASTY])
    log = logs / "process_1.log"
    head, address = process.stdout.readline(), process.stdout.readline()
    wait_for(lambda: says(log, ":"))
    os.killpg(process.pid, number)  # as a terminal does, to the whole group
    said, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert not errors
    assert head.startswith("rank|0|of|2|-m|ddpm_jax.main|--workdir=")
    assert head.rstrip("\n").endswith(NASTY)
    assert re.fullmatch(r"127\.0\.0\.1:\d+\n", address)
    assert said == "told 1\n"  # of process 0 alone
    other = log.read_text().splitlines()
    assert other == [
        head.replace("rank|0", "rank|1").strip(),
        address.strip(),
        "told 1",
    ]


def test_status_143_is_no_failure(start):
    """They still save: a second request would end them without."""
    arguments = ["--status=143", "--ends=0"]
    process, logs = start("--processes=3", "--grace=0", arguments=arguments)
    wait_for(lambda: all(says(logs / f"process_{i}.log", ":") for i in (1, 2)))
    process.terminate()
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 143
    assert not errors
    assert all(says(logs / f"process_{i}.log", "told 1") for i in (1, 2))


def test_one_that_dies_ends_the_others_and_is_named(start):
    process, logs = start("--processes=3", "--grace=0", arguments=["--dies=1"])
    said, errors = process.communicate(timeout=20)
    assert process.returncode == 3
    assert "told 1" in said  # process 0
    assert says(logs / "process_2.log", "told 1")
    assert errors.count("\n") == 1
    assert "process 1 of 3 ended with status 3" in errors
    assert str(logs / "process_1.log") in errors
    again = shlex.split(errors.partition("resume with: ")[2])
    assert again[0] == str(LAUNCH / "local.sh")
    assert again[1:] == [*process.args[2:]]


def test_the_others_may_end_by_themselves(start):
    process, logs = start(
        "--processes=2", "--grace=60", arguments=["--dies=0", "--ends=1"]
    )
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 3
    assert "process 0 of 2 ended with status 3" in errors
    assert not says(logs / "process_1.log", "told")


@pytest.mark.slow
def test_one_that_does_not_listen_is_killed(start):
    arguments = ["--dies=1", "--stubborn"]
    process, _ = start("--processes=2", "--grace=0", arguments=arguments)
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 3
    assert "told" not in said


def test_one_process_is_the_training_itself(start):
    process, logs = start()
    assert process.stdout.readline().startswith("rank|0|of|None|")
    process.terminate()
    said, _ = process.communicate(timeout=20)
    assert "told 1" in said
    assert process.returncode == 0
    assert not logs.exists()


@pytest.mark.parametrize("status", [0, 4])
def test_until_told_keeps_the_status_of_what_ends_by_itself(status, bare):
    assert launch(
        "until_told.sh", "bash", "-c", f"exit {status}", env=bare
    ).returncode == (status)


def test_until_told_tells_saved_from_finished(bare, python):
    process = subprocess.Popen(
        ["bash", LAUNCH / "until_told.sh", python, NASTY],
        env=bare,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline().rstrip("\n").endswith(NASTY)
    process.stdout.readline()
    process.terminate()
    time.sleep(0.1)
    process.terminate()  # not passed on: it would end the saving
    said, _ = process.communicate(timeout=20)
    assert said == "told 1\n"
    assert process.returncode == 128 + signal.SIGTERM


@pytest.mark.parametrize(("status", "queued"), [(143, True), (0, False), (3, False)])
def test_the_batch_script_queues_again_what_was_told_to_stop(
    status, queued, bare, tmp_path
):
    log = tmp_path / "log"
    record = f"""#!{sys.executable} -S
import json, sys, os
with open({str(log)!r}, "a") as file:
    print(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]), file=file)
"""
    executable(tmp_path / "bin" / "srun", f"{record}sys.exit({status})")
    executable(tmp_path / "bin" / "scontrol", record)
    env = {**bare, "SLURM_JOB_ID": "17", "SLURM_CPUS_PER_TASK": "8"}
    result = launch("slurm.sbatch", "/u.sh", "/my logs", *TRAINING, NASTY, env=env)
    assert result.returncode == status
    step, *rest = map(json.loads, log.read_text().splitlines())
    assert step[0] == "srun"
    assert "--cpus-per-task=8" in step
    assert "--output=/my logs/process_%t.log" in step
    assert step[-5:] == ["/u.sh", *TRAINING, NASTY]
    assert rest == [["scontrol", "requeue", "17"]] * queued


GCLOUD = f"""#!{sys.executable} -S
import os, pathlib, subprocess, sys
home = pathlib.Path.home()
words = sys.argv[1:]
with open(home / "gcloud.log", "a") as file:
    print(words[2] + " " + words[3], file=file)
if "describe" in words:
    states = (home / "states").read_text().split()
    (home / "states").write_text(" ".join(states[1:] or states))
    if states[0] == "NOT_FOUND":
        sys.exit("ERROR: NOT_FOUND: Resource t was not found")
    print(states[0])
if "ssh" in words and "apt-get" not in words[-1] and "astral" not in words[-1]:
    script = words[-1].removeprefix("--command=").replace("/dev/shm", str(home))
    sys.exit(subprocess.run(["bash", "-c", script]).returncode)
"""


@pytest.fixture
def cloud(bare, tmp_path):
    """Return the environment with a stand-in for gcloud: this machine is the worker."""
    tools = tmp_path / "bin"
    executable(tools / "gcloud", GCLOUD)
    for name in ("tar", "mountpoint"):
        executable(tools / name, "#!/usr/bin/env bash\n")
    (tools / "sleep").unlink()  # which shortens the 30 seconds between two looks
    executable(
        tools / "sleep", f"#!/usr/bin/env bash\nexec {shutil.which('sleep')} 0.1"
    )
    (tmp_path / "ddpm_jax" / "source").mkdir(parents=True)
    (tmp_path / "ddpm_jax" / "venv" / "bin").mkdir(parents=True)
    executable(tmp_path / "ddpm_jax" / "venv" / "bin" / "python", STAND_IN)
    return bare


def test_a_training_is_started_watched_and_stopped(cloud, tmp_path):
    (tmp_path / "states").write_text("ACTIVE")
    given = [*TPU, "--", "--workdir=/mnt/runs/r", NASTY]
    assert launch("tpu_vm.sh", "start", *given, env=cloud).returncode == 0
    log = tmp_path / "ddpm_jax" / "log"
    try:
        wait_for(lambda: says(log, "None"))
        twice = launch("tpu_vm.sh", "start", *given, env=cloud)
        status = launch("tpu_vm.sh", "status", *TPU, env=cloud)
    finally:
        stopped = launch("tpu_vm.sh", "stop", *TPU, env=cloud)
    assert log.read_text().splitlines()[0].endswith(NASTY)
    assert twice.returncode == 1
    assert "it trains already" in twice.stderr
    assert status.stdout.startswith("ACTIVE\n")
    assert ": trains; " in status.stdout
    assert stopped.returncode == 0
    assert stopped.stdout.endswith("told 1\n")
    assert ": ended; " in launch("tpu_vm.sh", "status", *TPU, env=cloud).stdout


@pytest.mark.parametrize(
    ("states", "calls"),
    [
        ("ACTIVE", []),
        ("WAITING_FOR_RESOURCES PROVISIONING ACTIVE", []),
        ("SUSPENDED PROVISIONING ACTIVE", ["delete", "create"]),
        ("NOT_FOUND ACTIVE", ["create"]),
    ],
)
def test_resuming_creates_what_is_gone(states, calls, cloud, tmp_path):
    (tmp_path / "states").write_text(states)
    given = [*TPU, *PLACE, "--", "--workdir=/mnt/runs/r", "--ends=0"]
    result = launch("tpu_vm.sh", "resume", *given, env=cloud)
    assert result.returncode == 0, result.stderr
    done = [line.split() for line in (tmp_path / "gcloud.log").read_text().splitlines()]
    assert [
        verb for kind, verb in done if kind == "queued-resources" and verb != "describe"
    ] == calls
    assert [verb for kind, verb in done if kind == "tpu-vm"] == ["scp", *["ssh"] * 3]


def test_a_request_that_failed_is_not_waited_for(cloud, tmp_path):
    (tmp_path / "states").write_text("WAITING_FOR_RESOURCES FAILED")
    result = launch("tpu_vm.sh", "create", *TPU, *PLACE, env=cloud)
    assert result.returncode == 1
    assert "t is FAILED" in result.stderr
