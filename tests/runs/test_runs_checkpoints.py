"""Saving, choosing, placing and keeping; damage and disks have their own files."""

import dataclasses
import json
import logging
import shutil
import subprocess
import threading
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoint_states import abstract, assert_same_bits

import ddpm_jax
from ddpm_jax.core import errors
from ddpm_jax.runs import checkpoints
from ddpm_jax.runtime import files, sharding


class Moments(NamedTuple):
    count: jax.Array
    mu: dict


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    step: jax.Array
    params: dict
    optimizer: tuple
    key: jax.Array


def make_state(seed):
    """Return a state of every kind of leaf, of random bits."""
    random = np.random.default_rng(seed)
    kernel = random.standard_normal((3, 3, 16, 64)).astype(np.float32)
    return State(
        step=jnp.int32(seed),
        params={"blocks": {"0": {"kernel": jnp.asarray(kernel), "bias": jnp.ones(5)}}},
        optimizer=(
            Moments(
                jnp.uint32(7),
                {"a/b.c": jnp.asarray(random.standard_normal((96, 32)), jnp.bfloat16)},
            ),
            None,
            {},
        ),
        key=jax.random.key_data(jax.random.key(seed)),
    )


def on(shape, state):
    """Return (state placed on a mesh, its abstract twin)."""
    count = shape[0] * shape[1]
    grid = sharding.make_mesh(*shape, devices=jax.devices()[:count])
    placed = jax.device_put(state, sharding.state_shardings(grid, state))
    return placed, abstract(placed)


def names(directory):
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def store(tmp_path):
    with checkpoints.Checkpoints(tmp_path / "checkpoints") as opened:
        yield opened


@pytest.fixture
def root(tmp_path):
    return tmp_path / "checkpoints"


def test_bits_survive_any_change_of_mesh(store):
    saved, _ = on((2, 4), make_state(1))
    store.save(1, saved)
    for shape in [(1, 1), (2, 1), (1, 4), (8, 1), (1, 8), (2, 4)]:
        _, wanted = on(shape, make_state(2))
        restored = store.restore(wanted)
        assert (restored.step, restored.skipped) == (1, ())
        assert_same_bits(restored.state, saved)
        for leaf, target in zip(
            jax.tree.leaves(restored.state), jax.tree.leaves(wanted), strict=True
        ):
            assert leaf.sharding.is_equivalent_to(target.sharding, leaf.ndim)


def test_a_run_moves_to_another_place_and_process(tmp_path, root):
    with checkpoints.Checkpoints(root) as store:
        store.save(3, make_state(3))
    shutil.move(root, tmp_path / "elsewhere")
    with checkpoints.Checkpoints(tmp_path / "elsewhere") as store:
        assert store.latest_step() == 3
        assert_same_bits(store.restore(abstract(make_state(0))).state, make_state(3))


def test_without_a_sharding_the_first_device_is_used(store):
    saved, _ = on((2, 4), make_state(1))
    store.save(1, saved)
    shapes = jax.eval_shape(lambda: make_state(1))
    for leaf in jax.tree.leaves(store.restore(shapes).state):
        assert leaf.devices() == {jax.devices()[0]}


def test_a_saved_state_may_be_donated(store):
    state = {"w": jnp.arange(200_000.0)}
    expected = np.array(state["w"])
    wanted = abstract(state)
    step = jax.jit(lambda s: {"w": s["w"] * 0 - 1}, donate_argnums=0)
    store.save(1, state)
    jax.block_until_ready(step(state))
    np.testing.assert_array_equal(store.restore(wanted).state["w"], expected)


def test_no_checkpoint_says_how_to_make_one(tmp_path, store):
    assert store.steps() == ()
    assert store.latest_step() is None
    told = rf"no checkpoint in .*: train first with .*--workdir={tmp_path}`$"
    with pytest.raises(errors.Refusal, match=told):
        store.restore({})
    assert names(tmp_path) == []  # looking changes nothing


def test_a_step_can_be_chosen(store):
    for step in (10, 20):
        store.save(step, make_state(step))
    wanted = abstract(make_state(0))
    assert_same_bits(store.restore(wanted, step=10).state, make_state(10))
    with pytest.raises(errors.Refusal, match=r"step 15 .*published steps are 10, 20"):
        store.restore(wanted, step=15)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"a": {"w": jnp.ones((4, 2), jnp.bfloat16)}},
            r"a/w is float32\[4, 2\] in the checkpoint and bfloat16\[4, 2\] here",
        ),
        ({"a": {"w": jnp.ones((4, 3))}}, r"a/w is float32\[4, 2\] .* float32\[4, 3\]"),
        ({"a": {}}, r"a/w is float32\[4, 2\] in the checkpoint and missing here"),
        (
            {"a": {"w": jnp.ones((4, 2)), "x": jnp.ones(1), "y": jnp.ones(2)}},
            r"a/x is missing in the checkpoint .* \(and 1 more\)",
        ),
    ],
)
def test_other_arrays_are_refused_by_path(store, root, change, told):
    store.save(1, {"a": {"w": jnp.ones((4, 2))}})
    store.wait()
    with pytest.raises(errors.Refusal, match=told):
        store.restore(abstract(change))
    assert names(root) == ["1", "1.sha256.json"]  # nothing is damaged


@pytest.mark.parametrize(
    ("leaf", "told"),
    [(0.5, "a/x is a float"), (jax.random.key(0), "a/x is a typed key")],
    ids=["float", "key"],
)
def test_what_would_come_back_otherwise_is_named(store, leaf, told):
    with pytest.raises(TypeError, match=told):
        store.save(1, {"a": {"x": leaf}})


