"""ImageNet 64×64 as in ADM (Dhariwal & Nichol 2021): class-conditional, L_hybrid.

    python -m ddpm_jax.main --config=configs/imagenet64_adm.py --config.data.path=DIR

DIR is a folder of images with one folder a class.

Numbers: tables of the paper's appendix and the flags of the published checkpoint
64x64_diffusion, whose network this is (295,904,454 parameters); what is not named here
is as in imagenet256_adm.py. Published result without guidance, 50,000 samples at 250
steps, ADM's own evaluator: FID 2.07, sFID 4.29, precision 0.74, recall 0.63. Cost:
540,000 steps of 2,048 images. Not reproduced by us.
"""

import imagenet256_adm  # configs/imagenet256_adm.py: a config can import its neighbours


def get_config():
    """Return the configuration."""
    config = imagenet256_adm.get_config()
    config.data.image_size = (64,)

    config.model.channels = 192
    config.model.channel_mult = (1, 2, 3, 4)
    config.model.num_res_blocks = 3
    config.model.qkv_order = "new"  # this checkpoint alone
    config.model.dropout = 0.1

    config.diffusion.schedule = "cosine"

    config.train.steps = 540_000
    config.train.batch_size = 2048
    config.train.learning_rate = 3e-4
    return config
