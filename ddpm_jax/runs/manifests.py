"""The list of a checkpoint's files with their SHA-256 digests, and one of its own."""

import concurrent.futures
import hashlib
import json
import os
from pathlib import Path

import ddpm_jax
from ddpm_jax import runtime
from ddpm_jax.runtime import files

FORMAT = 1


def describe(folder: Path, step: int, arrays: dict[str, str]) -> dict:
    """Return the manifest of a finished checkpoint, its files safely on the disk.

    Args:
        folder: the checkpoint.
        step: its step.
        arrays: {path of a leaf: "dtype[shape]"}.
    """
    names = sorted(
        file.relative_to(folder).as_posix()
        for file in folder.rglob("*")
        if file.is_file()
    )
    return {
        "arrays": arrays,
        "files": _digests(folder, names, sync=True),
        "format": FORMAT,
        "numerics": runtime.NUMERICS,
        "package_version": ddpm_jax.__version__,
        "step": step,
    }


def write(path: Path, manifest: dict) -> None:
    """Write a manifest atomically, with a digest of itself."""
    files.write_json(path, {**manifest, "sha256": _digest_of(manifest)})


def read(path: Path) -> dict:
    """Return the content of a manifest.

    Raises:
        ValueError: it does not have its own checksum.
        OSError: it cannot be read.
    """
    data = path.read_bytes()
    manifest = json.loads(data)
    digest = manifest.pop("sha256", None) if isinstance(manifest, dict) else None
    if digest != _digest_of(manifest) or not data.endswith(b"\n"):
        raise ValueError(f"{path} does not have its own checksum")
    return manifest


def first_difference(folder: Path, recorded: dict[str, str]) -> str | None:
    """Compare files with the digests in `recorded`; describe the first difference.

    Files that are not recorded are of no consequence to Orbax, and here.
    """
    names = sorted(recorded)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        return f"{folder.name}/{missing[0]} is missing"
    found = _digests(folder, names, sync=False)
    changed = [name for name in names if found[name] != recorded[name]]
    return f"{folder.name}/{changed[0]} has changed" if changed else None


def _digests(folder: Path, names: list[str], *, sync: bool) -> dict[str, str]:
    def digest(name: str) -> str:
        with open(folder / name, "rb") as file:
            if sync:
                os.fsync(file.fileno())
            return hashlib.file_digest(file, "sha256").hexdigest()

    with concurrent.futures.ThreadPoolExecutor() as pool:  # hashing releases the GIL
        return dict(zip(names, pool.map(digest, names), strict=True))


def _digest_of(manifest: dict) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
