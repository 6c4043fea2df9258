"""One mesh for every machine, and the rules by which arrays are laid out on it.

The mesh has two axes: the batch is split over both, parameters (and everything shaped
like them) over `fsdp` only. A single device is the mesh (1, 1). The axes are Auto: the
compiler places what lies between the stated inputs and outputs.

With several processes the mesh covers the devices of all of them, those of a process
side by side: its rows of a batch are one slice, whatever the machine.
"""

from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ddpm_jax.core import errors

AXES = ("data", "fsdp")

MIN_SHARDED_ELEMENTS = 1024
"""Smaller leaves are replicated: gathering 4 KiB costs more than it frees."""


def make_mesh(
    data: int = -1, fsdp: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """Return the mesh ("data", "fsdp") over all devices.

    Args:
        data: ways to split the batch alone; -1 takes what `fsdp` leaves.
        fsdp: ways to split parameters, optimizer state and averages.
        devices: the devices to use; all of all processes by default.

    Raises:
        Refusal: `data` × `fsdp` is not the number of devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    count = len(devices)
    divisors = ", ".join(str(n) for n in range(1, count + 1) if count % n == 0)
    if fsdp < 1 or count % fsdp:
        raise errors.Refusal(
            f"mesh.fsdp={fsdp} does not divide the {count} devices here: "
            f"choose one of {divisors}"
        )
    if data not in (-1, count // fsdp):
        raise errors.Refusal(
            f"mesh.data={data} times mesh.fsdp={fsdp} is not the {count} devices "
            f"here: set mesh.data={count // fsdp}, or -1 for all that fsdp leaves"
        )
    shape = (count // fsdp, fsdp)
    # Not jax.make_mesh, which may place the devices of a process apart.
    in_order = sorted(devices, key=lambda device: (device.process_index, device.id))
    # Auto: with Explicit axes a sharded convolution kernel would be an error.
    return Mesh(np.array(in_order).reshape(shape), AXES, (AxisType.Auto,) * 2)


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of a value that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of a batch [B, ...]: B split over all devices."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def state_shardings(mesh: Mesh, shapes, min_elements: int = MIN_SHARDED_ELEMENTS):
    """Return the sharding of every leaf of a train state, parameters, averages, ….

    A leaf is split over `fsdp` along its largest axis that divides evenly (the first
    of several); a leaf without one, or with few elements, is replicated. The rule sees
    shapes alone, so moments and averages lie exactly like their parameters.

    Args:
        mesh: from `make_mesh`.
        shapes: pytree of arrays or `jax.ShapeDtypeStruct`.
        min_elements: leaves with fewer elements are replicated.

    Returns:
        The same pytree of `NamedSharding`.
    """
    ways = mesh.shape["fsdp"]

    def sharding(leaf) -> NamedSharding:
        divisible = [
            axis
            for axis, length in enumerate(leaf.shape)
            if length and length % ways == 0
        ]
        if ways == 1 or leaf.size < min_elements or not divisible:
            return replicated(mesh)
        split = max(divisible, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * split, "fsdp"))

    return jax.tree.map(sharding, shapes)


def put_batch(mesh: Mesh, batch):
    """Move host arrays to the devices, axis 0 split over all of them.

    Args:
        mesh: from `make_mesh`.
        batch: pytree of NumPy arrays [B / number of processes, ...], the rows of this
            process. They are copied and may be overwritten afterwards.

    Returns:
        The same pytree of global arrays [B, ...].
    """
    sharding = batch_sharding(mesh)

    def put(rows) -> jax.Array:
        # JAX may keep reading the host buffer (on a CPU for as long as the array
        # lives), so it gets one that nobody else can overwrite.
        return jax.make_array_from_process_local_data(sharding, np.array(rows))

    return jax.tree.map(put, batch)


def process_rows(mesh: Mesh, batch_size: int) -> slice:
    """Return the rows of a global batch that this process's devices hold.

    Args:
        mesh: from `make_mesh`.
        batch_size: global number of examples, a multiple of the devices.
    """
    held = batch_sharding(mesh).addressable_devices_indices_map((batch_size,))
    bounds = [rows.indices(batch_size)[:2] for (rows,) in held.values()]
    return slice(min(start for start, _ in bounds), max(stop for _, stop in bounds))


def put_whole(mesh: Mesh, batch):
    """Do as `put_batch`, with host arrays [B, ...] that every process holds whole."""

    def own(rows) -> np.ndarray:
        return rows[process_rows(mesh, len(rows))]

    return put_batch(mesh, jax.tree.map(own, batch))


def to_host(array: jax.Array) -> np.ndarray:
    """Return an array whole; with several processes all must call it alike."""
    if array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    return multihost_utils.process_allgather(array, tiled=True)


def check_batch(mesh: Mesh, batch_size: int, name: str) -> None:
    """Refuse a batch that the devices cannot share equally.

    Args:
        mesh: from `make_mesh`.
        batch_size: global number of examples.
        name: the config field it comes from, for the message.

    Raises:
        Refusal: names the nearest sizes that work.
    """
    count = mesh.size
    below = batch_size // count * count
    if batch_size < 1 or batch_size != below:
        nearest = f"{below} or {below + count}" if below > 0 else f"{count}"
        raise errors.Refusal(
            f"{name}={batch_size} cannot be split equally over {count} devices: "
            f"use {nearest}"
        )
