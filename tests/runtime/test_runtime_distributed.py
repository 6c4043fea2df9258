import json
import signal
import time

import pytest
import several_processes

from ddpm_jax.core import errors
from ddpm_jax.runtime import console, distributed
from ddpm_jax.runtime.cluster import launch as launch_lib

START = """
import json, os, signal, sys, time
from ddpm_jax.core import errors
from ddpm_jax.runtime import console, distributed
from ddpm_jax.runtime.cluster import launch as launches, preemption
port, process, count = map(int, sys.argv[1:4])
launch = launches.Launch(f"127.0.0.1:{port}", count, process, "the test")
betas = repr(tuple(range(100_000)))  # as a config may hold
distributed.start(launch, {"config": "c0ffee", "betas": betas}, timeout=30)
"""
AGREE = (
    START
    + """
import jax
import numpy as np
told = {
    "who": [distributed.is_first(), distributed.index(), distributed.count()],
    "jax": [jax.process_index(), jax.process_count(), jax.device_count()],
    "all": distributed.all_values({"who": process, "long": "β" * process * 1000}),
    "first": distributed.from_first([process, None, "é"]),
}
told["arrays"] = distributed.arrays_from_first({"kernel": np.full(3, process)})[
    "kernel"
].tolist()
distributed.check_alike({"images": 5}, "copy the data")
try:
    distributed.check_alike({"images": 5 + process, "classes": 1}, "copy the data")
except errors.Refusal as refusal:
    told["alike"] = str(refusal)

def send(number):
    os.kill(os.getpid(), number)
    while not stop.requested:
        time.sleep(0.01)

for late in (0, 2):
    with preemption.StopRequest() as stop:
        answers = []
        for call in range(6):
            if call == 2 and process == 1:
                send(signal.SIGTERM)
            if call == 3 and process == 0 and late:
                send(signal.SIGINT)
            answers.append(stop.agreed(late))
        told[f"agreed {late}"] = [answers, stop.requested, stop.signal_name]
console.say("said")
console.say_error("told")
distributed.barrier("the end")
distributed.finish()
told["after"] = [distributed.count(), distributed.from_first(process)]
print(json.dumps(told))
"""
)
LOST = (
    START
    + """
distributed.barrier("the start")
print("ready", flush=True)
if process == 1:
    time.sleep(60)
distributed.barrier("that process 1 never comes to")
"""
)
FAILED = (
    START
    + """
if process == 1:
    raise RuntimeError("a defect")
distributed.barrier("that process 1 never comes to")
"""
)


def test_two_processes_agree():
    with several_processes.running(AGREE, 2) as processes:
        results = several_processes.results(processes)
    assert [status for status, _, _ in results] == [0, 0], results
    lines = [out.splitlines() for _, out, _ in results]
    said = ["said" in line for line in lines]
    assert said == [True, False]
    assert "told" in results[0][2].splitlines()
    assert "process 1: told" in results[1][2].splitlines()
    first, second = (json.loads(line[-1]) for line in lines)
    assert first.pop("who") == [True, 0, 2]
    assert second.pop("who") == [False, 1, 2]
    assert first.pop("jax") == [0, 2, 4]
    assert second.pop("jax") == [1, 2, 4]
    assert (first.pop("after"), second.pop("after")) == ([1, 0], [1, 1])
    assert first == second
    assert first["all"] == [
        {"who": 0, "long": ""},
        {"who": 1, "long": "β" * 1000},
    ]
    assert first["first"] == [0, None, "é"]
    assert first["arrays"] == [0, 0, 0]
    assert first["alike"].startswith("process 1 (")
    assert first["alike"].endswith(") has images 6, process 0 has 5: copy the data")
    # Asked at call 2, known at once; or, late, the SIGTERM of call 2 at call 4.
    assert first["agreed 0"] == [[False] * 2 + [True] * 4, True, "SIGTERM"]
    assert first["agreed 2"] == [[False] * 4 + [True] * 2, True, "SIGTERM"]


def test_a_lost_process_ends_the_other():
    with several_processes.running(LOST, 2) as processes:
        for process in processes:
            while process.stdout.readline() != "ready\n":
                assert process.poll() is None
        started = time.monotonic()
        processes[1].send_signal(signal.SIGKILL)
        (status, _, err), _ = several_processes.results(processes)
    assert status == 1
    assert "has ended without finishing" in err
    assert "same command" in err
    # JAX's own heartbeat takes 100 s.
    assert time.monotonic() - started < 30


def test_a_defect_of_one_process_ends_all():
    with several_processes.running(FAILED, 2) as processes:
        (status, _, err), (own_status, _, own_err) = several_processes.results(
            processes
        )
    assert (status, own_status) == (1, 1)
    assert "process 1 (" in err
    assert "it ended early" in err
    assert "RuntimeError: a defect" in own_err


# ---- one process ---------------------------------------------------------------------


def test_one_process_is_by_itself():
    assert distributed.is_first()
    assert (distributed.index(), distributed.count()) == (0, 1)
    assert distributed.from_first({"a": (1, 2)}) == {"a": [1, 2]}  # as among several
    assert distributed.all_values("é") == ["é"]
    distributed.check_alike({"images": 5}, "copy the data")
    distributed.barrier("nobody else")
    distributed.finish()
    distributed.finish("an error")
    distributed.check_single("--mode=convert", None)


def test_work_of_one_process_is_refused_to_several():
    launch = launch_lib.Launch("10.0.0.3:8482", 4, 1, "Slurm")
    with pytest.raises(errors.Refusal) as refusal:
        distributed.check_single("--mode=convert", launch)
    assert str(refusal.value).startswith(
        "--mode=convert runs in one process, and 4 were started (Slurm): start it on "
        "one host"
    )


def test_lines_of_other_processes(capfd):
    console.silence(2)
    try:
        console.say("said")
        console.say_error("told")
        console.say_at_once("told at once")
    finally:
        console.silence(0)
    out, err = capfd.readouterr()
    assert out == ""
    assert err == "process 2: told\n\nprocess 2: told at once\n"
    console.say("said")
    console.say_error("told")
    assert capfd.readouterr() == ("said\n", "told\n")
