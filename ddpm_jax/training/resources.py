"""What this process has used so far: memory of the host, and compilations."""

import pathlib
import resource
import threading

import jax.monitoring

STATM = pathlib.Path("/proc/self/statm")
COMPILATION = "/jax/core/compile/backend_compile_duration"


class _Compilations:
    """Counts what XLA compiles or takes from its cache, in any thread."""

    def __init__(self):
        self.count, self._lock = 0, threading.Lock()

    def listen(self, event, seconds, **details):
        """Count an event of JAX, if it is a compilation."""
        del seconds, details
        if event == COMPILATION:
            with self._lock:
                self.count += 1


_compilations = _Compilations()
# At import, once in a process: nothing that is compiled afterwards is missed.
jax.monitoring.register_event_duration_secs_listener(_compilations.listen)


def compilations() -> int:
    """Return how many programs XLA has compiled, or taken from its cache, so far.

    A number that grows while training goes on means that something is compiled anew
    again and again.
    """
    return _compilations.count


def host_memory_gib() -> float:
    """Return the memory that this process holds in the host, in GiB.

    Where the system does not tell (macOS), it is the most that it ever held.
    """
    if not STATM.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**30
    resident_pages = int(STATM.read_text().split()[1])
    return resident_pages * resource.getpagesize() / 2**30
