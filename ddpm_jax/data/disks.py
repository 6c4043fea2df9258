"""Files on disks that may fail: read once more, left out, or an error of the disk."""

import errno
import time
from collections.abc import Callable

from ddpm_jax.data import content

# Of one file: it went after it was listed, or is closed to this user.
OF_THE_FILE = (
    *(errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR),
    *(errno.EACCES, errno.EPERM, errno.ENAMETOOLONG),
)
# Of the disk or the network, and perhaps over in a moment.
PASSING = (
    *(errno.EIO, errno.ESTALE, errno.EAGAIN, errno.EINTR, errno.EBUSY, errno.ENOMEM),
    *(errno.ENFILE, errno.EMFILE, errno.ETIMEDOUT, errno.ECONNRESET, errno.ENOTCONN),
    *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH),
    getattr(errno, "EREMOTEIO", errno.EIO),  # not on every system
)
PAUSES = (0.2, 1.0, 3.0)  # seconds before each further try


def read(action: Callable, path: str, again: Callable[[], None] = lambda: None):
    """Return `action()`, which reads one file, tried again where that may help.

    Args:
        action: reads the file from its beginning.
        path: of the file, for an error that names none.
        again: called before each further try.

    Raises:
        Unreadable: the file is gone, or not for this user; others may be there.
        OSError: the disk fails; it names a file.
    """
    for pause in (*PAUSES, None):
        try:
            return action()
        except OSError as error:
            if error.errno in OF_THE_FILE:
                raise content.Unreadable(
                    f"cannot be read ({error.strerror})"
                ) from error
            if error.errno is not None:
                error.filename = error.filename or path
            if error.errno not in PASSING or pause is None:
                raise
        time.sleep(pause)
        again()
