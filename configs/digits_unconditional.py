"""Handwritten digits, 8×8, without labels: otherwise as digits.py.

    python -m ddpm_jax.main --config=configs/digits_unconditional.py
    python -m ddpm_jax.main --mode=sample --workdir=runs/digits_unconditional

Result to expect: see the table in README.md.
"""

import digits  # configs/digits.py: a config can import its neighbours


def get_config():
    """Return the configuration of digits.py without classes."""
    config = digits.get_config()
    config.model.class_conditional = False
    config.train.label_dropout = 0.0
    return config
