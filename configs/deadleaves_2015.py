"""Dead leaves of the 2015 paper at 16×16, by Gaussian diffusion: a coffee on a laptop.

    python -m ddpm_jax.main --config=configs/deadleaves_2015.py
    python -m ddpm_jax.main --mode=evaluate --workdir=runs/deadleaves_2015
    python -m ddpm_jax.main --mode=sample --workdir=runs/deadleaves_2015

Numbers: the form of network, chain and bound are the paper's (Sohl-Dickstein et al.
2015, section 3.2.3, App. D.2), whose images are larger and whose T is 1000; sizes and T
are ours, for a CPU. data_std is that of 256 grey values of the same probability, which
dead leaves have: K is in bits a pixel of data of unit variance, as in the paper.
Result to expect: docs/paper_2015.md.
"""

from ddpm_jax import config as schema


def get_config():
    """Return the configuration."""
    config = schema.base()
    config.data.name = "dead_leaves"

    config.model.kind = "gaussian_2015"
    config.model.network = "multiscale"
    config.model.channels = 32
    config.model.hidden_layers = 3
    config.model.scales = 2
    config.model.readouts = 8
    config.model.mean_form = "residual"

    config.diffusion.num_steps = 100
    config.diffusion.beta_start = 0.001
    config.diffusion.data_std = 0.5796

    config.train.steps = 2000
    config.train.batch_size = 32
    config.train.learning_rate = 3e-3
    config.train.decay = "cosine"
    config.train.clip_norm = 1.0
    config.train.ema_decay = (0.99,)
    config.train.log_every = 50
    config.train.sample_every = 1000
    config.train.validate_every = 200
    config.train.checkpoint_every = 500

    config.sampling.num_samples = 64
    config.sampling.batch_size = 64
    config.evaluation.metric = "bound"
    config.evaluation.batch_size = 50
    config.evaluation.trajectories = 0  # in so many dimensions one outweighs the rest
    return config
