"""The versions that a result depends on."""

import importlib.metadata
import platform
import re

import ddpm_jax

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def versions() -> dict[str, str]:
    """Return the versions of Python, this package and what it computes with."""
    found = {"python": platform.python_version(), "ddpm_jax": ddpm_jax.__version__}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def numbers(version) -> tuple[int, ...]:
    """Return what versions are compared by: (0, 10) for "0.10.0rc1".

    Zeros at the end count for nothing, so that 0.2 is 0.2.0; () is no version.
    """
    found = re.match(r"\d+(\.\d+)*", version) if isinstance(version, str) else None
    parts = [int(part) for part in found[0].split(".")] if found else []
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)
