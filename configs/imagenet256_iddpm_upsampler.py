"""ImageNet from 64×64 to 256×256 as in Improved DDPM (Nichol & Dhariwal 2021).

    python -m ddpm_jax.main --config=configs/imagenet256_iddpm_upsampler.py \
        --config.data.path=DIR
    python -m ddpm_jax.main --mode=sample --workdir=runs/imagenet256_iddpm_upsampler \
        --config.sampling.low_res=RUN

DIR is a folder of images with one folder a class, such as ImageNet's train/; RUN was
trained with configs/imagenet64_iddpm.py:cond.

Numbers: the flags of the published checkpoint upsample_cond_500K, whose network this is
(279,792,390 parameters). Published result of the cascade: FID 12.3. Cost: 500,000 steps
of 256 images. Not reproduced by us.
"""

from ddpm_jax import config as schema


def get_config():
    """Return the configuration."""
    config = schema.base()
    config.data.name = "folder"
    config.data.image_size = (256,)
    config.data.channels = 3
    config.data.labels = "folders"
    config.data.low_res_factor = 4
    config.data.test_fraction = 0.001  # the paper trains on the whole training split

    config.model.kind = "upsampler"
    config.model.channels = 192
    config.model.channel_mult = (1, 1, 2, 2, 4, 4)
    config.model.num_res_blocks = 2
    config.model.attention_resolutions = (16, 8)
    config.model.num_heads = 4
    config.model.dropout = 0.0
    config.model.class_conditional = True

    config.diffusion.schedule = "linear"
    config.diffusion.num_steps = 4000
    config.diffusion.variance = "learned_range"
    config.diffusion.loss = "hybrid"  # --rescale_learned_sigmas False
    config.diffusion.rescale_timesteps = False

    config.train.steps = 500_000
    config.train.batch_size = 256
    config.train.learning_rate = 3e-4
    config.train.ema_decay = (0.9999,)
    config.train.ema_ramp = False

    config.sampling.steps = 250
    return config
