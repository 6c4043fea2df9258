"""The swiss roll of the 2015 paper, by Gaussian diffusion: minutes on a laptop.

    python -m ddpm_jax.main --config=configs/swissroll_2015.py
    python -m ddpm_jax.main --mode=evaluate --workdir=runs/swissroll_2015
    python -m ddpm_jax.main --mode=sample --workdir=runs/swissroll_2015

Numbers: one hidden layer of normalised radial basis functions and learned β are the
paper's (Sohl-Dickstein et al. 2015, section 3.1.1, App. D). It gives neither β_1 nor
its data's noise: 1e-5 and none are ours. At this β_1 its 40 steps cannot reach more
than K = 2.30, so T is 80. Ours are also Adam, the first values of β, the number of
units, of which the paper has 16, and that neighbouring steps share readouts by its
bumps of time: one readout a step would learn from an eightieth of the examples alone.
Result to expect: docs/paper_2015.md.
"""

import numpy as np

from ddpm_jax import config as schema

BETA_1, NUM_STEPS = 1e-5, 80


def start_betas():
    """Return β of which 1−ᾱ_t grows by one factor a step, from β_1 to 0.8."""
    noise = np.geomspace(BETA_1, 0.8, NUM_STEPS)
    kept = 1 - noise
    return (1 - kept / np.append(1.0, kept[:-1])).tolist()


def get_config():
    """Return the configuration."""
    config = schema.base()
    config.data.name = "swissroll"

    config.model.kind = "gaussian_2015"
    config.model.network = "rbf"
    config.model.channels = 512
    config.model.readouts = 12
    config.model.mean_form = "residual"

    config.diffusion.schedule = "custom"
    config.diffusion.num_steps = NUM_STEPS
    config.diffusion.betas = tuple(start_betas())
    config.diffusion.beta_start = BETA_1

    config.train.steps = 8_000
    config.train.batch_size = 1024
    config.train.learning_rate = 1e-2
    config.train.decay = "cosine"
    config.train.clip_norm = 10.0
    config.train.ema_decay = (0.99,)
    config.train.log_every = 100
    config.train.sample_every = 4000
    config.train.validate_every = 1000
    config.train.checkpoint_every = 2000

    config.sampling.num_samples = 3000
    config.sampling.batch_size = 1000
    config.evaluation.metric = "bound"
    config.evaluation.batch_size = 1000
    return config