def test_the_list_of_digests_is_published_last(store, root, monkeypatch):
    state = make_state(1)
    store.save(1, state)
    store.wait()
    reached, go_on = threading.Event(), threading.Event()
    write = files.write_json

    def slow_write(path, value):
        reached.set()
        assert go_on.wait(20)
        write(path, value)

    monkeypatch.setattr(files, "write_json", slow_write)
    store.save(2, make_state(2))
    assert reached.wait(20)
    try:
        assert (root / "2" / "_METADATA").exists()  # wholly written by Orbax
        assert store.steps() == (1,)
        with checkpoints.Checkpoints(root) as reader:
            found = reader.restore(abstract(state))
        assert found.step == 1
        assert found.skipped == (
            (2, "its save was not finished: there is no 2.sha256.json"),
        )
        assert_same_bits(found.state, state)
        store.poll()  # does not wait for a save under way
    finally:
        go_on.set()
    store.wait()
    assert store.steps() == (1, 2)


def test_the_list_names_every_file_and_array(store, root):
    store.save(1, {"w": jnp.ones((4, 2)), "n": jnp.int32(1)})
    store.wait()
    manifest = json.loads((root / "1.sha256.json").read_text())
    assert manifest["step"] == 1
    assert manifest["package_version"] == ddpm_jax.__version__
    assert manifest["arrays"] == {"w": "float32[4, 2]", "n": "int32[]"}
    folder = root / "1"
    written = [p for p in folder.rglob("*") if p.is_file()]
    lines = subprocess.run(
        ["sha256sum", *written], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    digests = {line[66:].removeprefix(f"{folder}/"): line[:64] for line in lines}
    assert manifest["files"] == digests


def test_newest_and_every_nth_are_kept(root):
    with checkpoints.Checkpoints(root, keep=2, keep_every=20) as store:
        for step in (10, 20, 30, 40, 50, 60):
            store.save(step, {"w": jnp.full(3, step)})
        store.wait()
        assert store.steps() == (20, 40, 50, 60)
    expected = {str(s) for s in (20, 40, 50, 60)}
    assert set(names(root)) == expected | {f"{s}.sha256.json" for s in expected}


def test_old_ones_are_deleted_only_after_the_new_one_counts(root, monkeypatch):
    with checkpoints.Checkpoints(root, keep=1) as store:
        store.save(1, {"w": jnp.ones(3)})
        store.wait()
        seen = []
        write = files.write_json

        def look(path, value):
            seen.append((path.name, names(root)))
            write(path, value)

        monkeypatch.setattr(files, "write_json", look)
        store.save(2, {"w": jnp.ones(3)})
        store.wait()
        assert seen == [("2.sha256.json", ["1", "1.sha256.json", "2"])]
        assert names(root) == ["2", "2.sha256.json"]


@pytest.mark.parametrize(("keep", "keep_every"), [(0, 0), (1, -1)])
def test_keeping_nothing_is_refused(root, keep, keep_every):
    with pytest.raises(
        errors.Refusal, match=f"keep={keep} and keep_every={keep_every}"
    ):
        checkpoints.Checkpoints(root, keep=keep, keep_every=keep_every)


def test_a_step_can_be_saved_again(store, root):
    store.save(5, make_state(1))
    store.save(5, make_state(2))
    store.wait()
    assert_same_bits(store.restore(abstract(make_state(0))).state, make_state(2))
    assert names(root) == ["5", "5.sha256.json"]


def test_going_back_sets_later_steps_aside(store, root):
    for step in (10, 20, 30):
        store.save(step, make_state(step))
    wanted = abstract(make_state(0))
    assert store.restore(wanted, step=10).step == 10
    store.save(15, make_state(15))
    store.wait()
    assert store.steps() == (10, 15)
    assert store.restore(wanted).step == 15
    assert {"superseded-20", "superseded-30.sha256.json"} <= set(names(root))


def test_the_same_steps_are_saved_again_after_going_back(store, root):
    for step in (10, 20, 30):
        store.save(step, make_state(step))
    wanted = abstract(make_state(0))
    assert_same_bits(store.restore(wanted, step=10).state, make_state(10))
    for step in (20, 30):
        store.save(step, make_state(100 + step))
        assert store.restore(wanted).step == step
        assert_same_bits(store.restore(wanted).state, make_state(100 + step))
    assert store.steps() == (10, 20, 30)
    # What 20 replaced is gone like any step that is saved twice; 30 was set aside.
    assert {name for name in names(root) if "-" in name} == {
        "superseded-30",
        "superseded-30.sha256.json",
    }


def test_leaving_the_context_publishes(root):
    def interrupted():
        with checkpoints.Checkpoints(root) as store:
            store.save(1, make_state(1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with checkpoints.Checkpoints(root) as store:
        assert store.steps() == (1,)


def test_saving_does_not_wait_for_the_disk(store, monkeypatch):
    go_on = threading.Event()
    write = files.write_json
    monkeypatch.setattr(
        files, "write_json", lambda *args: go_on.wait(20) and write(*args)
    )
    store.save(1, make_state(1))
    time.sleep(0.1)
    store.poll()
    assert store.steps() == ()
    go_on.set()
    store.wait()
    assert store.steps() == (1,)


def test_orbax_is_quiet_and_others_are_not(store, caplog):
    caplog.set_level(logging.DEBUG, logger="absl")
    store.save(1, make_state(1))
    store.restore(abstract(make_state(1)))
    logging.getLogger("absl").info("of the application")
    assert [
        record.getMessage() for record in caplog.records if record.name == "absl"
    ] == ["of the application"]
