"""Two real processes on one machine, and what they and a single one leave each other.

The numbers of a leaf are those of a NumPy generator, so that every process knows what
has to be in its shards without asking the others.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import zlib

import jax
import numpy as np
import pytest

from ddpm_jax.runs import checkpoints
from ddpm_jax.runtime import sharding

TIMEOUT = 120
SHAPES = {
    "params/kernel": (64, 96),  # split over all four devices
    "params/bias": (96,),  # too small to split
    "moments/kernel": (64, 96),
    "step": (),
}


def numbers(path, seed):
    generator = np.random.default_rng([zlib.crc32(path.encode()), seed])
    return generator.standard_normal(SHAPES[path]).astype(np.float32)


def make_state(seed, grid):
    flat = {path: numbers(path, seed) for path in SHAPES}
    shardings = sharding.state_shardings(grid, flat)
    return {
        path: jax.make_array_from_callback(
            array.shape, shardings[path], lambda index, whole=array: whole[index]
        )
        for path, array in flat.items()
    }


def abstract(grid):
    shapes = {p: jax.ShapeDtypeStruct(s, np.float32) for p, s in SHAPES.items()}
    shardings = sharding.state_shardings(grid, shapes)
    return {
        p: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=shardings[p])
        for p, s in shapes.items()
    }


def assert_holds(state, seed):
    for path, array in state.items():
        for shard in array.addressable_shards:
            np.testing.assert_array_equal(
                np.asarray(shard.data), numbers(path, seed)[shard.index]
            )


# How the programs of both processes begin.
START = """
import json, os, pathlib, sys
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
sys.path.insert(0, sys.argv[4])
from ddpm_jax.runtime import distributed
from ddpm_jax.runtime.cluster import launch as launches
index, root = int(sys.argv[2]), pathlib.Path(sys.argv[3])
launch = launches.Launch(sys.argv[1], 2, index, "the test")
distributed.start(launch, {}, timeout=60)
import jax
import test_runs_checkpoint_processes as shared
from ddpm_jax.core import errors
from ddpm_jax.runs import best, checkpoint_files, checkpoints
from ddpm_jax.runtime import files, sharding
grid = sharding.make_mesh(1, 4)
wanted = shared.abstract(grid)
"""

# Prints what was found and refused, as a line of JSON.
AGREEING = """
told = {}

def refused(call):
    try:
        call()
    except errors.Refusal as refusal:
        return str(refusal)

def restored(**arguments):
    found = store.restore(wanted, **arguments)
    shared.assert_holds(found.state, found.step)
    return [found.step, [list(entry) for entry in found.skipped]]

def hurt(step):
    distributed.barrier("before the damage")
    if distributed.is_first():
        path = max((root / str(step)).rglob("*"), key=lambda path: path.stat().st_size)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 4
        path.write_bytes(data)

with checkpoints.Checkpoints(root, keep=2) as store:
    told["of one process"] = restored()
    kernel = shared.make_state(2, grid)["params/kernel"]
    assert not kernel.is_fully_addressable
    for step in (2, 3, 4):
        store.save(step, shared.make_state(step, grid))
        store.poll()
        if step == 2:
            store.keep_best(best.Best(2, "fid", 9.0))
    store.wait()
    told["steps"] = store.steps()
    told["best"] = store.best().step
    told["newest"] = restored()
    told["by name"] = restored(step=2)

    bad = shared.make_state(5, grid)
    last = jax.make_array_from_callback(  # infinite in the part of process 1 alone
        kernel.shape,
        kernel.sharding,
        lambda index: shared.numbers("params/kernel", 5)[index]
        / (0.0 if index[1].stop == 96 else 1.0),
    )
    told["infinite"] = refused(lambda: store.save(5, {**bad, "params/kernel": last}))

    hurt(4)
    told["damaged"] = restored()
    told["missing"] = refused(lambda: store.restore(wanted, step=4))
    wrong = {**wanted, "step": jax.ShapeDtypeStruct((), "int32")}
    told["misfit"] = refused(lambda: store.restore(wrong))

    free = checkpoint_files.shutil.disk_usage
    if distributed.is_first():  # only there is the disk looked at
        checkpoint_files.shutil.disk_usage = lambda path: type("", (), {"free": 1000})
    told["full"] = refused(lambda: store.save(6, shared.make_state(6, grid)))
    checkpoint_files.shutil.disk_usage = free

    store.save(8, shared.make_state(8, grid))
    told["after all"] = restored()
    told["steps at last"] = store.steps()
    store.save(9, shared.make_state(9, grid))
