import socket
import time

import pytest
import several_processes

from ddpm_jax.runtime.cluster import peers

# Says "ready", and then does what it is told by a line on stdin. The main thread is
# inside one long call of C otherwise, as in a collective operation.
PROGRAM = """
import ctypes, os, signal, sys, threading
from ddpm_jax.runtime import console
from ddpm_jax.runtime.cluster import peers, rendezvous
port, process, count = map(int, sys.argv[1:4])
address = f"127.0.0.1:{port}"
console.silence(process)
if process:
    channels = {0: rendezvous.join(address, process, count, {}, timeout=30)}
else:
    channels = rendezvous.serve(address, count, {}, timeout=30)
line = peers.PeerWatchdog(process, channels)
print("ready", flush=True)
word = sys.stdin.readline().strip()
if word == "die":
    os.kill(os.getpid(), signal.SIGKILL)
if word == "wait":
    ctypes.CDLL(None).sleep(50)
line.leave(word.removeprefix("end"))
print("left")
"""
COUNT = 3


@pytest.fixture
def processes():
    with several_processes.running(PROGRAM, COUNT) as processes:
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        yield processes


def tell(process, word):
    process.stdin.write(f"{word}\n")
    process.stdin.flush()


def sentences(texts):
    """Return the lines that are not empty."""
    return [line for line in texts.splitlines() if line]


def where(process):
    """Return how the others know a process."""
    return "127.0.0.1" if process == 0 else f"{socket.gethostname()}/127.0.0.1"


def marked(process, sentence):
    return f"process {process}: {sentence}" if process else sentence


@pytest.mark.parametrize("lost", [0, 1])
def test_a_killed_process_ends_the_others(processes, lost):
    for index, process in enumerate(processes):
        if index != lost:
            tell(process, "wait")
    time.sleep(0.2)
    started = time.monotonic()
    tell(processes[lost], "die")
    for index, (status, out, err) in enumerate(several_processes.results(processes)):
        if index == lost:
            assert status == -9
            continue
        assert (status, out) == (1, "")
        sentence = (
            f"process {lost} ({where(lost)}) has ended without finishing: this one "
            "ends too; start all of them again with the same command, which goes on "
            "from the last checkpoint"
        )
        assert sentences(err) == [marked(index, sentence)]
    assert time.monotonic() - started < 20  # a sleep of C takes 50


@pytest.mark.parametrize("failed", [0, 2])
def test_a_failure_is_told_to_the_others(processes, failed):
    for index, process in enumerate(processes):
        tell(process, "the disk is full" if index == failed else "wait")
    for index, (status, out, err) in enumerate(several_processes.results(processes)):
        if index == failed:
            assert (status, out, err) == (0, "left\n", "")
        else:
            sentence = f"process {failed} ({where(failed)}) stopped: the disk is full"
            assert (status, out) == (1, "")
            assert sentences(err) == [marked(index, sentence)]


def test_a_failure_of_all_is_told_by_each_itself(processes):
    for process in processes:
        tell(process, "the disk is full")
    assert several_processes.results(processes) == [(0, "left\n", "")] * COUNT


def test_processes_that_end_as_planned_say_nothing(processes):
    for process in reversed(processes):  # process 0 is the last one
        tell(process, "end")
        time.sleep(0.1)
    assert several_processes.results(processes) == [(0, "left\n", "")] * COUNT


def test_process_0_waits_for_the_others_to_end(processes):
    tell(processes[0], "end")
    time.sleep(0.5)
    assert processes[0].poll() is None
    for process in processes[1:]:
        tell(process, "end")
    assert several_processes.results(processes) == [(0, "left\n", "")] * COUNT


@pytest.fixture
def pair():
    """Return a channel and the socket at its other end."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        other = socket.create_connection(server.getsockname())
        own, _ = server.accept()
    with own, other:
        yield peers.Channel(own, "node"), other


def test_news_that_come_with_the_verdict_are_heard(pair, monkeypatch):
    ended = []
    monkeypatch.setattr(peers.os, "_exit", ended.append)
    channel, other = pair
    channel.early = [{"ended": True, "process": 0}]
    line = peers.PeerWatchdog(1, {0: channel})
    other.close()  # without the goodbye it would be a loss
    time.sleep(0.2)
    line.leave()
    assert not ended


def test_a_silent_connection_is_probed_by_the_system(pair):
    connection = pair[0].connection
    assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    idle, interval, count = (
        connection.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
        for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
    )
    assert idle + interval * count <= 60


def test_a_message_comes_whole_or_not_at_all(pair):
    channel, other = pair
    other.sendall(b'{"a"')
    assert channel.receive(1) == []
    other.sendall(b': 1}\n{"b": 2}\n{')
    assert channel.receive(1) == [{"a": 1}, {"b": 2}]
    with pytest.raises(peers.Gone):
        channel.receive(0.01)
    other.close()
    with pytest.raises(peers.Gone):
        channel.receive(1)
