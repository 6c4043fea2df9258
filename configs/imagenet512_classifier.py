"""A classifier of noisy ImageNet 512×512 images as in ADM, to guide a diffusion model.

    python -m ddpm_jax.main --config=configs/imagenet512_classifier.py:RUN
    python -m ddpm_jax.main --config=configs/imagenet512_classifier.py

RUN is the run that it will guide: process and data are taken from there. Without one
the process is that of the published 512x512_diffusion, and --config.data.path=DIR
names a folder of images with one folder a class.

Numbers: tables of the paper's appendix (Dhariwal & Nichol 2021) and the flags of the
published checkpoint 512x512_classifier, whose network this is (54,448,360 parameters);
what is not named here is as in imagenet256_classifier.py. Published result
of 512x512_diffusion with it, 50,000 samples at 250 steps and scale 4: FID 7.72, sFID
6.57, precision 0.87, recall 0.42.
Cost: 500,000 steps of 256 images. Not reproduced by us.
"""

import imagenet256_classifier  # configs/: a config can import its neighbours

from ddpm_jax.config import guided

FILE = "configs/imagenet512_classifier.py"


def get_config(workdir=""):
    """Return the configuration, for the run in `workdir` if one is named."""
    config = imagenet256_classifier.published(512)
    config.model.channel_mult = (0.5, 1, 1, 2, 2, 4, 4)
    if workdir:
        guided.take_over(config, workdir, file=FILE)
    return config
