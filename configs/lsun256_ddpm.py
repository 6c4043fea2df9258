"""LSUN 256×256 as in DDPM (Ho et al. 2020): unconditional, L_simple.

    python -m ddpm_jax.main --config=configs/lsun256_ddpm.py:church

Variants: bedroom (the default), bedroom_large, cat, church. The category's images are
expected in data/lsun_<category>; `--config.data.path=DIR` names another folder. Images
of another size are scaled and cut to 256×256.

Numbers: appendix B of the paper; what is not named here is as in celebahq256_ddpm.py.
Flips follow the paper (all but bedroom); in the published scripts it is cat that has
none. bedroom_large has the width that gives the paper's 256 million parameters; the
paper does not print it. Published result, FID of 50,000 samples at 1,000 steps by the
StyleGAN2 code: bedroom 6.36 (large 4.90), cat 19.75, church 7.89. Cost in the paper:
2.2 steps a second on a TPU v3-8. Not reproduced by us yet.
"""

import celebahq256_ddpm  # configs/celebahq256_ddpm.py

from ddpm_jax.core import errors

# (category, optimizer steps, mirrored images, width)
VARIANTS = {
    "bedroom": ("bedroom", 2_400_000, False, 128),
    "bedroom_large": ("bedroom", 1_150_000, False, 192),
    "cat": ("cat", 1_800_000, True, 128),
    "church": ("church", 1_200_000, True, 128),
}


def get_config(variant="bedroom"):
    """Return the configuration of one of `VARIANTS`."""
    category, steps, flip, channels = errors.choose(
        "variant of configs/lsun256_ddpm.py", VARIANTS, variant
    )
    config = celebahq256_ddpm.get_config()
    config.data.path = f"data/lsun_{category}"
    config.data.flip = flip
    config.model.channels = channels
    config.train.steps = steps
    return config
