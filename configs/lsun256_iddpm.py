"""LSUN 256×256 as in Improved DDPM (Nichol & Dhariwal 2021): L_hybrid, unconditional.

    python -m ddpm_jax.main --config=configs/lsun256_iddpm.py:bedroom

Variants: bedroom (the default), cat, church, horse. They differ in the folder alone:
data/lsun_<category>, or what `--config.data.path=DIR` names. Improved DDPM published
bedroom only.

Numbers: the flags of the published checkpoint lsun_uncond_100M_1200K_bs128, whose
network this is (113,676,678 parameters). Published result for bedroom: FID 4.24, sFID
8.21, precision 0.62, recall 0.46, as measured in the ADM paper (50,000 samples, 1,000
steps). Cost: 1.2 million steps of 128 images. Not reproduced by us yet.
"""

from ddpm_jax import config as schema
from ddpm_jax.core import errors

CATEGORIES = dict.fromkeys(("bedroom", "cat", "church", "horse"))


def get_config(variant="bedroom"):
    """Return the configuration of one of `CATEGORIES`."""
    errors.choose("variant of configs/lsun256_iddpm.py", CATEGORIES, variant)
    config = schema.base()
    config.data.name = "folder"
    config.data.path = f"data/lsun_{variant}"
    config.data.image_size = (256,)
    config.data.channels = 3
    config.data.labels = "none"
    config.data.test_fraction = 0.01

    config.model.channels = 128
    config.model.channel_mult = (1, 1, 2, 2, 4, 4)
    config.model.num_res_blocks = 2
    config.model.attention_resolutions = (16,)
    config.model.num_heads = 1
    config.model.scale_shift = False
    config.model.dropout = 0.0

    config.diffusion.schedule = "linear"
    config.diffusion.num_steps = 1000
    config.diffusion.variance = "learned_range"
    config.diffusion.loss = "hybrid"  # --rescale_learned_sigmas False
    config.diffusion.rescale_timesteps = False

    config.train.steps = 1_200_000
    config.train.batch_size = 128
    config.train.learning_rate = 1e-4
    config.train.ema_decay = (0.9999,)
    config.train.ema_ramp = False

    config.sampling.steps = 1000
    return config
