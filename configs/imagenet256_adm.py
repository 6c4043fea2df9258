"""ImageNet 256×256 as in ADM (Dhariwal & Nichol 2021): class-conditional, L_hybrid.

    python -m ddpm_jax.main --config=configs/imagenet256_adm.py --config.data.path=DIR

DIR is a folder of images with one folder a class, such as ImageNet's train/. Variant:
configs/imagenet256_adm.py:unconditional.

Numbers: tables of the paper's appendix and the flags of the published checkpoints
256x256_diffusion (553,838,086 parameters) and 256x256_diffusion_uncond (552,814,086).
Published result without guidance, 50,000 samples at 250 steps, ADM's own evaluator:
FID 10.94, sFID 6.02, precision 0.69, recall 0.63 (unconditional: 26.21, 6.35, 0.61,
0.63). The paper's FID of 4.59 needs a classifier trained on noisy images and guidance
of scale 1. Cost: 1.98 million steps of 256 images; each line of the log says how many
images a second your machine makes. The paper trains in float16 with loss scaling, this
config in bfloat16. Not reproduced by us.
"""

from ddpm_jax import config as schema
from ddpm_jax.core import errors

IS_CONDITIONAL = {"": True, "unconditional": False}


def get_config(variant=""):
    """Return the configuration of a variant: "" or "unconditional"."""
    is_conditional = errors.choose(
        "variant of configs/imagenet256_adm.py", IS_CONDITIONAL, variant
    )
    config = schema.base()
    config.data.name = "folder"
    config.data.image_size = (256,)
    config.data.channels = 3
    config.data.labels = "folders" if is_conditional else "none"
    config.data.test_fraction = 0.001  # the paper trains on the whole training split
    config.data.crop = "center"
    config.data.flip = True

    config.model.channels = 256
    config.model.channel_mult = (1, 1, 2, 2, 4, 4)
    config.model.num_res_blocks = 2
    config.model.attention_resolutions = (32, 16, 8)
    config.model.head_channels = 64
    config.model.scale_shift = True
    config.model.resblock_updown = True
    config.model.dropout = 0.0
    config.model.class_conditional = is_conditional
    config.model.dtype = "bfloat16"
    config.model.remat = "attention"  # the published code recomputes its attention too

    config.diffusion.schedule = "linear"
    config.diffusion.num_steps = 1000
    config.diffusion.variance = "learned_range"
    config.diffusion.loss = "hybrid"  # --rescale_learned_sigmas False
    config.diffusion.rescale_timesteps = False

    config.train.steps = 1_980_000
    config.train.batch_size = 256
    config.train.learning_rate = 1e-4
    config.train.ema_decay = (0.9999,)
    config.train.ema_ramp = False

    config.sampling.steps = 250
    return config
