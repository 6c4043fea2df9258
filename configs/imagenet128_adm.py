"""ImageNet 128×128 as in ADM (Dhariwal & Nichol 2021): class-conditional, L_hybrid.

    python -m ddpm_jax.main --config=configs/imagenet128_adm.py --config.data.path=DIR

DIR is a folder of images with one folder a class.

Numbers: tables of the paper's appendix and the flags of the published checkpoint
128x128_diffusion, whose network this is (421,529,606 parameters); what is not named
here is as in imagenet256_adm.py. This network alone has 4 attention heads everywhere
instead of heads of 64 channels. Published result without guidance, 50,000 samples at
250 steps, ADM's own evaluator: FID 5.91, sFID 5.09, precision 0.70, recall 0.65 (with a
classifier and scale 0.5: 2.97, 5.09, 0.78, 0.59). Cost: 4.36 million steps of 256
images. Not reproduced by us.
"""

import imagenet256_adm  # configs/imagenet256_adm.py: a config can import its neighbours


def get_config():
    """Return the configuration."""
    config = imagenet256_adm.get_config()
    config.data.image_size = (128,)
    config.model.channel_mult = (1, 1, 2, 3, 4)
    config.model.num_heads = 4
    config.model.head_channels = 0
    config.train.steps = 4_360_000
    return config