print(json.dumps(told), flush=True)
distributed.finish()
"""


def free_address():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


def run_pair(program, root):
    """Run a program in two processes and return (output, errors, status) of each."""
    address = free_address()
    here = os.path.dirname(__file__)
    pair = [
        subprocess.Popen(
            [sys.executable, "-c", START + program, address, str(index), root, here],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in (0, 1)
    ]
    try:
        return [
            (*process.communicate(timeout=TIMEOUT), process.returncode)
            for process in pair
        ]
    finally:
        for process in pair:
            process.kill()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("run") / "checkpoints"


@pytest.fixture(scope="module")
def told(root):
    """What the two processes found, after a single one had saved step 1."""
    with checkpoints.Checkpoints(root) as store:
        store.save(1, make_state(1, sharding.make_mesh(2, 4)))
    results = run_pair(AGREEING, root)
    for out, err, status in results:
        assert status == 0, f"{out}\n{err[-4000:]}"
    first, second = (json.loads(out.splitlines()[-1]) for out, _, _ in results)
    assert first == second
    return first


def test_two_processes_agree(told, root):
    assert told["of one process"] == [1, []]
    assert told["steps"] == [2, 3, 4]
    assert told["best"] == 2
    assert told["newest"] == [4, []]
    assert told["by name"] == [2, []]
    assert told["infinite"].startswith(
        "the checkpoint of step 5 is not written: params/kernel holds NaN or infinity"
    )
    step, [[skipped, reason]] = told["damaged"]
    assert (step, skipped) == (3, 4)
    assert reason.endswith("has changed; set aside as damaged-4")
    assert (root / "damaged-4").is_dir()
    assert "no usable checkpoint of step 4" in told["missing"]
    assert "step is float32[] in the checkpoint and int32[] here" in told["misfit"]
    assert "the checkpoint of step 6 needs" in told["full"]
    assert told["after all"] == [8, []]
    assert told["steps at last"] == [2, 3, 8]


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 2), (2, 4), (1, 8)])
def test_what_two_processes_saved_is_restored_by_one(told, root, shape):
    del told
    devices = jax.devices()[: shape[0] * shape[1]]
    grid = sharding.make_mesh(*shape, devices=devices)
    with checkpoints.Checkpoints(root) as store:
        restored = store.restore(abstract(grid))
    assert restored.step == 9  # leaving the context published it
    assert_holds(restored.state, 9)


def test_every_file_of_both_processes_has_its_digest(told, root):
    del told
    written = {
        path.relative_to(root / "9").as_posix()
        for path in (root / "9").rglob("*")
        if path.is_file()
    }
    manifest = json.loads((root / "9.sha256.json").read_text())
    assert set(manifest["files"]) == written
    for index in (0, 1):
        assert any(name.startswith(f"ocdbt.process_{index}/") for name in written)


# A save that fails: in the part of one process, or where process 0 publishes it. Orbax
# alone would let the others wait ten minutes.
FAILED = """
import resource
def fail(*args):
    raise OSError(28, "No space left on device")
def work():
    with checkpoints.Checkpoints(root) as store:
        store.save(1, shared.make_state(1, grid))
        store.wait()
        if index == {victim} and {published}:
            files.write_json = fail
        elif index == {victim}:
            _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1024, most))
        store.save(2, shared.make_state(2, grid))
try:
    work()
except errors.Refusal as refusal:
    print(refusal, flush=True)
    distributed.finish(str(refusal))
    sys.exit(1)
distributed.finish()
"""


@pytest.mark.parametrize(("victim", "published"), [(0, False), (1, False), (0, True)])
def test_a_save_that_fails_in_one_process_ends_all_at_once(tmp_path, victim, published):
    root = tmp_path / "checkpoints"
    started = time.monotonic()
    results = run_pair(FAILED.format(victim=victim, published=published), root)
    assert time.monotonic() - started < 60
    assert [status for _, _, status in results] == [1, 1]
    sentence = f"the checkpoint of step 2 could not be saved in {root}: "
    assert results[victim][0].splitlines()[-1].startswith(sentence)
    heard = results[1 - victim][1]
    assert f"process {victim} (" in heard
    assert f"stopped: {sentence}" in heard
    with checkpoints.Checkpoints(root) as store:
        assert store.steps() == (1,)


# Saves step 2 and ends there; the arguments of one of the two tell it to kill itself.
KILLED = """
import signal
victim, moment = {victim}, {moment!r}
def kill(*args):
    os.kill(os.getpid(), signal.SIGKILL)
with checkpoints.Checkpoints(root) as store:
    if index == victim and moment == "publication":
        files.write_json = kill
    store.save(2, shared.make_state(2, grid))
    if index == victim and moment == "write":
        kill()
    store.wait()
distributed.finish()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("victim", "moment"), [(0, "write"), (1, "write"), (0, "publication")]
)
def test_a_kill_of_one_process_inside_a_save_costs_that_save(tmp_path, victim, moment):
    root = tmp_path / "checkpoints"
    grid = sharding.make_mesh(2, 4)
    with checkpoints.Checkpoints(root) as store:
        store.save(1, make_state(1, grid))
    results = run_pair(KILLED.format(victim=victim, moment=moment), root)
    statuses = [status for _, _, status in results]
    assert statuses[victim] == -signal.SIGKILL
    assert statuses[1 - victim] > 0  # ended with a sentence, not by a signal
    with checkpoints.Checkpoints(root) as store:
        restored = store.restore(abstract(grid))
        # A save may be published before process 0 hears of the death of the other.
        assert restored.step in ((1,) if victim == 0 else (1, 2))
        assert_holds(restored.state, restored.step)
        store.save(2, make_state(2, grid))
        assert store.restore(abstract(grid)).step == 2
