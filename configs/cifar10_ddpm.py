"""CIFAR-10 as in DDPM (Ho et al. 2020): unconditional, L_simple, fixed variance.

    pip install 'ddpm-jax[tfds]'     # and CIFAR-10 prepared by TFDS, see README.md
    python -m ddpm_jax.main --config=configs/cifar10_ddpm.py

Numbers: section 4 and appendix B of the paper and its published code. The network is
the paper's own, in its own dialect (35,746,307 parameters). Published result, 50,000
samples at 1,000 steps: FID 3.17 against the training split (the best checkpoint of the
run), 5.24 against the test split; NLL ≤ 3.75 bits/dim on the test split. Cost: 10.6
hours on a TPU v3-8 in the paper. Not reproduced by us yet.
"""

from ddpm_jax import config as schema


def get_config():
    """Return the configuration."""
    config = schema.base()
    config.data.name = "cifar10"
    config.data.flip = True

    config.model.channels = 128
    config.model.channel_mult = (1, 2, 2, 2)
    config.model.num_res_blocks = 2
    config.model.attention_resolutions = (16,)
    config.model.num_heads = 1
    config.model.scale_shift = False
    config.model.dropout = 0.1
    # The dialect of DDPM's code; each default is that of the OpenAI codes.
    config.model.sinusoid = "sin_cos"
    config.model.sinusoid_shift = 1
    config.model.norm_epsilon = 1e-6
    config.model.downsample_padding = "end"
    config.model.qkv_order = "new"
    config.model.attention_scale = "product"
    config.model.initialisation = "ddpm"

    config.diffusion.schedule = "linear_fixed"
    config.diffusion.num_steps = 1000
    config.diffusion.variance = "fixed_large"
    config.diffusion.loss = "simple"

    config.train.steps = 800_000
    config.train.batch_size = 128
    config.train.learning_rate = 2e-4
    config.train.warmup_steps = 5000
    config.train.clip_norm = 1.0  # the published code clips on each device
    config.train.ema_decay = (0.9999,)
    config.train.ema_ramp = False

    config.sampling.steps = 1000
    return config
