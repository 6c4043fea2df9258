"""The binary heartbeat of the 2015 paper, by binomial diffusion: minutes on a laptop.

    python -m ddpm_jax.main --config=configs/heartbeat_2015.py
    python -m ddpm_jax.main --mode=evaluate --workdir=runs/heartbeat_2015
    python -m ddpm_jax.main --mode=sample --workdir=runs/heartbeat_2015

Numbers: T = 2000, β_t = 1/(T−t+1) and three hidden layers of 50 sigmoid units are the
paper's (Sohl-Dickstein et al. 2015, section 3.1.2, App. D). Its mean of kernel and
prior is 0.5 in its table and 0.2 in its text; 0.2 alone gives its K − L_null. Ours:
logits of the data, not of the next state, whose rare flips are too hard to learn; 32
readouts over time, not 2000; Adam. Result to expect: docs/paper_2015.md.
"""

from ddpm_jax import config as schema


def get_config():
    """Return the configuration."""
    config = schema.base()
    config.data.name = "heartbeat"

    config.model.kind = "binomial_2015"
    config.model.network = "mlp"
    config.model.channels = 50
    config.model.hidden_layers = 3
    config.model.readouts = 32

    config.diffusion.schedule = "jsd"
    config.diffusion.num_steps = 2000
    config.diffusion.prior_mean = 0.2

    config.train.steps = 6000
    config.train.batch_size = 512
    config.train.learning_rate = 1e-2
    config.train.decay = "cosine"
    config.train.ema_decay = (0.99,)
    config.train.log_every = 100
    config.train.sample_every = 2000
    config.train.validate_every = 500
    config.train.checkpoint_every = 2000

    config.sampling.num_samples = 2000
    config.sampling.batch_size = 1000
    config.evaluation.metric = "bound"
    config.evaluation.batch_size = 500
    return config
