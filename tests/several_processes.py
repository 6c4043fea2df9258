"""Programs that run as several processes of this machine."""

import contextlib
import os
import pathlib
import random
import socket
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
}
SECONDS = 60


def free_port():
    """Return a port below those that systems hand out: none else takes it meanwhile."""
    while True:
        port = random.randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@contextlib.contextmanager
def running(program, count, *arguments):
    """Run `python -c program port process count …` as `count` processes.

    They are killed at the end of the block.
    """
    port = free_port()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program]
            + [str(value) for value in (port, process, count, *arguments)],
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(count)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def results(processes):
    """Wait for the processes; return status, stdout and stderr of each."""
    told = [process.communicate(timeout=SECONDS) for process in processes]
    return [
        (process.returncode, *texts)
        for process, texts in zip(processes, told, strict=True)
    ]
