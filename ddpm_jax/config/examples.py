"""Where the configs of the experiments are, for hints that are true on this machine."""

import pathlib

import ddpm_jax

FOLDER = pathlib.Path("configs")
FIRST = "digits.py"  # the one that needs no data
OWN = (
    "write a file of your own, such as mine.py, whose get_config() returns "
    "ddpm_jax.config.base() with changes, and give --config=mine.py"
)


def source() -> pathlib.Path:
    """Return the folder that holds the package: in a checkout, configs/ too."""
    return pathlib.Path(ddpm_jax.__file__).parent.parent


def place() -> pathlib.Path | None:
    """Return the folder of the configs: here, or where the package's source is.

    None where the package was installed without its source.
    """
    for folder in (FOLDER, source() / FOLDER):
        if (folder / FIRST).is_file():
            return folder
    return None


def how_to_train() -> str:
    """Return what to give as --config, in words that follow "train"."""
    found = place()
    if found:
        return f"with --config={found / FIRST}"
    return (
        f"with a config: {FOLDER}/ comes with the source of ddpm_jax and not with this "
        f"install, so {OWN}"
    )
