"""Notices of Google's cloud that a machine is about to be taken away.

Slurm and Kubernetes send SIGTERM in time; a virtual machine of Compute Engine, which
TPU VMs are, learns it from its metadata server first.
"""

import http.client
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from ddpm_jax.runtime import console

SERVER = "http://metadata.google.internal"
PRODUCT = Path("/sys/class/dmi/id/product_name")
ANSWER_SECONDS = 2.0
EVERY_SECONDS = 2.0  # of the 30 or so that a preempted machine has left
MAX_FAILURES = 30
PREEMPTED = "instance/preempted"
MAINTENANCE = "instance/maintenance-event"
TERMINATES = "TERMINATE_ON_HOST_MAINTENANCE"


def metadata(
    path: str,
    *,
    server: str = SERVER,
    timeout: float = ANSWER_SECONDS,
    attempts: int = 1,
) -> str | None:
    """Return an entry of the metadata server, None if it has none or does not answer.

    Args:
        path: e.g. "instance/preempted".
        server: address of the server.
        timeout: seconds to wait for an answer.
        attempts: how often to ask a server that does not answer.
    """
    request = urllib.request.Request(
        f"{server}/computeMetadata/v1/{path}", headers={"Metadata-Flavor": "Google"}
    )
    # A proxy for the web does not lead to this machine's own server.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(attempts):
        try:
            with opener.open(request, timeout=timeout) as answer:
                return answer.read().decode(errors="replace").strip()
        except urllib.error.HTTPError:
            return None  # it answers, and has no such entry
        except (OSError, http.client.HTTPException):
            continue
    return None


def is_google(product: Path = PRODUCT) -> bool:
    """Return whether this is a virtual machine of Google's cloud.

    Args:
        product: file with the name of the machine's make.
    """
    try:
        return product.read_text().startswith("Google")
    except OSError:
        return False  # no such file outside Linux and in some containers


class Watcher:
    """Context manager: a thread that asks for notices until one has come.

    It asks every two seconds. A preempted machine is told as often as it is asked; a
    machine that is to be ended for maintenance only once it is announced anew, as the
    announcement may stand for an hour and the run could not be started again meanwhile.
    """

    def __init__(
        self,
        tell: Callable[[], None],
        *,
        server: str = SERVER,
        every: float = EVERY_SECONDS,
    ):
        """Prepare to watch.

        Args:
            tell: called from the thread at the first notice.
            server: address of the metadata server.
            every: seconds between two questions.
        """
        self._tell = tell
        self._server = server
        self._every = every
        self._done = threading.Event()
        self._thread = threading.Thread(
            target=self._watch, name="cluster-notices", daemon=True
        )

    def __enter__(self) -> "Watcher":
        self._thread.start()
        return self

    def __exit__(self, *exception) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        announced = self._ask(MAINTENANCE)
        failures = 0
        while not self._done.is_set():
            preempted, event = self._ask(PREEMPTED), self._ask(MAINTENANCE)
            if preempted == "TRUE" or TERMINATES == event != announced:
                self._tell()
                return
            announced = event
            failures = 0 if preempted or event else failures + 1
            if failures == MAX_FAILURES:
                console.say_at_once(
                    f"{self._server} cannot be asked for preemption: only a signal "
                    "will stop this run"
                )
                return
            self._done.wait(self._every)

    def _ask(self, path) -> str | None:
        return metadata(path, server=self._server)
