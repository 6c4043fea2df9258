"""A classifier of noisy ImageNet 128×128 images as in ADM, to guide a diffusion model.

    python -m ddpm_jax.main --config=configs/imagenet128_classifier.py:RUN
    python -m ddpm_jax.main --config=configs/imagenet128_classifier.py

RUN is the run that it will guide: process and data are taken from there. Without one
the process is that of the published 128x128_diffusion, and --config.data.path=DIR
names a folder of images with one folder a class.

Numbers: tables of the paper's appendix (Dhariwal & Nichol 2021) and the flags of the
published checkpoint 128x128_classifier, whose network this is (42,568,040 parameters);
what is not named here is as in imagenet256_classifier.py. Published result
of 128x128_diffusion with it, 50,000 samples at 250 steps and scale 0.5: FID 2.97, sFID
5.09, precision 0.78, recall 0.59.
Cost: 300,000 steps of 256 images. Not reproduced by us.
"""

import imagenet256_classifier  # configs/: a config can import its neighbours

from ddpm_jax.config import guided

FILE = "configs/imagenet128_classifier.py"


def get_config(workdir=""):
    """Return the configuration, for the run in `workdir` if one is named."""
    config = imagenet256_classifier.published(128)
    config.model.channel_mult = (1, 1, 2, 3, 4)
    config.train.steps = 300_000
    if workdir:
        guided.take_over(config, workdir, file=FILE)
    return config
