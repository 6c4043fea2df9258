"""A classifier of noisy ImageNet 64×64 images as in ADM, to guide a diffusion model.

    python -m ddpm_jax.main --config=configs/imagenet64_classifier.py:RUN
    python -m ddpm_jax.main --config=configs/imagenet64_classifier.py

RUN is the run that it will guide: process and data are taken from there. Without one
the process is that of the published 64x64_diffusion, and --config.data.path=DIR
names a folder of images with one folder a class.

Numbers: tables of the paper's appendix (Dhariwal & Nichol 2021) and the flags of the
published checkpoint 64x64_classifier, whose network this is (65,438,568 parameters);
what is not named here is as in imagenet256_classifier.py. The paper prints no result
of 64x64_diffusion with it. Cost: 300,000 steps of 1,024 images. Not reproduced by us.
"""

import imagenet256_classifier  # configs/: a config can import its neighbours

from ddpm_jax.config import guided

FILE = "configs/imagenet64_classifier.py"


def get_config(workdir=""):
    """Return the configuration, for the run in `workdir` if one is named."""
    config = imagenet256_classifier.published(64)
    config.model.channel_mult = (1, 2, 3, 4)
    config.model.num_res_blocks = 4
    config.diffusion.schedule = "cosine"
    config.train.steps = 300_000
    config.train.batch_size = 1024
    config.train.learning_rate = 6e-4
    config.train.weight_decay = 0.2
    if workdir:
        guided.take_over(config, workdir, file=FILE)
    return config
