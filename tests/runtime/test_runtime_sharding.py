import jax
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from ddpm_jax.core import errors
from ddpm_jax.runtime import sharding as meshes

SHAPES = {
    "kernel": jax.ShapeDtypeStruct((3, 3, 16, 64), "float32"),
    "transposed": jax.ShapeDtypeStruct((64, 32), "bfloat16"),
    "equal": jax.ShapeDtypeStruct((32, 32), "float32"),
    "odd": jax.ShapeDtypeStruct((101, 103), "float32"),
    "second": jax.ShapeDtypeStruct((101, 20), "float32"),
    "bias": (jax.ShapeDtypeStruct((64,), "float32"),),
    "step": jax.ShapeDtypeStruct((), "int32"),
}


@pytest.mark.parametrize("shape", [(8, 1), (2, 4), (1, 8)])
def test_mesh_takes_all_devices(shape):
    mesh = meshes.make_mesh(-1, shape[1])
    assert dict(mesh.shape) == {"data": shape[0], "fsdp": shape[1]}
    assert mesh.axis_types == (AxisType.Auto, AxisType.Auto)
    assert set(mesh.devices.flat) == set(jax.devices())
    assert meshes.make_mesh(*shape) == mesh


def test_one_device_is_a_mesh_too():
    mesh = meshes.make_mesh(devices=jax.devices()[:1])
    assert dict(mesh.shape) == {"data": 1, "fsdp": 1}


@pytest.mark.parametrize(
    ("data", "fsdp", "told"),
    [
        (-1, 3, "fsdp=3.*1, 2, 4, 8"),
        (-1, 0, "fsdp=0.*1, 2, 4, 8"),
        (-1, 16, "fsdp=16.*1, 2, 4, 8"),
        (2, 2, "data=2 times mesh.fsdp=2.*set mesh.data=4"),
        (0, 8, "data=0.*set mesh.data=1"),
    ],
)
def test_sizes_that_do_not_multiply_to_the_devices_are_refused(data, fsdp, told):
    with pytest.raises(errors.Refusal, match=told):
        meshes.make_mesh(data, fsdp)


def test_state_is_split_along_the_largest_divisible_axis():
    specs = jax.tree.map(
        lambda sharding: sharding.spec,
        meshes.state_shardings(meshes.make_mesh(2, 4), SHAPES),
    )
    whole = PartitionSpec()
    assert specs == {
        "kernel": PartitionSpec(None, None, None, "fsdp"),
        "transposed": PartitionSpec("fsdp"),
        "equal": PartitionSpec("fsdp"),
        "odd": whole,
        "second": PartitionSpec(None, "fsdp"),
        "bias": (whole,),
        "step": whole,
    }


def test_nothing_is_split_without_fsdp():
    for mesh in (meshes.make_mesh(8, 1), meshes.make_mesh(devices=jax.devices()[:1])):
        for sharding in jax.tree.leaves(meshes.state_shardings(mesh, SHAPES)):
            assert sharding.is_fully_replicated


def test_each_device_holds_its_share_of_a_split_leaf():
    mesh = meshes.make_mesh(2, 4)
    leaf = np.arange(64 * 32, dtype=np.float32).reshape(64, 32)
    placed = jax.device_put(leaf, meshes.state_shardings(mesh, leaf))
    assert {shard.data.shape for shard in placed.addressable_shards} == {(16, 32)}
    np.testing.assert_array_equal(placed, leaf)


@pytest.mark.parametrize("shape", [(8, 1), (2, 4)])
def test_batch_is_split_over_both_axes_in_order(shape):
    mesh = meshes.make_mesh(*shape)
    host = {"x": np.arange(16.0).reshape(16, 1), "labels": np.arange(16)}
    batch = meshes.put_batch(mesh, host)
    for name, rows in host.items():
        np.testing.assert_array_equal(batch[name], rows)
        shards = {s.device: s.data for s in batch[name].addressable_shards}
        for position, device in enumerate(mesh.devices.flat):
            expected = rows[2 * position : 2 * position + 2]
            np.testing.assert_array_equal(shards[device], expected)


def test_devices_of_a_process_stand_side_by_side():
    class Device:
        def __init__(self, process_index, id_):
            self.process_index, self.id = process_index, id_

    # As JAX numbers them on CPUs: those of process 1 from 2048.
    devices = [Device(1, 2049), Device(0, 1), Device(1, 2048), Device(0, 0)]
    mesh = meshes.make_mesh(2, 2, devices=devices)
    ordered = [(device.process_index, device.id) for device in mesh.devices.flat]
    assert ordered == [(0, 0), (0, 1), (1, 2048), (1, 2049)]


@pytest.mark.parametrize("shape", [(8, 1), (2, 4)])
def test_a_batch_that_each_process_holds_whole(shape):
    mesh = meshes.make_mesh(*shape)
    host = {"x": np.arange(16.0).reshape(16, 1), "labels": np.arange(16)}
    assert meshes.process_rows(mesh, 16) == slice(0, 16)
    whole, own = meshes.put_whole(mesh, host), meshes.put_batch(mesh, host)
    for name, rows in host.items():
        assert whole[name].sharding == own[name].sharding
        np.testing.assert_array_equal(meshes.to_host(whole[name]), rows)


def test_batch_does_not_change_with_the_host_buffer():
    # Aligned to 64 bytes, a buffer is one that JAX would share on a CPU.
    raw = np.zeros(4096 + 64, np.uint8)
    start = -raw.ctypes.data % 64
    buffer = raw[start : start + 4096].view(np.float32).reshape(1, 1024)
    mesh = meshes.make_mesh(devices=jax.devices()[:1])
    batch = meshes.put_batch(mesh, buffer)
    buffer[:] = 7
    np.testing.assert_array_equal(batch, np.zeros((1, 1024)))


@pytest.mark.parametrize("size", [8, 16, 128])
def test_batches_that_divide_pass(size):
    meshes.check_batch(meshes.make_mesh(2, 4), size, "train.batch_size")


@pytest.mark.parametrize(
    ("size", "told"),
    [(20, "use 16 or 24$"), (7, "use 8$"), (0, "use 8$"), (-8, "use 8$")],
)
def test_batches_that_do_not_divide_name_the_nearest(size, told):
    with pytest.raises(errors.Refusal, match=f"train.batch_size={size} .*{told}"):
        meshes.check_batch(meshes.make_mesh(2, 4), size, "train.batch_size")
