"""Whatever happens to a checkpoint is noticed, survived, and destroys nothing."""

import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoint_states import abstract, assert_same_bits, train_state

from ddpm_jax.core import errors
from ddpm_jax.runs import checkpoints, manifests

STEPS = (1, 2, 3)


def weights(step):
    return np.random.default_rng(step).standard_normal((64, 33)).astype(np.float32)


def make_state(step):
    return {"params": {"w": jnp.asarray(weights(step))}, "step": jnp.int32(step)}


WANTED = jax.eval_shape(lambda: make_state(0))


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    root = tmp_path_factory.mktemp("run") / "checkpoints"
    with checkpoints.Checkpoints(root) as store:
        for step in STEPS:
            store.save(step, make_state(step))
    return root


@pytest.fixture
def root(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / "checkpoints")


@pytest.fixture
def store(root):
    with checkpoints.Checkpoints(root) as opened:
        yield opened


def files_of(root, step):
    inside = [path for path in (root / str(step)).rglob("*") if path.is_file()]
    return sorted([*inside, root / f"{step}.sha256.json"])


def flip(path, random):
    data = bytearray(path.read_bytes())
    data[random.integers(len(data))] ^= 1 << random.integers(8)
    path.write_bytes(data)


def truncate(path, random):
    os.truncate(path, random.integers(path.stat().st_size))


def shorten(path, random):
    del random
    os.truncate(path, path.stat().st_size - 1)


def delete(path, random):
    del random
    path.unlink()


DAMAGES = {"flip": flip, "truncate": truncate, "shorten": shorten, "delete": delete}


@pytest.mark.parametrize("damage", DAMAGES)
def test_any_damage_to_any_file_is_noticed_and_survived(pristine, tmp_path, damage):
    random = np.random.default_rng(0)
    victims = [path for path in files_of(pristine, 3) if path.stat().st_size]
    assert len(victims) > 8
    for number, victim in enumerate([*victims, *victims]):
        root = shutil.copytree(pristine, tmp_path / str(number) / "checkpoints")
        hurt = root / victim.relative_to(pristine)
        DAMAGES[damage](hurt, random)
        left = [path.read_bytes() for path in files_of_all(root)]
        with checkpoints.Checkpoints(root) as store:
            restored = store.restore(WANTED)
            assert restored.step == 2, hurt
            assert store.steps() == (1, 2)
        np.testing.assert_array_equal(restored.state["params"]["w"], weights(2))
        ((step, reason),) = restored.skipped
        assert step == 3
        assert hurt.name in reason
        # Every byte is still there, under another name.
        assert sorted(path.read_bytes() for path in files_of_all(root)) == sorted(left)


