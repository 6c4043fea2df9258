"""Several processes as one program: started, checked, and able to agree on values.

One process is the normal case: then everything here returns at once and JAX is not
asked. With several, each runs the same program on its own devices; what one of them
decides from what only it can see has to be passed on with `from_first` or `all_values`,
which all must call at the same points.
"""

import atexit
import json
import os
import socket
import sys
from collections.abc import Mapping

from ddpm_jax.core import errors
from ddpm_jax.runtime import console
from ddpm_jax.runtime.cluster import launch as launch_lib
from ddpm_jax.runtime.cluster import peers, rendezvous

SHUTDOWN_SECONDS = 900
"""How long those that are done wait: process 0 may still be writing a report."""
SMALLEST_ROW = 256  # bytes
NO_PROXY = "no_grpc_proxy"
NO_REASON = "it ended early; see what it printed"


class _Group:
    """What this process knows of the others."""

    index = 0
    count = 1
    line: peers.PeerWatchdog | None = None


_group = _Group()


# ---- start and end -------------------------------------------------------------------


def start(
    launch: launch_lib.Launch,
    facts: Mapping[str, str],
    *,
    timeout: float = 120,
    advice: Mapping[str, str] | None = None,
) -> None:
    """Wait for all processes, compare them and start JAX on all; before JAX is used.

    From then on the loss of a process ends the others with a sentence, and only process
    0 says anything but errors.

    Args:
        launch: which of how many processes this is.
        facts: what must be the same in all, by name: versions, the config's hash, ….
        timeout: seconds within which all must have called in.
        advice: what to do about a difference, by the name of the fact.

    Raises:
        Refusal: a process is missing, or is not like process 0.
    """
    host, _ = rendezvous.split_address(launch.coordinator)
    where, count = launch.coordinator, launch.num_processes
    facts = {name: rendezvous.brief(fact) for name, fact in facts.items()}
    console.silence(launch.process_id)
    if launch.process_id == 0:
        channels = rendezvous.serve(where, count, facts, timeout=timeout, advice=advice)
    else:
        first = rendezvous.join(where, launch.process_id, count, facts, timeout=timeout)
        channels = {0: first}
    _group.line = peers.PeerWatchdog(launch.process_id, channels)

    import jax

    atexit.register(_at_exit)  # after JAX's own, hence it comes before
    # Its handler swallows SIGTERM; `cluster.preemption` agrees on it in its place.
    jax.config.update("jax_enable_preemption_service", False)
    # Through a proxy for the web JAX would not find the coordinator; it only warns.
    direct = os.environ.get(NO_PROXY, os.environ.get("no_proxy"))
    os.environ[NO_PROXY] = f"{direct},{host}" if direct else host
    jax.config.update("jax_check_proxy_envs", False)
    jax.distributed.initialize(
        where,
        count,
        launch.process_id,
        local_device_ids=launch.local_device_ids,
        cluster_detection_method="deactivate",
        initialization_timeout=int(timeout) + 60,
        shutdown_timeout_seconds=SHUTDOWN_SECONDS,
        coordinator_bind_address=where if host in rendezvous.LOOPBACK else None,
    )
    _group.index, _group.count = jax.process_index(), jax.process_count()
    if _group.count != count:
        raise errors.Refusal(
            f"{count} processes were started, but JAX ({jax.default_backend()}) forms "
            f"{_group.count} of them: see that all use the same kind of device"
        )
    console.silence(_group.index)
    # On CPUs they must connect for a first collective operation within 30 s of each
    # other, which they would not do after loading their data.
    barrier("all have started")


def finish(error: str = "") -> None:
    """End the work of this process with the others; nothing with one process.

    As planned, it waits for the others to come here, too. With an error they receive
    and end as well; this process then has status 1, whatever it returns.

    Args:
        error: the sentence why this process ends early.
    """
    if _group.line is None:
        return
    if not error:
        import jax

        jax.distributed.shutdown()
    _group.line.leave(error.strip().partition("\n")[0])
    _group.line = None
    if not error:
        atexit.unregister(_at_exit)
        _group.index, _group.count = 0, 1


def _at_exit() -> None:
    """End a process that has failed: JAX would wait for the others, and abort."""
    finish(NO_REASON)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(peers.STATUS)


# ---- who this is ---------------------------------------------------------------------


def is_first() -> bool:
    """Return whether this process is the one that writes files and speaks."""
    return _group.index == 0


def index() -> int:
    """Return the number of this process, from 0."""
    return _group.index


def count() -> int:
    """Return the number of processes."""
    return _group.count


def check_single(what: str, launch: launch_lib.Launch | None) -> None:
    """Refuse several processes where the work is that of one.

    Args:
        what: the work, e.g. "--mode=convert".
        launch: what `launch.find` says.

    Raises:
        Refusal: there are several.
    """
    if launch is not None:
        raise errors.Refusal(
            f"{what} runs in one process, and {launch.num_processes} were started "
            f"({launch.source}): start it on one host, on a TPU pod with "
            "JAX_PLATFORMS=cpu before it"
        )


# ---- agreeing on values --------------------------------------------------------------


def all_values(value) -> list:
    """Return the values of all processes, by their number; all must call it.

    Args:
        value: what JSON can express.
    """
    text = json.dumps(value)
    if _group.count == 1:
        return [json.loads(text)]

    import numpy as np
    from jax.experimental import multihost_utils

    own = np.frombuffer(text.encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.int32(own.size))
    # Few different widths, as each is compiled anew.
    width = max(SMALLEST_ROW, 1 << (int(lengths.max()) - 1).bit_length())
    row = np.zeros(width, np.uint8)
    row[: own.size] = own
    rows = multihost_utils.process_allgather(row)
    return [
        json.loads(bytes(row[:length]))
        for row, length in zip(rows, lengths, strict=True)
    ]


def from_first(value):
    """Return process 0's value, on all; all must call it.

    Args:
        value: what JSON can express; counts in process 0 only.
    """
    return all_values(value if is_first() else None)[0]


def arrays_from_first(tree):
    """Return process 0's NumPy arrays, on all; all must call it.

    Args:
        tree: pytree of arrays, of the same shapes in all processes.
    """
    if _group.count == 1:
        return tree

    from jax.experimental import multihost_utils

    return multihost_utils.broadcast_one_to_all(tree)


def check_alike(facts: Mapping[str, str], advice: str) -> None:
    """Refuse, on all processes, facts that are not process 0's; all must call it.

    Args:
        facts: by name, e.g. {"images": "50000"}.
        advice: what to do about a difference.

    Raises:
        Refusal: names the process, the fact and both values.
    """
    if _group.count == 1:
        return
    mine = {name: str(value) for name, value in facts.items()}
    first, *others = all_values({"facts": mine, "host": socket.gethostname()})
    for number, other in enumerate(others, start=1):
        sentence = rendezvous.difference(
            number,
            other["host"],
            other["facts"],
            first["facts"],
            dict.fromkeys(mine, advice),
        )
        if sentence:
            raise errors.Refusal(sentence)


def barrier(name: str) -> None:
    """Wait until all processes have come here.

    Args:
        name: of the place, the same in all.
    """
    if _group.count > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)
