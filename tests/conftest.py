"""Eight fake CPU devices for every test, set before JAX starts."""

import gc
import os
import pathlib
import signal
import sys

import pytest

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
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


@pytest.fixture(scope="module", autouse=True)
def _collected():
    """Collect garbage after each module: what cycles hold does not add up."""
    yield
    gc.collect()
