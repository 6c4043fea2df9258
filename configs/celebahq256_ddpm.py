"""CelebA-HQ 256×256 as in DDPM (Ho et al. 2020): unconditional, L_simple.

    python -m ddpm_jax.main --config=configs/celebahq256_ddpm.py --config.data.path=DIR

DIR is a folder of the 30,000 images at 256×256. The set as prepared by TFDS is read
with `--config.data.name=tfds:celeb_a_hq/256` and DIR its TFDS directory.

Numbers: appendix B of the paper and its published script for 256×256 images; what is
not named here is as in cifar10_ddpm.py. 113,673,219 parameters. Published result:
samples only, no score. Cost in the paper: 2.2 steps a second on a TPU v3-8, so about
63 hours. The paper trains on all 30,000 images; here 1 % are kept
apart as test images. Not reproduced by us yet.
"""

import cifar10_ddpm  # configs/cifar10_ddpm.py: a config can import its neighbours


def get_config():
    """Return the configuration."""
    config = cifar10_ddpm.get_config()
    config.data.name = "folder"
    config.data.image_size = (256,)
    config.data.channels = 3
    config.data.labels = "none"
    config.data.test_fraction = 0.01
    config.data.flip = True

    config.model.channel_mult = (1, 1, 2, 2, 4, 4)
    config.model.dropout = 0.0

    config.diffusion.variance = "fixed_small"
    config.diffusion.log_var_floor = "1e-20"  # the file of the 256×256 experiments

    config.train.steps = 500_000
    config.train.batch_size = 64
    config.train.learning_rate = 2e-5
    return config
