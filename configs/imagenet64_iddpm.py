"""ImageNet 64×64 as in Improved DDPM (Nichol & Dhariwal 2021): cosine, 4,000 steps.

    python -m ddpm_jax.main --config=configs/imagenet64_iddpm.py --config.data.path=DIR

DIR is a folder of images, with one folder a class for the variant cond. Variants: none
for the unconditional L_hybrid; `configs/imagenet64_iddpm.py:vlb` for the unconditional
L_vlb with importance-sampled timesteps; `configs/imagenet64_iddpm.py:cond` for the
class-conditional network of 270 million parameters. The paper's unconditional
numbers use the official 64×64 release of ImageNet, whose crop differs from the centre
crop that is made here of larger images.

Numbers: the flags of the published checkpoints imagenet64_uncond_100M_1500K,
imagenet64_uncond_vlb_100M_1500K and imagenet64_cond_270M_250K, whose networks these are
(121,063,942 and 273,049,350 parameters). Published result: FID 19.2 and 3.57 bits/dim
(L_hybrid), FID 40.1 and 3.53 bits/dim (vlb), FID 2.92 at 250 steps (cond). FIDs are of
50,000 samples. Cost: 1.5 million steps of 128 images; cond 250,000 of 2,048. Not
reproduced by us yet.
"""

from ddpm_jax import config as schema
from ddpm_jax.core import errors


def get_config(variant=""):
    """Return the configuration of a variant: "", "vlb" or "cond"."""
    change = errors.choose("variant of configs/imagenet64_iddpm.py", VARIANTS, variant)
    config = schema.base()
    config.data.name = "folder"
    config.data.image_size = (64,)
    config.data.channels = 3
    config.data.labels = "none"
    config.data.test_fraction = 0.001  # the paper trains on the whole training split

    config.model.channels = 128
    config.model.channel_mult = (1, 2, 3, 4)
    config.model.num_res_blocks = 3
    config.model.attention_resolutions = (16, 8)
    config.model.num_heads = 4
    config.model.dropout = 0.0

    config.diffusion.schedule = "cosine"
    config.diffusion.num_steps = 4000
    config.diffusion.variance = "learned_range"
    config.diffusion.loss = "rescaled_hybrid"  # --rescale_learned_sigmas True
    config.diffusion.rescale_timesteps = True

    config.train.steps = 1_500_000
    config.train.batch_size = 128
    config.train.learning_rate = 1e-4
    config.train.ema_decay = (0.9999,)
    config.train.ema_ramp = False

    config.sampling.steps = 250
    change(config)
    return config


def _vlb(config):
    config.diffusion.loss = "rescaled_kl"  # --use_kl True
    config.diffusion.timestep_sampler = "loss_second_moment"


def _cond(config):
    config.data.labels = "folders"
    config.model.class_conditional = True
    config.model.channels = 192
    # The two rescalings are off in this checkpoint alone.
    config.diffusion.loss = "hybrid"
    config.diffusion.rescale_timesteps = False
    config.train.steps = 250_000
    config.train.batch_size = 2048
    config.train.learning_rate = 3e-4


VARIANTS = {"": lambda config: None, "vlb": _vlb, "cond": _cond}
