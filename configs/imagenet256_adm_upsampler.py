"""ImageNet from 64×64 to 256×256 as in ADM (Dhariwal & Nichol 2021).

    python -m ddpm_jax.main --config=configs/imagenet256_adm_upsampler.py \
        --config.data.path=DIR
    python -m ddpm_jax.main --mode=sample --workdir=runs/imagenet256_adm_upsampler \
        --config.sampling.low_res=runs/imagenet64_adm

DIR is a folder of images with one folder a class, such as ImageNet's train/. The second
command is the cascade: configs/imagenet64_adm.py makes the small images. As in the
paper what guides is the small model alone.

Numbers: tables of the paper's appendix and the flags of the published checkpoint
64_256_upsampler, whose network this is (311,795,910 parameters); what is not named here
is as in imagenet256_adm.py. Published result of the cascade, 50,000 samples at 250
steps each, ADM's own evaluator: FID 7.49, sFID 5.13, precision 0.72, recall 0.63 (with
the small model guided: 3.94, 6.14, 0.83, 0.53). Cost: 500,000 steps of 256 images. Not
reproduced by us.
"""

import imagenet256_adm  # configs/imagenet256_adm.py: a config can import its neighbours


def get_config():
    """Return the configuration."""
    config = imagenet256_adm.get_config()
    config.data.low_res_factor = 4
    config.model.kind = "upsampler"
    config.model.channels = 192
    config.model.num_heads = 4
    config.model.head_channels = 0
    config.train.steps = 500_000
    return config
