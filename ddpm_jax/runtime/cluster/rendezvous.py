"""The rendezvous of several processes, before any of them starts JAX.

Where a process is missing, JAX aborts the others with a stack trace of C++; where one
runs another config, it hangs or computes something else. So process 0 first listens on
the coordinator's port, the others call in with what they run, and everyone receives the
same verdict: that all are there and alike, or the sentence that says what is not.

The connections stay open afterwards (`cluster.peers` watches them); the port is free
again for JAX's own coordinator. A message is a line of JSON, of bounded length, and
nothing in it is executed. Like JAX's coordinator, this trusts its network.
"""

import dataclasses
import hashlib
import os
import selectors
import socket
import time
from collections.abc import Mapping

from ddpm_jax.core import errors, wording
from ddpm_jax.runtime.cluster import peers

PROTOCOL = 1
READ_SECONDS = 1.0
RETRY_SECONDS = 0.2
CONNECT_SECONDS = 5.0
GRACE_SECONDS = 5.0
"""For processes yet to call in, once something is wrong: they receive it as well."""
MARGIN_SECONDS = 10.0
"""How much longer than process 0 itself the others wait for its verdict."""
LONGEST_FACT = 200  # characters
LOOPBACK = ("localhost", "127.0.0.1", "::1")

SAME_COMMAND = "start the same command on all"


