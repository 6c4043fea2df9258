import concurrent.futures
import dataclasses
import json
import socket
import time

import pytest
from several_processes import free_port

from ddpm_jax.core import errors
from ddpm_jax.runtime.cluster import rendezvous

FACTS = {"config": "c0ffee", "version": "0.2"}
HERE = f"{socket.gethostname()}/127.0.0.1"


@pytest.fixture
def address():
    return f"127.0.0.1:{free_port()}"


@pytest.fixture
def call(address):
    """Call in from threads; process 0 listens, every other one joins."""
    with concurrent.futures.ThreadPoolExecutor() as pool:

        def start(process, count, facts=FACTS, *, timeout=30.0, **options):
            if process == 0:
                return pool.submit(
                    rendezvous.serve, address, count, facts, timeout=timeout, **options
                )
            return pool.submit(
                rendezvous.join, address, process, count, facts, timeout=timeout
            )

        yield start


def connected(address):
    deadline = time.monotonic() + 10
    while True:
        try:
            return socket.create_connection(rendezvous.split_address(address))
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def refusal_of(future):
    error = future.exception()
    assert isinstance(error, errors.Refusal), error
    return str(error)


def close(first, *others):
    for channel in (*first.result().values(), *(o.result() for o in others)):
        channel.close()


def test_all_are_there_and_alike(call, address):
    others = [call(2, 3), call(1, 3)]
    first = call(0, 3)
    channels = first.result()
    assert sorted(channels) == [1, 2]
    # Each is connected to the one it is called after.
    others[0].result().send({"who": 2})
    assert channels[2].receive(30) == [{"who": 2}]
    channels[1].send({"who": 0})
    assert others[1].result().receive(30) == [{"who": 0}]
    # The port is free for JAX, while the connections stay.
    socket.create_server(rendezvous.split_address(address)).close()
    close(first, *others)


def test_a_missing_process_is_named(call, address):
    there = call(1, 4)
    sentence = refusal_of(call(0, 4, timeout=1))
    port = address.partition(":")[2]
    missing, _, remedy = sentence.partition(": ")
    for part in ("processes 2 and 3 of 4", "1 s", f"1 from {HERE}"):
        assert part in missing
    for part in ("same command", f"port {port} of {socket.gethostname()}"):
        assert part in remedy
    assert refusal_of(there) == sentence


def test_a_process_that_called_in_and_ended_is_named(call, address):
    first = call(0, 3, timeout=1.5)
    with connected(address) as connection:
        connection.sendall(card(process=2, count=3))
    sentence = refusal_of(first)
    assert sentence.startswith("processes 1 and 2 of 3 have not called in")
    assert "2 had, from other/127.0.0.1, and has ended" in sentence


def test_a_process_may_end_and_call_in_again(call, address):
    first = call(0, 3)
    with connected(address) as connection:
        connection.sendall(card(process=1, count=3))
    others = [call(1, 3), call(2, 3)]
    assert sorted(first.result()) == [1, 2]
    close(first, *others)


def test_a_difference_is_told_to_all(call):
    started = time.monotonic()
    others = [call(1, 3), call(2, 3, {**FACTS, "version": "0.1"})]
    first = call(0, 3, advice={"version": "install the same version on all"})
    sentence = (
        f"process 2 ({HERE}) has version 0.1, process 0 has 0.2: install the same "
        "version on all"
    )
    assert [refusal_of(future) for future in (first, *others)] == [sentence] * 3
    assert time.monotonic() - started < 8  # nobody waits for those who are there


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({}, "has config nothing, process 0 has c0ffee"),
        ({**FACTS, "more": "1"}, "has more 1, process 0 has nothing"),
    ],
)
def test_a_fact_that_only_one_has_is_a_difference(facts, told):
    sentence = rendezvous.difference(3, "node", facts, FACTS, {})
    assert sentence.startswith(f"process 3 (node) {told}: ")
    assert "same command" in sentence
    assert rendezvous.difference(3, "node", FACTS, FACTS, {}) == ""


