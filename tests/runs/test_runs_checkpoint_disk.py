"""Disks that are too small, and disks that fill up during a save."""

import errno
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from ddpm_jax.core import errors
from ddpm_jax.runs import checkpoint_files, checkpoints


@pytest.fixture
def root(tmp_path):
    return tmp_path / "checkpoints"


@pytest.fixture
def store(root):
    with checkpoints.Checkpoints(root) as opened:
        yield opened


@pytest.mark.parametrize(
    ("saves", "needed"),
    # Of 4 MB, and a fifth: one is written before an old one of the two is deleted.
    [(1, "4.8 MB"), (2, "9.6 MB"), (3, "14.4 MB"), (100, "14.4 MB")],
)
def test_room_for_what_is_kept_is_asked_for_before_a_run(
    root, monkeypatch, saves, needed
):
    shapes = {"w": jax.ShapeDtypeStruct((1_000_000,), jnp.float32)}
    free = SimpleNamespace(free=float(needed[:-3]) * 1e6)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    with checkpoints.Checkpoints(root, keep=2) as store:
        store.check_room(shapes, saves=saves)
        free.free -= 1
        told = rf"need {needed} and .* has .* free: make room there, keep fewer"
        with pytest.raises(errors.Refusal, match=told):
            store.check_room(shapes, saves=saves)
    assert not root.exists()


def test_what_is_there_already_needs_no_more_room(root, monkeypatch):
    state = {"w": jnp.ones(1_000_000)}
    with checkpoints.Checkpoints(root, keep=2) as store:
        for step in (1, 2):
            store.save(step, state)
        store.wait()
        usage = SimpleNamespace(free=4_800_000)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
        store.check_room(state, saves=100)
        usage.free -= 1
        with pytest.raises(errors.Refusal, match=r"need 4\.8 MB"):
            store.check_room(state, saves=100)


def test_a_full_disk_is_refused_before_the_save(store, root, monkeypatch):
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: SimpleNamespace(free=4_000_000)
    )
    state = {"w": jnp.zeros(1_000_000)}
    told = r"step 7 needs 4.8 MB and .* has 4 MB free"
    with pytest.raises(errors.Refusal, match=told):
        store.save(7, state)
    assert not root.exists()
    store.save(7, {"w": jnp.zeros(800_000)})


# A limit on the size of files stands for a disk that fills up during the save.
FULL_DISK = """
import resource, sys, time
import jax.numpy as jnp, numpy as np
from ddpm_jax.core import errors
from ddpm_jax.runs import checkpoints
small = {"w": jnp.ones(10)}
large = {"w": jnp.asarray(np.random.default_rng(0).standard_normal(1 << 20))}
store = checkpoints.Checkpoints(sys.argv[1])
store.save(1, small)
store.wait()
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
store.save(2, large)
try:
    while True:
        time.sleep(0.01)
        store.poll()
except errors.Refusal as refusal:
    print("poll:", refusal)
resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
store.save(2, small)
store.wait()
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    with store:
        store.save(3, large)
        raise KeyError("the real error")
except KeyError as error:
    print("note:", *error.__notes__)
print(store.steps())
"""


def test_a_save_that_fails_is_an_error_of_the_next_call(root):
    result = subprocess.run(
        [sys.executable, "-c", FULL_DISK, root],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    polled, noted, steps = result.stdout.splitlines()
    assert polled.startswith("poll: the checkpoint of step 2 could not be saved in")
    assert noted.startswith("note: the checkpoint of step 3 could not be saved in")
    assert steps == "(1, 2)"


def test_an_old_checkpoint_that_cannot_be_removed_fails_no_save(
    tmp_path, monkeypatch, capsys
):
    """NFS keeps files that somebody reads; the folder is not empty then."""

    def rmtree(path):
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(path))

    monkeypatch.setattr(checkpoint_files.shutil, "rmtree", rmtree)
    with checkpoints.Checkpoints(tmp_path, keep=1) as store:
        for step in (1, 2, 3):
            store.save(step, {"w": jnp.full(4, float(step))})
        store.wait()
        assert store.steps() == (3,)
    said = capsys.readouterr().out
    assert "could not be removed" in said
    assert "staging-deleted-1" in said
