"""An accelerator that is there but not used is an error, not a slow run."""

import dataclasses
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import jax

from ddpm_jax.core import errors
from ddpm_jax.runtime.console import say

NVIDIA_DEVICE = re.compile(r"nvidia\d+")
TPU_DEVICE = re.compile(r"accel\d+")
TPU_VARIABLES = ("TPU_ACCELERATOR_TYPE", "TPU_WORKER_ID")  # set on Google's TPU VMs
HOST_DEVICES = "--xla_force_host_platform_device_count"  # of XLA_FLAGS
HIDDEN = ("", "-1", "none", "NoDevFiles")  # CUDA_VISIBLE_DEVICES that shows no GPU
MISSING = {
    "nvidia": ("An NVIDIA GPU", 'pip install -U "jax[cuda12]"'),
    "tpu": ("A TPU", 'pip install -U "jax[tpu]"'),
}


@dataclasses.dataclass(frozen=True)
class Facts:
    """What decides whether an accelerator lies idle.

    Attributes:
        backend: what JAX computes on: "cpu", "gpu", "tpu", ….
        platforms: what JAX was told to use, e.g. "cpu" or "cuda,cpu"; "" for nothing.
        nvidia: what shows an NVIDIA GPU that is not hidden, e.g. "/dev/nvidia0"; "" if
            nothing does.
        tpu: what shows a TPU; "" if nothing does.
    """

    backend: str
    platforms: str = ""
    nvidia: str = ""
    tpu: str = ""


def idle(facts: Facts) -> str | None:
    """Return the sentence about an accelerator that lies idle by mistake, or None.

    It is no mistake where JAX was told to use the CPU.
    """
    if facts.backend != "cpu" or facts.platforms.split(",")[0] == "cpu":
        return None
    for kind, sign in (("nvidia", facts.nvidia), ("tpu", facts.tpu)):
        if sign:
            what, command = MISSING[kind]
            return (
                f"{what} is visible ({sign}) but JAX runs on the CPU: {command}; to "
                "use the CPU on purpose set JAX_PLATFORMS=cpu"
            )
    return None


def split_cpu(count: int) -> None:
    """Have the CPU be several devices, between which a batch is split.

    Operations of small networks are too small to be split over cores one by one.
    Nothing is changed by 0, nor where the process was told a number of devices before,
    or JAX has started.

    Args:
        count: number of devices, at most that of the cores for any gain.
    """
    told = HOST_DEVICES in os.environ.get("XLA_FLAGS", "")
    if not count or told or jax.config.jax_num_cpu_devices > 0:
        return
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:  # JAX has started
        if jax.default_backend() == "cpu" and jax.local_device_count() != count:
            say(
                f"mesh.cpu_devices={count} is left out: JAX has started with "
                f"{jax.local_device_count()}"
            )


def check() -> None:
    """Refuse to compute on the CPU of a machine whose accelerator lies idle.

    Raises:
        Refusal: with the line that installs what is missing.
    """
    sentence = idle(probe())
    if sentence:
        raise errors.Refusal(sentence)


def probe() -> Facts:
    """Return the facts of this process and machine; starts JAX."""
    return Facts(
        backend=jax.default_backend(),
        platforms=jax.config.jax_platforms or "",
        nvidia=nvidia_sign(os.environ),
        tpu=tpu_sign(os.environ),
    )


def nvidia_sign(
    environment,
    *,
    root: Path = Path("/"),
    listed: Callable[[], str] | None = None,
) -> str:
    """Return what shows an NVIDIA GPU, or "" where there is none or it is hidden.

    Args:
        environment: variables; CUDA_VISIBLE_DEVICES hides.
        root: where /dev and /proc are.
        listed: returns what `nvidia-smi -L` prints, "" if it fails.
    """
    if environment.get("CUDA_VISIBLE_DEVICES", "all").strip() in HIDDEN:
        return ""
    found = _device(root / "dev", NVIDIA_DEVICE)
    driver = root / "proc" / "driver" / "nvidia" / "gpus"
    if not found and driver.is_dir() and any(driver.iterdir()):
        found = str(driver)
    if not found and "GPU 0" in (listed or _listed_by_nvidia_smi)():
        found = "nvidia-smi -L"  # under WSL there is no device file
    return found


def tpu_sign(environment, *, root: Path = Path("/")) -> str:
    """Return what shows a TPU: a device file or a variable of a TPU VM, or ""."""
    named = (name for name in TPU_VARIABLES if name in environment)
    return _device(root / "dev", TPU_DEVICE) or next(named, "")


def _device(folder, pattern):
    names = sorted(os.listdir(folder)) if folder.is_dir() else []
    return next((str(folder / name) for name in names if pattern.fullmatch(name)), "")


def _listed_by_nvidia_smi():
    """Return the GPUs that the driver lists, a line each.

    That the program is there says nothing: images of containers carry it too.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    try:
        answer = subprocess.run(
            [program, "-L"], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""  # a driver that does not answer shows no GPU that could be used
    return answer.stdout
