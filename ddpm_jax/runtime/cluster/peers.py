"""The connections among processes: when one ends early, the others end with a sentence.

JAX notices a lost process when a heartbeat has failed to come, a minute or two later,
and then aborts; until then the others hang in a collective operation. Here every
process holds a connection to process 0 (from `rendezvous`), and a thread watches it.
Who ends as planned says so first; a connection that closes without a word is a
process that was killed or whose machine is gone. Process 0 tells the others.

Processes must not be forked once this runs: a child would hold the connection open.
"""

import contextlib
import json
import os
import selectors
import socket
import threading
import time
from collections.abc import Mapping

from ddpm_jax.runtime import console

MAX_LINE = 64 * 1024  # bytes
PIECE = 4096  # bytes
SEND_SECONDS = 10.0
READ_SECONDS = 1.0
LAST_SECONDS = 5.0
"""How long process 0, which JAX needs to the end, waits for the others to go first."""
CAUSE_SECONDS = 0.3
"""How long a process that fails waits for messages first: where another one was lost,
its own error is that of a collective operation, and the loss is what to report."""
LINGER_SECONDS = 0.9
"""How long it keeps its connections then, those of JAX as well: when they break, the
others should be gone for the reason that they received."""
STATUS = 1

# A host that vanishes without a word is detected after about a minute of silence.
KEEPALIVE = {
    "TCP_KEEPIDLE": 20,  # s
    "TCP_KEEPINTVL": 10,  # s
    "TCP_KEEPCNT": 4,
    "TCP_USER_TIMEOUT": 60_000,  # ms
}


class Gone(Exception):
    """The other end is closed, or never was a process of ours."""


class Channel:
    """Lines of JSON over a connected socket.

    Attributes:
        connection: the socket.
        where: who is at the other end, e.g. "node6/10.0.0.6".
        early: messages that came together with the verdict of the rendezvous.
    """

    def __init__(self, connection: socket.socket, where: str):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for name, value in KEEPALIVE.items():
            if hasattr(socket, name):  # the names are those of Linux
                option = getattr(socket, name)
                connection.setsockopt(socket.IPPROTO_TCP, option, value)
        self.connection = connection
        self.where = where
        self.early: list[dict] = []
        self._pending = b""

    def fileno(self) -> int:
        return self.connection.fileno()

    def send(self, message: Mapping) -> None:
        """Send a message.

        That the other end has gone is found by whoever reads from it, so it is no
        error here.
        """
        self.connection.settimeout(SEND_SECONDS)
        with contextlib.suppress(OSError):
            self.connection.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, timeout: float) -> list[dict]:
        """Return the messages that the next piece completes, often one, perhaps none.

        Args:
            timeout: seconds to wait for the piece.

        Raises:
            Gone: the connection is closed, nothing came, or what came is no message.
        """
        self.connection.settimeout(timeout)
        try:
            piece = self.connection.recv(PIECE)
        except OSError as error:
            raise Gone from error
        *lines, self._pending = (self._pending + piece).split(b"\n")
        if not piece or len(self._pending) > MAX_LINE:
            raise Gone
        try:
            messages = [json.loads(line) for line in lines]
        except (ValueError, RecursionError) as error:
            raise Gone from error
        if not all(isinstance(message, dict) for message in messages):
            raise Gone
        return messages

    def close(self) -> None:
        self.connection.close()


class PeerWatchdog:
    """Watches the connections of this process from a thread, until `leave`.

    When another process fails or is lost, the thread writes the sentence and ends this
    process with status 1, wherever its main thread is: a collective operation that
    waits for the lost one cannot be interrupted.
    """

    def __init__(self, process: int, channels: Mapping[int, Channel]):
        """Start watching.

        Args:
            process: the number of this process.
            channels: the connections to all others in process 0, and in the others
                that to process 0, by process.
        """
        self._process = process
        self._channels = dict(channels)
        self._ended: set[int] = set()  # those that have said goodbye
        self._leaving = threading.Event()
        self._reason = ""
        self._waker, self._wake = socket.socketpair()
        self._thread = threading.Thread(
            target=self._watch, name="peer-watchdog", daemon=True
        )
        self._thread.start()

    def leave(self, reason: str = "") -> None:
        """Say goodbye and close the connections.

        Process 0 returns when the others have closed theirs, or after a few seconds.

        Args:
            reason: why this process ends early: the others end, too, and say so. ""
                for an end as planned.
        """
        self._reason = reason
        if reason:
            time.sleep(CAUSE_SECONDS)
        self._leaving.set()
        self._waker.close()
        self._thread.join()
        self._wake.close()
        word = {"failed": reason} if reason else {"ended": True}
        self._send({**word, "process": self._process})
        self._wait_for_others()
        if reason and self._process:
            time.sleep(LINGER_SECONDS)
        for channel in self._channels.values():
            channel.close()

    def _watch(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake, selectors.EVENT_READ)
            for process, channel in self._channels.items():
                selector.register(channel, selectors.EVENT_READ, process)
                self._hear(process, channel.early)
            while not self._leaving.is_set():
                for key, _ in selector.select():
                    if key.fileobj is self._wake:
                        continue
                    try:
                        messages = key.fileobj.receive(READ_SECONDS)
                    except Gone:
                        selector.unregister(key.fileobj)
                        if key.data not in self._ended:
                            self._end(key.data, {"process": key.data})
                        continue
                    self._hear(key.data, messages)

    def _hear(self, sender, messages) -> None:
        for message in messages:
            if "ended" in message:
                self._ended.add(sender)
            else:
                self._end(sender, message)

    def _end(self, sender, message) -> None:
        """End this process because of another one; process 0 tells the rest first."""
        if self._process == 0:
            message = {
                **message,
                "process": sender,
                "where": self._channels[sender].where,
            }
            self._send(message)
        process, reason = message.get("process"), message.get("failed")
        if reason and self._ends_anyway(reason):
            return
        where = message.get("where") or self._channels[0].where
        console.say_at_once(
            f"process {process} ({where}) stopped: {reason}"
            if reason
            else f"process {process} ({where}) has ended without finishing: this one "
            "ends too; start all of them again with the same command, which goes on "
            "from the last checkpoint"
        )
        self._wait_for_others()
        os._exit(STATUS)

    def _ends_anyway(self, reason) -> bool:
        """Return whether this process is done, or ends for that reason by itself."""
        leaves = self._leaving.wait(2 * CAUSE_SECONDS)
        return leaves and self._reason in ("", reason)

    def _send(self, message) -> None:
        for channel in self._channels.values():
            channel.send(message)

    def _wait_for_others(self) -> None:
        """In process 0: wait until the others have closed their connections."""
        if self._process:
            return
        deadline = time.monotonic() + LAST_SECONDS
        for channel in self._channels.values():
            with contextlib.suppress(Gone):
                while (left := deadline - time.monotonic()) > 0:
                    channel.receive(left)
