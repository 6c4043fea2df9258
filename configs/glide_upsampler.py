"""GLIDE's upsampler of 64 to 256 pixels (Nichol et al. 2021); it reads the caption too.

    python -m ddpm_jax.main --config=configs/glide_upsampler.py --config.data.path=DIR

DIR is a folder of images, each with a text of its name beside it.

Numbers: the paper and the published checkpoint upsample.pt, whose network this is
(398,361,286 parameters); what is not named here is as in glide_base.py. It was trained
for 400,000 steps; the batch is that of the paper's large model, 512. Captions are never
left out: samples are not guided, take the 27 steps of "fast27" by DDIM and start from
0.997 of the noise, as in the published notebook. Published result: none of these
weights. Not reproduced by us.
"""

import glide_base  # configs/: a config can import its neighbours


def get_config():
    """Return the configuration."""
    config = glide_base.base()
    config.data.image_size = (256,)
    config.data.low_res_factor = 4

    config.model.kind = "upsampler"
    config.model.channel_mult = (1, 1, 2, 2, 4, 4)
    config.model.num_res_blocks = 2

    config.diffusion.schedule = "linear"

    config.train.steps = 400_000
    config.train.batch_size = 512
    config.train.label_dropout = 0.0

    config.sampling.method = "ddim"
    config.sampling.steps = None
    config.sampling.respacing = "fast27"
    config.sampling.temperature = 0.997
    config.sampling.guidance_scale = 1.0
    return config
