"""GLIDE's inpainting model of 64 pixels (Nichol et al. 2021): it sees what is known.

    python -m ddpm_jax.main --mode=convert --source=base_inpaint.pt --workdir=RUN \
        --config=configs/glide_inpaint.py
    python -m ddpm_jax.main --mode=inpaint --workdir=RUN --image=F --mask=F \
        --prompt="a corgi in a field"

The network is that of the published checkpoint base_inpaint.pt (385,037,638
parameters): the one of glide_base.py with four more channels, the known pixels and
their mask, fine-tuned on images of which random regions were erased. It is imported:
training it here is not possible yet. Samples take 100 steps and guidance of scale 5, as
in the published notebook. Published result: none of these weights. Not reproduced by
us.
"""

import glide_base  # configs/: a config can import its neighbours


def get_config():
    """Return the configuration."""
    config = glide_base.base()
    config.model.inpainting = True
    config.sampling.guidance_scale = 5.0
    return config
