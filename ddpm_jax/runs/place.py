"""Where a run's directory is now: it may be renamed while it is trained."""

import fcntl
import os
from pathlib import Path

from ddpm_jax.core import errors

F_GETPATH, LONGEST = 50, 1024  # of macOS


class Place:
    """A directory, known by an open descriptor besides its name.

    Attributes:
        path: its name at first.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self._descriptor = os.open(path, os.O_RDONLY)
        self._first = self._name()

    def __enter__(self) -> "Place":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Let the directory go."""
        os.close(self._descriptor)

    def moved_to(self) -> Path | None:
        """Return its name now, or None if it was not renamed, or nobody knows."""
        name = self._name()
        if name == self._first or not os.path.isdir(name):
            return None
        return Path(name)

    def check(self) -> None:
        """Refuse to go on in a directory that was renamed.

        Raises:
            Refusal: says where it is.
        """
        moved = self.moved_to()
        if moved:
            raise errors.Refusal(
                f"{self.path} was renamed to {moved} while it was trained: go on from "
                f"its last checkpoint with --workdir={moved}"
            )

    def _name(self):
        """Return the name that the system knows, "" where it tells none."""
        link = f"/proc/self/fd/{self._descriptor}"
        if os.path.lexists(link):
            return os.readlink(link)
        if os.uname().sysname == "Darwin":
            buffer = fcntl.fcntl(self._descriptor, F_GETPATH, bytes(LONGEST))
            return os.fsdecode(buffer.rstrip(b"\0"))
        return ""
