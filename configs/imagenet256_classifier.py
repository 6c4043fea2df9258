"""A classifier of noisy ImageNet 256×256 images as in ADM, to guide a diffusion model.

    python -m ddpm_jax.main --config=configs/imagenet256_classifier.py:RUN
    python -m ddpm_jax.main --config=configs/imagenet256_classifier.py

RUN is the run that it will guide: process and data are taken from there. Without one
the process is that of the published 256x256_diffusion, and --config.data.path=DIR
names a folder of images with one folder a class.

Numbers: tables of the paper's appendix (Dhariwal & Nichol 2021) and the flags of the
published checkpoint 256x256_classifier, whose network this is (54,096,360 parameters).
Published result of 256x256_diffusion with it, 50,000 samples at 250 steps and scale 1:
FID 4.59, sFID 5.25, precision 0.82, recall 0.52. Cost: 500,000 steps of 256 images. The
paper trains in float16 with loss scaling, this config in bfloat16. Not reproduced by
us.
"""

from ddpm_jax import config as schema
from ddpm_jax.config import guided

FILE = "configs/imagenet256_classifier.py"


def get_config(workdir=""):
    """Return the configuration, for the run in `workdir` if one is named."""
    config = published(256)
    if workdir:
        guided.take_over(config, workdir, file=FILE)
    return config


def published(size):
    """Return what the classifiers of all sizes share."""
    config = schema.base()
    config.data.name = "folder"
    config.data.image_size = (size,)
    config.data.channels = 3
    config.data.labels = "folders"
    config.data.test_fraction = 0.001  # the paper trains on the whole training split
    config.data.crop = "random"
    config.data.flip = True

    config.model.kind = "classifier"
    config.model.channels = 128
    config.model.channel_mult = (1, 1, 2, 2, 4, 4)
    config.model.num_res_blocks = 2
    config.model.attention_resolutions = (32, 16, 8)
    config.model.head_channels = 64
    config.model.scale_shift = True
    config.model.resblock_updown = True
    config.model.pool = "attention"
    config.model.dtype = "bfloat16"
    config.model.remat = "attention"

    config.diffusion.schedule = "linear"
    config.diffusion.num_steps = 1000
    config.diffusion.rescale_timesteps = False

    config.train.steps = 500_000
    config.train.batch_size = 256
    config.train.learning_rate = 3e-4
    config.train.decay = "linear"  # lr (1 − step/iterations)
    config.train.weight_decay = 0.05
    config.train.ema_decay = ()
    config.train.sample_every = 0
    config.evaluation.metric = "accuracy"
    return config
