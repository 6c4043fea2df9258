"""Peaks of known devices, none of unknown ones; TPU slices that are not here."""

import importlib.util
import types

import jax
import pytest

from ddpm_jax.core import errors
from ddpm_jax.runtime import hardware, tpu_topology

HAS_LIBTPU = importlib.util.find_spec("libtpu") is not None
needs_libtpu = pytest.mark.skipif(
    not HAS_LIBTPU, reason="needs the TPU compiler: pip install 'ddpm-jax[tpu]'"
)


@pytest.mark.parametrize(
    ("kind", "devices", "teraflops"),
    [
        ("TPU v3", 2, 123),  # two cores a chip
        ("TPU v4", 1, 275),
        ("TPU v5 lite", 256, 50_432),  # a pod, as its page says: 50.43 PFLOP/s
        ("TPU7x", 2, 2307),  # two devices a chip
        ("NVIDIA H100 80GB HBM3", 2, 1978.8),  # the sheet's number, with sparsity
        ("NVIDIA A100-SXM4-40GB", 1, 312),
    ],
)
def test_peaks_of_whole_machines(kind, devices, teraflops):
    peak = hardware.peak_flops(kind, "bfloat16")
    assert devices * peak == pytest.approx(teraflops * 1e12, rel=1e-3)


def test_float32_is_what_the_compiler_makes_of_it():
    for kind, peak in hardware.PEAKS.items():
        if kind.startswith("TPU"):
            assert peak.float32 == peak.bfloat16
        elif peak.bfloat16:  # TF32 is half as fast on every card that has it
            assert peak.float32 == pytest.approx(peak.bfloat16 / 2, rel=0.02)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_not_known_is_not_guessed(dtype):
    assert hardware.peak_flops("cpu", dtype) is None
    assert hardware.peak_flops("NVIDIA Z9000", dtype) is None
    assert hardware.memory_bytes(jax.devices()[0]) is None


def test_cards_without_units_for_bfloat16():
    assert hardware.peak_flops("Tesla T4", "bfloat16") is None
    assert hardware.peak_flops("Tesla T4", "float32") > 0


def test_a_device_knows_its_memory_better_than_the_table():
    def device(stats):
        return types.SimpleNamespace(
            device_kind="NVIDIA H100 80GB HBM3", memory_stats=lambda: stats
        )

    assert hardware.memory_bytes(device({"bytes_limit": 60 * 10**9})) == 60 * 10**9
    assert hardware.memory_bytes(device(None)) == 80 * 10**9


# ---- topologies ----------------------------------------------------------------------


@pytest.mark.skipif(HAS_LIBTPU, reason="libtpu is installed")
def test_without_libtpu_the_command_is_told():
    with pytest.raises(errors.Refusal, match=r"pip install 'ddpm-jax\[tpu\]'"):
        tpu_topology.devices("v5e:2x2")


@pytest.fixture
def environment(monkeypatch):
    """What `topologies.devices` sets, taken back afterwards."""
    for variable, value in tpu_topology.ENVIRONMENT.items():
        monkeypatch.setenv(variable, value)


@needs_libtpu
@pytest.mark.parametrize(
    ("name", "count", "kind", "memory"),
    [
        ("v5e:2x4", 8, "TPU v5 lite", 16),
        ("v4:2x2x2", 8, "TPU v4", 32),
        ("v5p:2x2x2", 8, "TPU v5", 95),
        ("v6e:4x4", 16, "TPU v6 lite", 32),
        ("v3:2x2", 8, "TPU v3", 16),
    ],
)
def test_devices_of_a_slice(environment, name, count, kind, memory):
    found = tpu_topology.devices(name)
    assert [device.device_kind for device in found] == [kind] * count
    assert hardware.peak_flops(kind, "bfloat16") > 0
    assert hardware.memory_bytes(found[-1]) == memory * 2**30


@needs_libtpu
@pytest.mark.parametrize("name", ["h100", "v5e:3x5", "v9z:2x2", "v5e"])
def test_unknown_slices_are_refused(environment, name):
    with pytest.raises(errors.Refusal, match=f"'{name}'.*such as v5e:2x4"):
        tpu_topology.devices(name)
