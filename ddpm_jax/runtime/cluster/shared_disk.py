"""Several processes write one run: all must see the same directory."""

import secrets
import time
from collections.abc import Callable
from pathlib import Path

from ddpm_jax.core import errors
from ddpm_jax.runtime import distributed

PATIENCE = 10.0
"""Seconds in which a network disk shows a new file to the other hosts."""

CACHED = 90.0
"""Seconds after which it checks again for a file that was missing before."""


def check(folder: Path, patience: float = PATIENCE) -> None:
    """Refuse a directory that is not the same on every process.

    Every process calls it. Process 0 leaves a hidden file, which the others must see.

    Args:
        folder: exists on every process.
        patience: seconds to wait.

    Raises:
        Refusal: names the processes that do not see the file.
    """
    if distributed.count() == 1:
        return
    mark = folder / f".shared-{distributed.from_first(secrets.token_hex(8))}"
    if distributed.is_first():
        mark.touch()
    distributed.barrier("the mark on the shared disk")
    seen = distributed.all_values(_appears(mark, patience))
    if distributed.is_first():
        mark.unlink()
    blind = [str(index) for index, saw in enumerate(seen) if not saw]
    if blind:
        raise errors.Refusal(
            f"{folder} of process 0 is not what process {', '.join(blind)} sees there: "
            "give a --workdir on a disk that all hosts share, such as NFS, Filestore, "
            "or a bucket mounted at the same place"
        )


def wait_until(seen: Callable[[], bool], path: Path, patience: float = CACHED) -> None:
    """Wait until this process sees what process 0 has written.

    Args:
        seen: whether it does.
        path: of the file, for the sentence.
        patience: seconds to wait.

    Raises:
        Refusal: it does not.
    """
    if not _comes_true(seen, patience):
        raise errors.Refusal(
            f"{path}, which process 0 has written, is not what process "
            f"{distributed.index()} sees there: give a --workdir on a disk that all "
            "hosts share"
        )


def _appears(path, patience):
    return _comes_true(path.exists, patience)


def _comes_true(seen, patience):
    deadline = time.monotonic() + patience
    while not seen():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
