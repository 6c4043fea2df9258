"""ImageNet 512×512 as in ADM (Dhariwal & Nichol 2021): class-conditional, L_hybrid.

    python -m ddpm_jax.main --config=configs/imagenet512_adm.py --config.data.path=DIR

DIR is a folder of images with one folder a class.

Numbers: tables of the paper's appendix and the flags of the published checkpoint
512x512_diffusion, whose network this is (558,997,638 parameters); what is not named
here is as in imagenet256_adm.py. The network is half as wide at full resolution.
Published result without guidance, 50,000 samples at 250 steps, ADM's own evaluator:
FID 23.24, sFID 10.19, precision 0.73, recall 0.60 (with a classifier and scale 4: 7.72,
6.57, 0.87, 0.42). Cost: 1.94 million steps of 256 images. Not reproduced by us.
"""

import imagenet256_adm  # configs/imagenet256_adm.py: a config can import its neighbours


def get_config():
    """Return the configuration."""
    config = imagenet256_adm.get_config()
    config.data.image_size = (512,)
    config.model.channel_mult = (0.5, 1, 1, 2, 2, 4, 4)
    config.train.steps = 1_940_000
    return config