def files_of_all(root):
    return [path for path in root.rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
def train_run(tmp_path_factory):
    """Two checkpoints of a real train state of random floats."""
    root = tmp_path_factory.mktemp("train run") / "checkpoints"
    with checkpoints.Checkpoints(root) as store:
        for step in (1, 2):
            store.save(step, train_state(step, big=(32, 64)))
    return root


def test_fifty_random_damages_to_a_train_state_are_noticed(train_run, tmp_path):
    random = np.random.default_rng(5)
    expected = train_state(1, big=(32, 64))
    victims = [path for path in files_of(train_run, 2) if path.stat().st_size]
    sizes = np.array([path.stat().st_size for path in victims])
    # Every file once, then by size: most bytes are those of the arrays.
    chosen = [*victims, *random.choice(victims, 50, p=sizes / sizes.sum())][:50]
    for number, victim in enumerate(chosen):
        root = tmp_path / str(number)
        shutil.copytree(train_run, root, copy_function=os.link)
        hurt = root / victim.relative_to(train_run)
        hurt.unlink()  # the link, not the file
        shutil.copy(victim, hurt)
        (flip, truncate)[number % 2](hurt, random)
        with checkpoints.Checkpoints(root) as store:
            restored = store.restore(abstract(expected))
        assert restored.step == 1, hurt
        ((step, reason),) = restored.skipped
        assert step == 2
        assert hurt.name in reason
        assert_same_bits(restored.state, expected)


def test_damage_is_named_once_and_does_not_block_the_step(store, root):
    flip(next((root / "3" / "d").iterdir()), np.random.default_rng(1))
    ((step, reason),) = store.restore(WANTED).skipped
    assert step == 3
    assert "has changed; set aside as damaged-3" in reason
    assert store.restore(WANTED).skipped == ()
    store.save(3, make_state(33))
    np.testing.assert_array_equal(
        store.restore(WANTED).state["params"]["w"], weights(33)
    )
    truncate(root / "3" / "_METADATA", np.random.default_rng(1))
    assert "set aside as damaged-3-2" in store.restore(WANTED).skipped[0][1]
    assert (root / "damaged-3").is_dir()
    assert (root / "damaged-3-2.sha256.json").is_file()


def test_older_and_older_ones_are_tried(store, root):
    shutil.rmtree(root / "3")
    (root / "2" / "manifest.ocdbt").write_bytes(b"")
    restored = store.restore(WANTED)
    assert restored.step == 1
    assert [step for step, _ in restored.skipped] == [3, 2]
    np.testing.assert_array_equal(restored.state["params"]["w"], weights(1))


def test_nothing_left_is_refused_with_every_reason(store, root):
    for step in STEPS:
        (root / str(step) / "_METADATA").unlink()
    told = r"no usable checkpoint .*step 3: 3/_METADATA is missing.*step 1: 1/_METADATA"
    with pytest.raises(errors.Refusal, match=told):
        store.restore(WANTED)
    assert {"damaged-1", "damaged-2", "damaged-3"} <= {p.name for p in root.iterdir()}


def test_a_damaged_step_that_was_asked_for_is_refused(store, root):
    (root / "2" / "_METADATA").unlink()
    with pytest.raises(errors.Refusal, match=r"2/_METADATA .*published steps are 1, 3"):
        store.restore(WANTED, step=2)


def test_a_folder_that_cannot_be_renamed_is_passed_over(store, root, monkeypatch):
    (root / "3" / "_METADATA").unlink()

    def no_permission(self, target):
        raise PermissionError(13, "Permission denied")

    # root may rename anything, so the system call has to say no by order.
    monkeypatch.setattr(type(root), "rename", no_permission)
    restored = store.restore(WANTED)
    assert restored.step == 2
    assert "could not be renamed (Permission denied)" in restored.skipped[0][1]


def test_a_step_deleted_while_it_is_read_is_not_called_damaged(
    store, root, monkeypatch
):
    compare = manifests.first_difference

    def delete_first(folder, recorded):
        if folder.name == "3":
            (root / "3.sha256.json").unlink()
            shutil.rmtree(folder)
        return compare(folder, recorded)

    monkeypatch.setattr(manifests, "first_difference", delete_first)
    restored = store.restore(WANTED)
    assert restored.step == 2
    assert "deleted by the run" in restored.skipped[0][1]
    assert not [path for path in root.iterdir() if path.name.startswith("damaged")]


# Saves step 2 and is killed at a place of the save; MOMENT is one of MOMENTS.
KILLED = """
import os, signal, sys, threading, time
import jax.numpy as jnp, numpy as np
from ddpm_jax.runs import checkpoint_files, checkpoints, manifests
from ddpm_jax.runtime import files
root, moment = sys.argv[1:]
def kill(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)
if moment == "digests":
    manifests.describe = kill
elif moment == "publication":
    files.write_json = kill
elif moment == "deletion":
    checkpoint_files.shutil.rmtree = kill
big = jnp.asarray(np.random.default_rng(0).standard_normal((1 << 23,)))
store = checkpoints.Checkpoints(root, keep=1)
store.save(2, {"big": big})
def size(path):
    try:
        return os.path.getsize(path)
    except FileNotFoundError:  # a lock of the writer, gone since it was listed
        return 0
while moment == "write":
    for folder, _, names in os.walk(root):
        if "staging" in folder and any(
            size(os.path.join(folder, name)) > 1 << 16 for name in names
        ):
            kill()
store.wait()
"""
MOMENTS = {"write": 1, "digests": 1, "publication": 1, "deletion": 2}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_inside_a_save_leaves_a_whole_checkpoint(tmp_path, moment):
    root = tmp_path / "checkpoints"
    with checkpoints.Checkpoints(root) as store:
        store.save(1, {"big": jnp.arange(1 << 23, dtype=jnp.float32)})
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, root, moment], check=False, timeout=60
    )
    assert killed.returncode == -signal.SIGKILL
    left = {path.name for path in root.iterdir()}
    assert ("2" in left) == (moment in ("publication", "deletion"))
    with checkpoints.Checkpoints(root, keep=1) as store:
        wanted = {"big": jax.ShapeDtypeStruct((1 << 23,), jnp.float32)}
        restored = store.restore(wanted)
        assert restored.step == MOMENTS[moment]
        expected = np.arange(1 << 23, dtype=np.float32)
        if moment == "deletion":
            expected = np.random.default_rng(0).standard_normal(1 << 23)
        np.testing.assert_array_equal(
            restored.state["big"], expected.astype(np.float32)
        )
        store.save(2, make_state(2))
        assert store.restore(WANTED).step == 2
    left = {path.name for path in root.iterdir()}
    assert left == {"2", "2.sha256.json"}


# Saves one step after the other, and says when it has begun to.
SAVING = """
import itertools, sys
from checkpoint_states import train_state
from ddpm_jax.runs import checkpoints
with checkpoints.Checkpoints(sys.argv[1], keep=2) as store:
    for step in itertools.count(1):
        store.save(step, train_state(step, big=(512, 1024)))
        print(step, flush=True)
"""


@pytest.mark.slow
def test_kills_at_random_moments_leave_a_whole_checkpoint(tmp_path):
    random = np.random.default_rng(7)
    for number in range(20):
        root = tmp_path / str(number)
        saving = subprocess.Popen(
            [sys.executable, "-c", SAVING, root],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.path.dirname(__file__)},
        )
        with saving:
            while int(saving.stdout.readline()) < 3:
                pass
            time.sleep(random.uniform(0, 1))
            saving.kill()
            told = saving.stdout.read().split()
        last = int(told[-1]) if told else 3
        with checkpoints.Checkpoints(root) as store:
            wanted = jax.eval_shape(lambda: train_state(0, big=(512, 1024)))
            restored = store.restore(wanted)
        # The save under way may be lost, one that the next has waited for may not.
        assert last - 1 <= restored.step <= last + 1
        assert_same_bits(restored.state, train_state(restored.step, big=(512, 1024)))
