"""Handwritten digits of 4×4, the means of 2×2 blocks: otherwise as digits.py.

    python -m ddpm_jax.main --config=configs/digits_4x4.py
    python -m ddpm_jax.main --mode=sample --workdir=runs/digits_4x4

It is the first stage of a cascade; result to expect: see docs/super_resolution.md.
"""

import digits  # configs/digits.py: a config can import its neighbours


def get_config():
    """Return the configuration."""
    config = digits.get_config()
    config.data.image_size = (4,)

    # What is too even here no second stage mends: after 1,200 steps of Adam and by
    # ancestral steps the images had 0.89 of the variance of the data.
    config.train.optimizer = "muon"
    config.train.steps = 3000
    config.sampling.method = "heun"
    config.sampling.steps = 25
    return config
