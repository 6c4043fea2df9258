"""The published checkpoints, as configurations of their networks and processes.

    python -m ddpm_jax.main --config=configs/published.py:64x64_diffusion …
    python -m ddpm_jax.main --mode=sample --workdir=runs/adm256 \
        --config=configs/published.py:256x256_diffusion+classifier_ancestral_1 \
        --config.sampling.classifier=runs/adm256_classifier

The second form has the sampler, steps and scale of a published row of a model that a
classifier guides; `ddpm_jax/convert/published_pairs.py` lists the rows with their FID.
`ddpm_jax/convert/published.py` lists the names, with sources and published results;
--mode=convert recognises the files by themselves. Training fields are our defaults, not
those of the papers: the configs named after data sets have them.
"""

from ddpm_jax import config as schema
from ddpm_jax.convert import published, published_pairs
from ddpm_jax.core import errors


def get_config(name=""):
    """Return the configuration of a published checkpoint."""
    if not name:
        listed = ", ".join([*published.PUBLISHED, *published_pairs.named()])
        raise errors.Refusal(
            f"configs/published.py needs a name behind a colon: one of {listed}"
        )
    known = {**published.PUBLISHED, **published_pairs.named()}
    entry = errors.choose("published checkpoint", known, name)
    row = None
    if isinstance(entry, published_pairs.Row):
        row, entry = entry, published.PUBLISHED[entry.model]
    config = schema.base()
    config.data.name = "cifar10" if "cifar10" in name else "folder"
    for field, value in entry.fields.items():
        section, _, leaf = field.partition(".")
        if section != "facts":
            config[section][leaf] = value
    if row is not None:
        config.sampling.method = row.method
        config.sampling.respacing = row.respacing
        config.sampling.classifier_scale = row.scale
        config.sampling.labels = ("random",)
    return config
