"""What is never written, and reading a part of what was."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoint_states import BIG, BIG_BYTES, abstract, assert_same_bits, train_state

from ddpm_jax.core import errors
from ddpm_jax.runs import checkpoints
from ddpm_jax.runtime import sharding
from ddpm_jax.training import resources


def make_state(seed=0):
    """Return a train state sharded over 2 × 4 devices."""
    state = train_state(seed)
    grid = sharding.make_mesh(2, 4)
    return jax.device_put(state, sharding.state_shardings(grid, state))


@pytest.fixture
def root(tmp_path):
    return tmp_path / "checkpoints"


@pytest.fixture
def store(root):
    with checkpoints.Checkpoints(root) as opened:
        yield opened


# ---- what is not finite --------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "place"),
    [(np.nan, (0, 0)), (np.inf, (255, 511)), (-np.inf, (100, 300))],
)
def test_no_shard_that_is_not_finite_is_written(store, root, value, place):
    state = make_state()
    store.save(1, state)
    store.wait()
    before = sorted(path.name for path in root.rglob("*"))
    kernel = state.ema["0.9999"]["stem"]["kernel"]
    assert kernel.sharding.shard_shape(BIG) == (256, 128)
    bad = jax.device_put(kernel.at[place].set(value), kernel.sharding)
    state.ema["0.9999"]["stem"]["kernel"] = bad
    told = r"step 2 is not written: ema/0\.9999/stem/kernel holds NaN or infinity"
    with pytest.raises(errors.Refusal, match=told):
        store.save(2, state)
    assert sorted(path.name for path in root.rglob("*")) == before
    assert store.latest_step() == 1


def test_the_first_of_several_is_named_and_nothing_is_made(store, root):
    state = {
        "a": jnp.array([1, 2**31 - 1], jnp.int32),  # not a float: all its bits are good
        "b": jnp.array([jnp.finfo(jnp.float32).max, -0.0, 1e-45]),
        "c": {"d": jnp.array([1.0, np.nan], jnp.bfloat16)},
        "f": jnp.array(np.inf),
    }
    with pytest.raises(errors.Refusal, match="step 5 is not written: c/d holds"):
        store.save(5, state)
    assert not root.exists()
    state["c"]["d"] = jnp.ones(2)
    with pytest.raises(errors.Refusal, match="step 5 is not written: f holds"):
        store.save(5, state)
    state["f"] = jnp.array(0.0)
    store.save(5, state)
    store.wait()
    assert store.steps() == (5,)


def test_saving_compiles_one_program_for_each_shape(store):
    # By default Orbax would slice every leaf, for every one of eight replicas.
    grid = sharding.make_mesh()
    lengths = (24, 40, 56)
    state = {
        f"{number}": jnp.full((lengths[number % 3], 7), 0.5) for number in range(9)
    }
    state = jax.device_put(state, sharding.replicated(grid))
    before = resources.compilations()
    store.save(1, state)
    store.wait()
    assert resources.compilations() - before == len(lengths)  # is it finite?
    store.save(2, state)
    store.wait()
    assert resources.compilations() - before == len(lengths)


# ---- a part --------------------------------------------------------------------------


def bytes_read():
    try:
        with open("/proc/self/io") as file:
            return int(file.readline().split()[1])
    except FileNotFoundError:
        pytest.skip("the system does not count the bytes read")


@pytest.mark.parametrize("hole", [(), None])
def test_weights_come_without_the_moments(store, hole):
    state = make_state()
    store.save(3, state)
    store.wait()
    whole = abstract(state)
    wanted = whole.replace(opt_state=hole, timesteps=hole)
    start = bytes_read()
    assert_same_bits(store.restore(whole).state, state)
    all_bytes = bytes_read() - start
    restored = store.restore(wanted, partial=True)
    part_bytes = bytes_read() - start - all_bytes
    assert_same_bits(restored.state, state.replace(opt_state=hole, timesteps=hole))
    assert restored.step == 3
    kernel = restored.state.params["stem"]["kernel"]
    assert kernel.sharding.is_equivalent_to(whole.params["stem"]["kernel"].sharding, 2)
    # Both moments of the big kernel stay where they are.
    assert all_bytes - part_bytes > 1.8 * BIG_BYTES


def test_a_part_of_one_mapping_can_be_left_out(store):
    state = make_state()
    store.save(3, state)
    ema = {"0.99": abstract(state).ema["0.99"]}
    wanted = abstract(state).replace(opt_state=(), params={}, ema=ema, timesteps=())
    restored = store.restore(wanted, partial=True).state
    assert_same_bits(restored.ema, {"0.99": state.ema["0.99"]})
    assert restored.params == {}


def test_a_part_has_to_fit_and_to_be_asked_for(store):
    state = make_state()
    store.save(3, state)
    wanted = abstract(state).replace(opt_state=())
    with pytest.raises(errors.Refusal, match=r"opt_state/1/0/count is int32.* missing"):
        store.restore(wanted)
    head = {"kernel": jax.ShapeDtypeStruct((512, 3), jnp.bfloat16)}
    other = wanted.replace(params={"head": head})
    told = r"params/head/kernel is float32\[512, 3\] .* bfloat16\[512, 3\] here"
    with pytest.raises(errors.Refusal, match=told):
        store.restore(other, partial=True)
    more = wanted.replace(params={"head": {"other": head["kernel"]}})
    with pytest.raises(errors.Refusal, match="params/head/other is missing in"):
        store.restore(more, partial=True)


def test_damage_anywhere_is_noticed_by_a_part_too(store, root):
    first = make_state(1)
    store.save(1, first)
    store.save(2, make_state(2))
    store.wait()
    hurt = max((root / "2").rglob("*"), key=lambda path: path.stat().st_size)
    data = bytearray(hurt.read_bytes())
    data[len(data) // 2] ^= 1
    hurt.write_bytes(data)
    restored = store.restore(abstract(first).replace(opt_state=()), partial=True)
    assert restored.step == 1
    assert "has changed; set aside as damaged-2" in restored.skipped[0][1]
    assert_same_bits(restored.state.params, first.params)
