"""Compile once per machine, and say what the wait is for."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import jax

from ddpm_jax.core import errors
from ddpm_jax.runtime import console, distributed, files, home


def enable_cache(
    directory: str | os.PathLike | None = None, say: Callable[[str], None] = console.say
) -> str | None:
    """Keep compiled programs on disk, so that the next process does not compile them.

    Call it before the first compilation. Whoever can write this directory can run code
    as its reader, so it belongs to the user alone.

    Args:
        directory: where; by default what JAX_COMPILATION_CACHE_DIR says (a path or the
            address of a bucket, used unchecked), else ddpm_jax/xla in the user's
            cache directory (XDG_CACHE_HOME or ~/.cache).
        say: called with one line if there will be no cache.

    Returns:
        The directory, or None where none can be used; that is no error.
    """
    chosen = jax.config.jax_compilation_cache_dir
    if directory is not None or not chosen or chosen.startswith("~"):
        path = "the user's cache directory"
        try:
            path = home.expanded(directory or chosen or _user_directory()).absolute()
            _make_private(path)
        except OSError as error:
            reason = error.strerror or error
            say(f"no compilation cache: {path} cannot be used ({reason})")
            return None
        except errors.Refusal as refusal:
            say(f"no compilation cache: {refusal}")
            return None
        chosen = str(path)
        jax.config.update("jax_compilation_cache_dir", chosen)
    _set_default("jax_persistent_cache_min_compile_time_secs", 0.05)
    _set_default("jax_persistent_cache_min_entry_size_bytes", -1)
    return chosen


def compile_ahead(
    function: jax.stages.Wrapped,
    *args,
    what: str,
    say: Callable[[str], None] = console.say,
    **kwargs,
) -> jax.stages.Compiled | jax.stages.Wrapped:
    """Compile a jitted function for its arguments and report how long it took.

    Args:
        function: result of `jax.jit`.
        *args: the arguments, or `jax.ShapeDtypeStruct` with shardings in their place.
        what: what is compiled, e.g. "the train step".
        say: called with one line before and one after.
        **kwargs: keyword arguments of `function`.

    Returns:
        The compiled program; call it with arguments of exactly these shapes. Where
        JAX_DISABLE_JIT is set it is the function itself.
    """
    if jax.config.jax_disable_jit:
        say(f"JAX_DISABLE_JIT is set: {what} is not compiled, and will be slow")
        return function
    cached = jax.config.jax_compilation_cache_dir is not None
    say(f"compiling {what}{' (cached for the next time)' if cached else ''} …")
    start = time.perf_counter()
    compiled = function.lower(*args, **kwargs).compile()
    say(f"compiled {what} in {time.perf_counter() - start:.1f} s")
    # One may have found it in its cache: the first run must not wait for the others.
    distributed.barrier(f"compiled {what}")
    return compiled


def _user_directory() -> str:
    base = home.expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return os.path.join(base, "ddpm_jax", "xla")


def _make_private(directory: Path) -> None:
    directory.parent.mkdir(parents=True, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    status = directory.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise OSError("others can write it")
    files.check_writable(directory)


def _set_default(option: str, value: float) -> None:
    """Set an option of JAX unless the user did so in the environment."""
    if option.upper() not in os.environ:
        jax.config.update(option, value)
