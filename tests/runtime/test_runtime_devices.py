"""An idle accelerator stops a run; a CPU that was asked for does not."""

import os
import subprocess
import sys

import pytest

from ddpm_jax.core import errors
from ddpm_jax.runtime import devices
from ddpm_jax.runtime.devices import Facts


def test_an_idle_gpu_is_told_with_the_line_that_helps():
    sentence = devices.idle(Facts("cpu", nvidia="/dev/nvidia0"))
    for part in ("NVIDIA", "/dev/nvidia0", "CPU"):
        assert part in sentence
    assert 'pip install -U "jax[cuda12]"' in sentence
    assert "JAX_PLATFORMS=cpu" in sentence


def test_an_idle_tpu_is_told_with_the_line_that_helps():
    sentence = devices.idle(Facts("cpu", tpu="/dev/accel0"))
    assert "TPU" in sentence
    assert "/dev/accel0" in sentence
    assert 'pip install -U "jax[tpu]"' in sentence


@pytest.mark.parametrize(
    "facts",
    [
        Facts("cpu"),
        Facts("gpu", nvidia="/dev/nvidia0"),
        Facts("tpu", tpu="/dev/accel0"),
        Facts("gpu", platforms="cuda,cpu", nvidia="/dev/nvidia0"),
        Facts("cpu", platforms="cpu", nvidia="/dev/nvidia0", tpu="/dev/accel0"),
    ],
)
def test_what_is_in_order_is_not_told(facts):
    assert devices.idle(facts) is None


def test_a_cpu_that_came_second_was_not_asked_for():
    assert devices.idle(Facts("cpu", platforms="cuda,cpu", nvidia="/dev/nvidia0"))


def test_check_refuses(monkeypatch):
    monkeypatch.setattr(devices, "probe", lambda: Facts("cpu", nvidia="/dev/nvidia0"))
    with pytest.raises(errors.Refusal, match="An NVIDIA GPU is visible"):
        devices.check()


def test_the_tests_ask_for_the_cpu():
    facts = devices.probe()
    assert (facts.backend, facts.platforms) == ("cpu", "cpu")
    devices.check()


# ---- what shows an accelerator -------------------------------------------------------


def machine(root, *paths):
    """Return `root` as the file system of a machine with these files."""
    for path in ("dev/null", *paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def nothing():
    return ""


@pytest.mark.parametrize(
    ("paths", "sign"),
    [
        ((), ""),
        (("dev/nvidiactl", "dev/nvidia-uvm"), ""),  # the driver without a card
        (("dev/nvidia0", "dev/nvidiactl"), "dev/nvidia0"),
        (("dev/nvidia3",), "dev/nvidia3"),
        (("proc/driver/nvidia/gpus/0000:01:00.0/information",), "driver/nvidia/gpus"),
        (("proc/driver/nvidia/version",), ""),
    ],
)
def test_files_that_show_a_gpu(paths, sign, tmp_path):
    found = devices.nvidia_sign({}, root=machine(tmp_path, *paths), listed=nothing)
    assert found.endswith(sign)
    assert bool(found) == bool(sign)


def test_a_gpu_that_only_its_program_lists(tmp_path):
    root = machine(tmp_path)
    listed = "GPU 0: NVIDIA GeForce RTX 4090 (UUID: GPU-1)\n"
    assert devices.nvidia_sign({}, root=root, listed=lambda: listed) == "nvidia-smi -L"
    silent = "No devices found.\n"
    assert devices.nvidia_sign({}, root=root, listed=lambda: silent) == ""


@pytest.mark.parametrize("hidden", ["", "-1", "none"])
def test_a_hidden_gpu_is_none(hidden, tmp_path):
    root = machine(tmp_path, "dev/nvidia0")
    shown = {"CUDA_VISIBLE_DEVICES": "0"}
    assert devices.nvidia_sign(shown, root=root, listed=nothing)
    hides = {"CUDA_VISIBLE_DEVICES": hidden}
    assert devices.nvidia_sign(hides, root=root, listed=nothing) == ""


def test_what_shows_a_tpu(tmp_path):
    root = machine(tmp_path, "dev/accelerometer")
    assert devices.tpu_sign({}, root=root) == ""
    assert devices.tpu_sign({"TPU_WORKER_ID": "0"}, root=root) == "TPU_WORKER_ID"
    machine(tmp_path, "dev/accel2")
    assert devices.tpu_sign({}, root=root).endswith("dev/accel2")


@pytest.mark.parametrize(
    ("program", "sign"),
    [("echo 'GPU 0: H100'", "nvidia-smi -L"), ("exit 9", ""), (None, "")],
)
def test_the_driver_is_asked(program, sign, tmp_path, monkeypatch):
    if program:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{program}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert devices.nvidia_sign({}, root=machine(tmp_path / "root")) == sign


SPLIT = """
import jax
from ddpm_jax.runtime import devices
devices.split_cpu(2)
print(jax.local_device_count())
devices.split_cpu(4)
print(jax.local_device_count())
"""


@pytest.mark.parametrize(
    ("given", "printed"),
    [
        ("", ["2", "2"]),
        ("--xla_force_host_platform_device_count=3", ["3", "3"]),
    ],
)
def test_a_cpu_is_split_unless_a_number_was_told(given, printed):
    environment = {**os.environ, "XLA_FLAGS": given, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", SPLIT],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == printed
