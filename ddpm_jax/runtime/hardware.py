"""What the makers of accelerators promise: peak speed and memory of a device.

The names are those of `jax.Device.device_kind`. A device is what JAX calls one: a core
of TPU v2 and v3, half a chip of TPU7x, else a chip or a card. A device that is not
listed is unknown, and so is the speed of a CPU: a model FLOP utilisation (MFU) of a
guessed peak would be worse than none.

Sources, all for dense arithmetic (NVIDIA's larger numbers are for sparse matrices):
cloud.google.com/tpu/docs, the pages of v2 … v6e and tpu7x; NVIDIA's data sheets of
B200 (in DGX B200), H200, H100, GH200, A100, A40, A10G, L40S, L40, L4, V100 and T4 and
its architecture papers of Ada (RTX 4090, 4080, 6000), Ampere GA102 (RTX 3090, 3080,
A6000) and Blackwell (RTX 5090).
"""

from typing import NamedTuple

import jax

GIB = 2**30
GB = 10**9  # what the data sheets of GPUs count in


class Peak(NamedTuple):
    """The most that a device can do and hold.

    Attributes:
        bfloat16: FLOP/s of matrix products, accumulated in float32; None without units
            for them.
        float32: FLOP/s of float32 programs as XLA compiles them by default: on TPUs
            products are of bfloat16, on GPUs since Ampere of TF32.
        memory: bytes.
    """

    bfloat16: float | None
    float32: float
    memory: int


PEAKS = {
    "TPU v2": Peak(22.5e12, 22.5e12, 8 * GIB),
    "TPU v3": Peak(61.5e12, 61.5e12, 16 * GIB),
    "TPU v4": Peak(275e12, 275e12, 32 * GIB),
    "TPU v5 lite": Peak(197e12, 197e12, 16 * GIB),
    "TPU v5e": Peak(197e12, 197e12, 16 * GIB),
    "TPU v5": Peak(459e12, 459e12, 95 * GIB),
    "TPU v5p": Peak(459e12, 459e12, 95 * GIB),
    "TPU v6 lite": Peak(918e12, 918e12, 32 * GIB),
    "TPU v6e": Peak(918e12, 918e12, 32 * GIB),
    "TPU7x": Peak(1153.5e12, 1153.5e12, 96 * GIB),
    "NVIDIA B200": Peak(2250e12, 1125e12, 180 * GB),
    "NVIDIA H200": Peak(989.4e12, 494.7e12, 141 * GB),
    "NVIDIA H100 80GB HBM3": Peak(989.4e12, 494.7e12, 80 * GB),
    "NVIDIA H100 PCIe": Peak(756e12, 378e12, 80 * GB),
    "NVIDIA H100 NVL": Peak(835e12, 417.5e12, 94 * GB),
    "NVIDIA GH200 480GB": Peak(989.4e12, 494.7e12, 96 * GB),
    "NVIDIA A100-SXM4-80GB": Peak(312e12, 156e12, 80 * GB),
    "NVIDIA A100-SXM4-40GB": Peak(312e12, 156e12, 40 * GB),
    "NVIDIA A100 80GB PCIe": Peak(312e12, 156e12, 80 * GB),
    "NVIDIA A100-PCIE-40GB": Peak(312e12, 156e12, 40 * GB),
    "NVIDIA A40": Peak(149.7e12, 74.8e12, 48 * GB),
    "NVIDIA A10G": Peak(70e12, 35e12, 24 * GB),
    "NVIDIA L40S": Peak(362e12, 183e12, 48 * GB),
    "NVIDIA L40": Peak(181e12, 90.5e12, 48 * GB),
    "NVIDIA L4": Peak(121e12, 60e12, 24 * GB),
    "NVIDIA RTX 6000 Ada Generation": Peak(364.2e12, 182.1e12, 48 * GB),
    "NVIDIA RTX A6000": Peak(154.8e12, 77.4e12, 48 * GB),
    "NVIDIA GeForce RTX 5090": Peak(209.5e12, 104.8e12, 32 * GB),
    "NVIDIA GeForce RTX 4090": Peak(165.2e12, 82.6e12, 24 * GB),
    "NVIDIA GeForce RTX 4080": Peak(97.5e12, 48.7e12, 16 * GB),
    "NVIDIA GeForce RTX 3090": Peak(71e12, 35.6e12, 24 * GB),
    "NVIDIA GeForce RTX 3080": Peak(59.5e12, 29.8e12, 10 * GB),
    # Without units for bfloat16 or TF32: float32 is that of the ordinary cores.
    "Tesla V100-SXM2-16GB": Peak(None, 15.7e12, 16 * GB),
    "Tesla V100-SXM2-32GB": Peak(None, 15.7e12, 32 * GB),
    "Tesla V100-PCIE-16GB": Peak(None, 14e12, 16 * GB),
    "Tesla T4": Peak(None, 8.1e12, 16 * GB),
}


def peak_flops(device_kind: str, dtype: str) -> float | None:
    """Return the peak FLOP/s of one device, or None where it is not known.

    Args:
        device_kind: as `jax.Device.device_kind` says it.
        dtype: of the computation, "float32" or "bfloat16".
    """
    known = PEAKS.get(device_kind)
    if known is None:
        return None
    return {"bfloat16": known.bfloat16, "float32": known.float32}[dtype]


def memory_bytes(device: jax.Device) -> int | None:
    """Return the bytes that a program may use on a device, or None if nobody tells.

    The device itself knows best: it knows what JAX leaves to others. One that is only
    described (see `tpu_topology`) or does not tell has what its data sheet says.
    """
    try:
        stats = device.memory_stats() or {}
    except jax.errors.JaxRuntimeError:  # of a device that is described, or elsewhere
        stats = {}
    known = PEAKS.get(device.device_kind)
    return stats.get("bytes_limit") or (known and known.memory)
