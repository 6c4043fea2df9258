import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from ddpm_jax.runtime.cluster import preemption

SECOND_SIGNAL = """
import os, signal, sys, time
from ddpm_jax.runtime.cluster import preemption
with preemption.StopRequest() as stop:
    print("ready", flush=True)
    {wait}
    print("not reached", flush=True)
"""
WAITS = {
    "in Python": "while True: time.sleep(0.01)",
    # Python cannot run a handler inside one long call of C, such as a compilation;
    # each signal interrupts one sleep.
    "in C": "import ctypes; c = ctypes.CDLL(None); list(map(c.sleep, [30, 30, 30]))",
}


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_first_signal_is_a_request(name, capfd):
    with preemption.StopRequest() as stop:
        assert not stop.requested
        assert stop.signal_name is None
        os.kill(os.getpid(), getattr(signal, name))
        wait_for(lambda: stop.requested)
        assert stop.signal_name == name
        assert stop.is_preemption == (name == "SIGTERM")
    assert f"{name}: stopping after saving" in capfd.readouterr().err


def test_one_process_agrees_with_itself():
    with preemption.StopRequest() as stop:
        assert [stop.agreed(late=3) for _ in range(5)] == [False] * 5
        os.kill(os.getpid(), signal.SIGTERM)
        wait_for(lambda: stop.requested)
        assert stop.agreed(late=3)
        assert stop.agreed()


def test_handlers_and_wakeup_are_restored():
    seen = []
    old = signal.signal(signal.SIGTERM, lambda *_: seen.append("old"))
    before = signal.getsignal(signal.SIGINT)
    try:
        with preemption.StopRequest() as stop:
            pass
        assert signal.getsignal(signal.SIGINT) is before
        os.kill(os.getpid(), signal.SIGTERM)
        wait_for(lambda: seen == ["old"])
        assert not stop.requested
        assert signal.set_wakeup_fd(-1) == -1
    finally:
        signal.signal(signal.SIGTERM, old)


def test_threads_and_descriptors_do_not_pile_up():
    descriptors = len(os.listdir("/proc/self/fd"))
    threads = threading.active_count()
    for _ in range(5):
        with preemption.StopRequest():
            pass
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert threading.active_count() == threads


def test_other_signals_are_not_counted():
    old = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        with preemption.StopRequest() as stop:
            for _ in range(3):
                os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.1)
            assert not stop.requested
    finally:
        signal.signal(signal.SIGUSR1, old)


def test_other_threads_leave_signals_alone():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def use():
        with preemption.StopRequest() as stop:
            seen.append((stop.requested, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert seen == [(False, before)]


def test_one_request_sent_twice_is_one_request():
    with preemption.StopRequest() as stop:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        wait_for(lambda: stop.requested)
        time.sleep(0.1)  # the process would have ended by now


@pytest.mark.parametrize("where", WAITS)
def test_second_signal_ends_at_once(where):
    process = subprocess.Popen(
        [sys.executable, "-c", SECOND_SIGNAL.format(wait=WAITS[where])],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        time.sleep(preemption.ONE_REQUEST_SECONDS + 0.1)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
    finally:
        process.kill()
    assert process.returncode == 130
    assert out == ""
    assert "SIGTERM: stopping" in err
    assert "SIGINT again: quitting without saving" in err
