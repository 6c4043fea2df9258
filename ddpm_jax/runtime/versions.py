"""The versions that a result depends on."""

import importlib.metadata
import platform

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
