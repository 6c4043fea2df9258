"""Memory and compilations: counted right, and flat over two thousand steps."""

import pathlib
import threading

import jax
import numpy as np
import optax
import pytest
import small_training as small

from ddpm_jax.training import nonfinite, progress, resources

MIB = 2**20
needs_proc = pytest.mark.skipif(
    not resources.STATM.exists(), reason="this system has no /proc"
)


def kernel_says_gib():
    """The resident set by another file of the kernel, in kB."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("VmRSS:")]
    return int(line.split()[1]) / 2**20


@needs_proc
def test_host_memory():
    before = resources.host_memory_gib()
    assert before == pytest.approx(kernel_says_gib(), abs=8 * MIB / 2**30)
    held = np.ones(256 * MIB, np.uint8)
    grown = resources.host_memory_gib() - before
    assert grown == pytest.approx(0.25, abs=0.02)
    del held
    assert resources.host_memory_gib() < before + 0.02


def test_host_memory_without_proc(monkeypatch, tmp_path):
    monkeypatch.setattr(resources, "STATM", tmp_path / "missing")
    # The most that the process ever held, however the system counts it.
    assert resources.host_memory_gib() > 0


def test_compilations():
    """One for each new shape, in any thread; none for a program that is there."""
    double = jax.jit(lambda x: 2 * x + 0.625)
    before = resources.compilations()
    for number in range(3):
        double(np.full(3, number, np.float32))
    assert resources.compilations() == before + 1
    thread = threading.Thread(target=double, args=(np.zeros(5, np.float32),))
    thread.start()
    thread.join()
    assert resources.compilations() == before + 2


@needs_proc
def test_two_thousand_steps():
    """In the second thousand nothing is compiled, and not 4 KiB a step stay."""
    optimizer = optax.adam(1e-3)
    mesh = small.make_mesh((1, 1))
    state = small.make_state(small.make_params(), optimizer=optimizer, mesh=mesh)
    step = small.on_mesh(small.make_step(optimizer=optimizer), state, mesh)
    watch = progress.Progress(first_step=0, last_step=2000, batch_size=small.BATCH)
    bad_steps = nonfinite.NonFiniteSteps(3)
    rows = small.make_batch()
    records = []
    for number in range(1, 2001):
        state, metrics = step(state, small.sharding.put_batch(mesh, rows))
        watch.add(metrics)
        assert bad_steps.add(number, metrics) == []
        if number % 100 == 0:
            records.append(watch.turn(number, 0.0))
    records = [*filter(None, records), *watch.flush(2000, 0.0)]
    late = [record for record in records if record["step"] >= 1000]
    assert len(late) == 11
    assert len({record["compilations"] for record in late}) == 1
    memory = [record["host_memory_gib"] for record in late]
    assert memory[-1] - memory[0] < 1000 * 4096 / 2**30
