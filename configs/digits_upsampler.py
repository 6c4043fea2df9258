"""Handwritten digits from 4×4 to 8×8, class-conditional: minutes on a laptop.

    python -m ddpm_jax.main --config=configs/digits_upsampler.py
    python -m ddpm_jax.main --mode=sample --workdir=runs/digits_upsampler \
        --config.sampling.low_res=runs/digits_4x4
    python -m ddpm_jax.main --mode=evaluate --workdir=runs/digits_upsampler \
        --config.evaluation.metric=psnr,consistency

The second command is a cascade: runs/digits_4x4 (configs/digits_4x4.py) makes the small
digits. Result to expect: see the table in docs/super_resolution.md.
"""

import digits  # configs/digits.py: a config can import its neighbours


def get_config():
    """Return the configuration."""
    config = digits.get_config()
    config.data.low_res_factor = 2
    config.model.kind = "upsampler"
    config.train.label_dropout = 0.0  # what guides is the stage before
    config.evaluation.in_training = "bits_per_dim"
    return config