def card(**changes):
    values = {"process": 1, "count": 2, "host": "other", "facts": FACTS, **changes}
    fields = dataclasses.asdict(rendezvous.Hello(**values))
    return json.dumps({"ddpm_jax": rendezvous.PROTOCOL, **fields}).encode() + b"\n"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (
            card(process=2, count=8),
            "process 2 (other/127.0.0.1) was started as one of 8 processes, process 0 "
            "as one of 3: give all the same number",
        ),
        (
            card(process=3, count=3),
            "there is no process 3 (other/127.0.0.1) of 3: they are numbered from 0 to "
            "2",
        ),
        (
            card(process=0, count=3),
            "process 0 was started twice, the second time on other/127.0.0.1: give "
            "every process a number of its own",
        ),
        (
            card(process=1, count=3),
            "process 1 was started twice, the second time on other/127.0.0.1: give "
            "every process a number of its own",
        ),
    ],
)
def test_a_wrong_start_is_told_to_all(call, address, wrong, told, monkeypatch):
    monkeypatch.setattr(rendezvous, "GRACE_SECONDS", 0.5)
    first = call(0, 3)
    with connected(address) as right, connected(address) as connection:
        right.sendall(card(process=1, count=3))
        time.sleep(0.2)
        connection.sendall(wrong)
        for file in (right.makefile(), connection.makefile()):
            assert json.loads(file.readline()) == {"verdict": told}
    assert refusal_of(first) == told


STRANGERS = {
    "browser": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "binary": bytes(range(256)) + b"\n",
    "endless": b"x" * 300_000,
    "deep": b"[" * 60_000 + b"\n",
    "no object": b"[1]\n",
    "no card": b"{}\n",
    "other card": card().replace(b'"ddpm_jax": 1', b'"ddpm_jax": 99'),
    "true": card().replace(b'"process": 1', b'"process": true'),
    "facts": card().replace(b'"0.2"', b"[2]"),
    "no facts": card(facts=None),
    "number": card().replace(b'"process": 1', b'"process": 1' + b"0" * 6000),
    "silent": b"",
}


def test_strangers_are_ignored(call, address):
    first = call(0, 2)
    connections = [connected(address) for _ in STRANGERS]
    for connection, text in zip(connections, STRANGERS.values(), strict=True):
        connection.settimeout(5)
        try:
            connection.sendall(text)
        except ConnectionError:
            assert len(text) > rendezvous.peers.MAX_LINE  # it stopped listening
    connections.pop(0).close()
    own = call(1, 2)
    assert sorted(first.result()) == [1]
    close(first, own)
    for connection in connections:
        connection.close()


def test_no_coordinator(call, address):
    sentence = refusal_of(call(1, 2, timeout=0.6))
    for part in (address, "0.6 s", "Connection refused", "process 0", "port"):
        assert part in sentence


def test_a_stranger_at_the_coordinators_port(call, address):
    with socket.create_server(rendezvous.split_address(address)) as server:
        caller = call(1, 2, timeout=0.6)
        connection, _ = server.accept()
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        connection.close()
    assert "(what answers there is no process 0" in refusal_of(caller) or (
        "(Connection refused)" in refusal_of(caller)
    )


def test_a_port_that_is_taken(call, address):
    with socket.create_server(rendezvous.split_address(address)):
        sentence = refusal_of(call(0, 2))
    assert sentence.startswith("process 0 cannot listen on port ")
    assert "(Address already in use)" in sentence


@pytest.mark.parametrize("text", ["", "host", "host:", ":80", "host:0", "host:65536"])
def test_an_address_that_is_none(text):
    with pytest.raises(errors.Refusal, match="is not HOST:PORT"):
        rendezvous.split_address(text)


def test_addresses():
    assert rendezvous.split_address("10.0.0.3:8482") == ("10.0.0.3", 8482)
    assert rendezvous.split_address("[fd00::2]:80") == ("fd00::2", 80)