@dataclasses.dataclass(frozen=True)
class Hello:
    """What a process says when it calls in.

    Attributes:
        process: its number.
        count: how many processes it expects.
        host: the name of its machine.
        facts: what must be the same everywhere, by name.
    """

    process: int
    count: int
    host: str
    facts: dict[str, str]


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of "host:port".

    Raises:
        Refusal: it is not of this form.
    """
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise errors.Refusal(
            f"the coordinator {address!r} is not HOST:PORT, such as 10.0.0.3:8482"
        )
    return host, int(port)


def brief(fact: str) -> str:
    """Return what a message and a sentence have room for: a digest of a long fact."""
    if len(fact) <= LONGEST_FACT:
        return fact
    return f"{fact[:32]} … (SHA-256 {hashlib.sha256(fact.encode()).hexdigest()[:12]})"


def difference(
    process: int,
    where: str,
    facts: Mapping[str, str],
    of_first: Mapping[str, str],
    advice: Mapping[str, str],
) -> str:
    """Return the sentence about the first fact that is not process 0's, or "".

    Args:
        process, where: who has the facts.
        facts: its facts by name.
        of_first: those of process 0.
        advice: what to do by the name of the fact; `SAME_COMMAND` by default.
    """
    for name in {**of_first, **facts}:
        own, first = facts.get(name, "nothing"), of_first.get(name, "nothing")
        if own != first:
            return (
                f"process {process} ({where}) has {name} {own}, process 0 has {first}: "
                f"{advice.get(name, SAME_COMMAND)}"
            )
    return ""


# ---- process 0 -----------------------------------------------------------------------


def serve(
    address: str,
    count: int,
    facts: Mapping[str, str],
    *,
    timeout: float,
    advice: Mapping[str, str] | None = None,
) -> dict[int, peers.Channel]:
    """Wait until the processes 1 … count − 1 have called in; for process 0.

    Args:
        address: "host:port" at which the others reach this process.
        count: number of processes.
        facts: what must be the same everywhere, by name.
        timeout: seconds.
        advice: what to do about a difference, by the name of the fact.

    Returns:
        The open connection of each process but 0.

    Raises:
        Refusal: one is missing, started wrongly or twice, or has other facts; told to
            all that have called in.
    """
    host, port = split_address(address)
    advice = advice or {}
    deadline = time.monotonic() + timeout
    registry = _Registry(count, facts, advice)
    with _listen(host, port) as listener, selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        while registry.waits() and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                if key.fileobj is listener:
                    selector.register(_accept(listener), selectors.EVENT_READ)
                elif not registry.hear(key.fileobj):
                    selector.unregister(key.fileobj)
                    key.fileobj.close()
            if registry.faults:
                deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
        verdict = registry.verdict(timeout, address)
        for channel in _channels(selector, listener):
            channel.send({"verdict": verdict})
            if verdict or channel not in registry.channels:
                channel.close()
    if verdict:
        raise errors.Refusal(verdict)
    return {hello.process: channel for channel, hello in registry.channels.items()}


def _listen(host, port) -> socket.socket:
    try:
        if host in LOOPBACK:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            return socket.create_server((host, port), family=family, backlog=128)
        if socket.has_dualstack_ipv6():
            return socket.create_server(
                ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128
            )
        return socket.create_server(("", port), backlog=128)
    except OSError as error:
        raise errors.Refusal(
            f"process 0 cannot listen on port {port} ({os.strerror(error.errno)}): end "
            "what uses it, perhaps an earlier run, or choose another port for all"
        ) from error


def _accept(listener) -> peers.Channel:
    connection, address = listener.accept()
    return peers.Channel(connection, address[0].removeprefix("::ffff:"))


def _channels(selector, listener) -> list[peers.Channel]:
    """Return all who are connected, strangers that said nothing among them."""
    keys = selector.get_map().values()
    return [key.fileobj for key in keys if key.fileobj is not listener]


class _Registry:
    """Who has called in at process 0, and what is wrong so far."""

    def __init__(self, count, facts, advice):
        self._count = count
        self._facts = facts
        self._advice = advice
        self._heard: set[int] = set()
        self._ended: dict[int, str] = {}  # called in and closed again: where
        self.channels: dict[peers.Channel, Hello] = {}
        self.faults: list[str] = []

    def missing(self) -> list[int]:
        there = {hello.process for hello in self.channels.values()}
        return [number for number in range(1, self._count) if number not in there]

    def waits(self) -> bool:
        """Return whether somebody has not called in at all, rightly or wrongly."""
        return any(number not in self._heard for number in self.missing())

    def hear(self, channel) -> bool:
        """Take in what a channel has to say; return whether to keep it."""
        try:
            hellos = [_hello_of(message) for message in channel.receive(READ_SECONDS)]
        except peers.Gone:
            if hello := self.channels.pop(channel, None):
                self._ended[hello.process] = channel.where
                self._heard.discard(hello.process)
            return False
        for hello in hellos:
            if hello is None:
                return False  # a stranger
            channel.where = f"{hello.host}/{channel.where}"
            fault = self._fault(hello, channel.where)
            self._heard.add(hello.process)
            if fault:
                self.faults.append(fault)
            else:
                self.channels[channel] = hello
                self._ended.pop(hello.process, None)
        return True

    def _fault(self, hello, where) -> str:
        """Return what is wrong with a process that calls in, or ""."""
        who = f"process {hello.process} ({where})"
        if hello.count != self._count:
            return (
                f"{who} was started as one of {hello.count} processes, process 0 as "
                f"one of {self._count}: give all the same number"
            )
        if not 0 <= hello.process < self._count:
            return (
                f"there is no process {hello.process} ({where}) of {self._count}: they "
                f"are numbered from 0 to {self._count - 1}"
            )
        if hello.process not in self.missing():
            return (
                f"process {hello.process} was started twice, the second time on "
                f"{where}: give every process a number of its own"
            )
        return difference(hello.process, where, hello.facts, self._facts, self._advice)

    def verdict(self, timeout, address) -> str:
        """Return "" if all are there and alike, or the sentence that says what is not.

        What is wrong with those who are there goes before who is not.
        """
        missing = self.missing()
        if self.faults or not missing:
            return self.faults[0] if self.faults else ""
        there = sorted(
            (hello.process, channel.where) for channel, hello in self.channels.items()
        )
        present = [f"{process} from {where}" for process, where in there]
        said = f" ({wording.listed(present)} {_have(present)})" if present else ""
        for process, where in self._ended.items():
            said += f"; {process} had, from {where}, and has ended: see what it said"
        _, port = split_address(address)
        return (
            f"process{'es' if missing[1:] else ''} {wording.listed(missing)} of "
            f"{self._count} {_have(missing)} not called in after {timeout:g} s{said}: "
            f"start the same command there; port {port} of {socket.gethostname()} must "
            "be reachable"
        )


def _have(items) -> str:
    return "have" if items[1:] else "has"


def _hello_of(message) -> Hello | None:
    """Return the hello in a message, or None if a stranger sent it."""
    try:
        hello = Hello(
            process=message["process"],
            count=message["count"],
            host=message["host"],
            facts=message["facts"],
        )
    except KeyError:
        return None
    texts = [hello.host]
    if isinstance(hello.facts, dict):
        texts += [*hello.facts, *hello.facts.values()]
    good = (
        message.get("ddpm_jax") == PROTOCOL
        and type(hello.process) is int
        and type(hello.count) is int
        and isinstance(hello.facts, dict)
        and all(isinstance(text, str) for text in texts)
    )
    return hello if good else None


# ---- the others ----------------------------------------------------------------------


def join(
    address: str,
    process: int,
    count: int,
    facts: Mapping[str, str],
    *,
    timeout: float,
) -> peers.Channel:
    """Call in at process 0 and wait for its verdict; for every process but 0.

    Args:
        address: "host:port" of process 0.
        process: the number of this one.
        count: number of processes.
        facts: what must be the same everywhere, by name.
        timeout: seconds until process 0 must have answered, and as many again for the
            rest to call in.

    Returns:
        The open connection to process 0.

    Raises:
        Refusal: process 0 does not answer, or its verdict is no.
    """
    host, port = split_address(address)
    hello = Hello(process, count, socket.gethostname(), dict(facts))
    deadline = time.monotonic() + timeout
    reason = "nobody listens there"
    while time.monotonic() < deadline:
        try:
            connection = socket.create_connection((host, port), CONNECT_SECONDS)
        except OSError as error:
            reason = error.strerror or "no answer"
            time.sleep(RETRY_SECONDS)
            continue
        channel = peers.Channel(connection, host)
        verdict = None
        # A port of the ephemeral range that nobody listens on can connect to itself.
        if connection.getsockname() != connection.getpeername():
            channel.send({"ddpm_jax": PROTOCOL, **dataclasses.asdict(hello)})
            verdict = _verdict(channel, time.monotonic() + timeout + MARGIN_SECONDS)
        if verdict == "":
            return channel
        channel.close()
        if verdict:
            raise errors.Refusal(verdict)
        reason = "what answers there is no process 0 that waits for others"
        time.sleep(RETRY_SECONDS)
    raise errors.Refusal(
        f"the coordinator {address} has not answered in {timeout:g} s ({reason}): is "
        "process 0 running there, and the port open?"
    )


def _verdict(channel, deadline) -> str | None:
    """Wait for the verdict of process 0; None if whoever answers there has none."""
    while (left := deadline - time.monotonic()) > 0:
        try:
            messages = channel.receive(left)
        except peers.Gone:
            return None
        if messages:
            channel.early = messages[1:]
            verdict = messages[0].get("verdict")
            return verdict if isinstance(verdict, str) else None
    return None
