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
    return config
