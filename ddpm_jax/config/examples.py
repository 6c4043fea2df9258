"""Where the configs of the experiments are: by name from anywhere, and for hints.

A wheel carries them inside the package, a checkout has them beside it in configs/.
"""

import pathlib

import ddpm_jax
from ddpm_jax.runtime import home
from ddpm_jax.runtime.console import say

FOLDER = pathlib.Path("configs")
FIRST = "digits.py"  # the one that needs no data


def package() -> pathlib.Path:
    """Return the folder of the package."""
    return pathlib.Path(ddpm_jax.__file__).parent


def place() -> pathlib.Path | None:
    """Return the folder of the configs that belong to this ddpm_jax.

    None where an install lacks them.
    """
    for folder in (package() / FOLDER, package().parent / FOLDER):
        if (folder / FIRST).is_file():
            return folder.resolve()
    return None


def names() -> tuple[str, ...]:
    """Return the names that --config=NAME takes, from every directory."""
    found = place()
    return tuple(sorted(file.stem for file in found.glob("*.py"))) if found else ()


def file_of(name: str) -> pathlib.Path:
    """Return the file that --config means: a packaged one by its name, else a path.

    A name, one of `names()`, has no "/" and no ".py". It means the same config from
    every directory: files of that name here do not change it, and a line says that
    they are not meant, and how they are given.
    """
    if name not in names():
        return home.expanded(name)
    file = place() / f"{name}.py"
    for here in (pathlib.Path(f"{name}.py"), FOLDER / f"{name}.py"):
        if here.is_file() and here.read_bytes() != file.read_bytes():
            say(
                f"config {name}: the one that comes with ddpm_jax, not {here}; "
                f"--config={here} is yours"
            )
    return file


def how_to_train() -> str:
    """Return what to give as --config, in words that follow "train"."""
    if place():
        return f"with --config={pathlib.Path(FIRST).stem}"
    return (
        "with a config: this install lacks those of ddpm_jax, so write a file of your "
        "own, such as mine.py, whose get_config() returns ddpm_jax.config.base() with "
        "changes, and give --config=mine.py"
    )
