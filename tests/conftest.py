"""Eight fake CPU devices and quick compilation for all tests, set before JAX starts."""

import fcntl
import gc
import itertools
import os
import pathlib
import shutil
import signal
import sys

import pytest

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
# Most of the time of the tests is compilation: less optimization takes a quarter less,
# and what one test, worker or child process has compiled the others only read.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
# A job in the background of a shell ignores SIGINT, and so would what it starts: tests
# send it.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, str(pathlib.Path(__file__).parent))


def pytest_collection_finish(session):
    """Collect garbage seldom, and not among what is there for good.

    Tracing makes so many objects that the collector took a sixth of its time.
    """
    del session
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


MODULES = itertools.count(1)


@pytest.fixture(scope="module", autouse=True)
def _collected():
    """Collect garbage now and then: what cycles hold does not add up.

    It takes seconds, for nothing that JAX remembers is garbage.
    """
    yield
    if next(MODULES) % 8 == 0:
        gc.collect()


@pytest.fixture(scope="session")
def common(tmp_path_factory, request):
    """The folder that all workers of this run of the tests share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if hasattr(request.config, "workerinput") else base


@pytest.fixture(scope="session")
def made_once(common):
    """Return a function: name, make → the folder that `make(folder)` fills.

    One worker makes it and the others wait: what is there is only to be read.
    """

    def folder(name, make):
        path, finished = common / name, common / f"{name}.finished"
        with (common / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not finished.exists():
                shutil.rmtree(path, ignore_errors=True)  # of a worker that failed
                path.mkdir()
                make(path)
                finished.touch()
        return path

    return folder


@pytest.fixture(scope="session")
def cache(common):
    """The folder of the programs that all tests and their processes share."""
    return common / "xla"


@pytest.fixture(autouse=True, scope="session")
def compiled_once(cache):
    import jax

    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(cache)
    jax.config.update("jax_compilation_cache_dir", str(cache))


@pytest.fixture(scope="module")
def optimized():
    """Compile as users do: for truths that optimization could break."""
    import jax

    option = "jax_disable_most_optimizations"
    before = jax.config.values[option]
    jax.config.update(option, False)
    yield
    jax.config.update(option, before)
