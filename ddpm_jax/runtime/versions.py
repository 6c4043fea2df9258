"""The versions that a result depends on."""

import importlib.metadata
import platform
import re

import ddpm_jax

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")

# First and last release that the tests run on.
TESTED = {
    "python": ("3.11", "3.12"),
    "jax": ("0.10", "0.12"),
    "jaxlib": ("0.10", "0.12"),
    "flax": ("0.12", "0.12"),
    "optax": ("0.2", "0.2"),
    "orbax-checkpoint": ("0.12", "0.12"),
    "grain": ("0.2", "0.2"),
    "numpy": ("2.0", "2.5"),
}


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


def release(version):
    """Return (major, minor) of a version; of what is none, (−1, −1)."""
    match = re.match(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else (-1, -1)


def newer(found: dict[str, str]) -> list[str]:
    """Return "jax 0.13.1" and the like of what is newer than the tests ran on."""
    return [
        f"{package} {found[package]}"
        for package, (_, last) in TESTED.items()
        if release(found.get(package, "")) > release(last)
    ]
