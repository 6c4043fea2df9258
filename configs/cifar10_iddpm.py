"""CIFAR-10 as in Improved DDPM (Nichol & Dhariwal 2021): learned variance, L_hybrid.

    pip install 'ddpm-jax[tfds]'     # and CIFAR-10 prepared by TFDS, see README.md
    python -m ddpm_jax.main --config=configs/cifar10_iddpm.py

Numbers: the flags of the published checkpoint cifar10_uncond_50M_500K, whose network
this is (52,546,438 parameters). Published result after 500,000 steps: FID 3.19, NLL
3.17 bits/dim at 4,000 steps. Not reproduced by us yet; others report an FID of about
6.7 from these flags.
"""

from ddpm_jax import config as schema


def get_config():
    """Return the configuration."""
    config = schema.base()
    config.data.name = "cifar10"

    config.model.channels = 128
    config.model.channel_mult = (1, 2, 2, 2)
    config.model.num_res_blocks = 3
    config.model.attention_resolutions = (16, 8)
    config.model.num_heads = 4
    config.model.dropout = 0.3

    config.diffusion.schedule = "cosine"
    config.diffusion.num_steps = 4000
    config.diffusion.variance = "learned_range"
    config.diffusion.loss = "rescaled_hybrid"
    config.diffusion.rescale_timesteps = True

    config.train.steps = 500_000
    config.train.batch_size = 128
    config.train.learning_rate = 1e-4
    config.train.ema_decay = (0.9999,)
    config.train.ema_ramp = False

    config.sampling.steps = 250
    return config
