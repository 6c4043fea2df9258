"""The published checkpoints, as configurations of their networks and processes.

    python -m ddpm_jax.main --config=configs/published.py:64x64_diffusion …

`ddpm_jax/convert/published.py` lists the names, with sources and published results;
--mode=convert recognises the files by themselves. Training fields are our defaults, not
those of the papers: the configs named after data sets have them.
"""

from ddpm_jax import config as schema
from ddpm_jax.convert import published
from ddpm_jax.core import errors


def get_config(name=""):
    """Return the configuration of a published checkpoint."""
    if not name:
        listed = ", ".join(published.PUBLISHED)
        raise errors.Refusal(
            f"configs/published.py needs a name behind a colon: one of {listed}"
        )
    entry = errors.choose("published checkpoint", published.PUBLISHED, name)
    config = schema.base()
    config.data.name = "cifar10" if "cifar10" in name else "folder"
    for field, value in entry.fields.items():
        section, _, leaf = field.partition(".")
        if section != "facts":
            config[section][leaf] = value
    return config
