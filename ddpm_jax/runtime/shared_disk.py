"""Several processes write one run: its directory must be the same one on all."""

import secrets
import time
from pathlib import Path

from ddpm_jax.core import errors
from ddpm_jax.runtime import distributed

PATIENCE = 10.0
"""Seconds in which a network disk shows a new file to the other hosts."""


def check(folder: Path, patience: float = PATIENCE) -> None:
    """Refuse a directory that some process sees another one in the place of.

    Every process calls it. Process 0 leaves a hidden file, for which the others look.

    Args:
        folder: exists on every process.
        patience: seconds to look for.

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


def _appears(path, patience):
    deadline = time.monotonic() + patience
    while not path.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
