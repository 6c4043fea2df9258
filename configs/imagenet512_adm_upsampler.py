"""ImageNet from 128×128 to 512×512 as in ADM (Dhariwal & Nichol 2021).

    python -m ddpm_jax.main --config=configs/imagenet512_adm_upsampler.py \
        --config.data.path=DIR
    python -m ddpm_jax.main --mode=sample --workdir=runs/imagenet512_adm_upsampler \
        --config.sampling.low_res=runs/imagenet128_adm

Numbers: tables of the paper's appendix and the flags of the published checkpoint
128_512_upsampler, whose network this is (308,835,270 parameters); what is not named
here is as in imagenet256_adm_upsampler.py. The paper's table also has attention at 8,
which the file does not. Published result of the cascade, 50,000 samples at 250 steps
each, ADM's own evaluator: FID 9.96, sFID 5.62, precision 0.75, recall 0.64 (with the
small model guided: 3.85, 5.86, 0.84, 0.53). Cost: 1.05 million steps of 256 images. Not
reproduced by us.
"""

import imagenet256_adm_upsampler


def get_config():
    """Return the configuration."""
    config = imagenet256_adm_upsampler.get_config()
    config.data.image_size = (512,)
    config.model.attention_resolutions = (32, 16)
    config.model.head_channels = 64
    config.train.steps = 1_050_000
    return config
