"""Handwritten digits, 8×8, class-conditional with label drop-out: minutes on a laptop.

    python -m ddpm_jax.main --config=configs/digits.py
    python -m ddpm_jax.main --mode=sample --workdir=runs/digits
    python -m ddpm_jax.main --mode=evaluate --workdir=runs/digits

Numbers: our own, chosen for two CPU cores; objective and schedule follow Improved DDPM
(learned range, hybrid loss). Result to expect: see the table in README.md.
"""

from ddpm_jax import config as schema


def get_config():
    """Return the configuration."""
    config = schema.base()
    config.data.name = "digits"

    config.model.channels = 32
    config.model.channel_mult = (1, 2)
    config.model.num_res_blocks = 1
    config.model.attention_resolutions = (4,)
    config.model.num_heads = 2
    config.model.norm_groups = 8
    config.model.dropout = 0.1
    config.model.class_conditional = True

    config.diffusion.schedule = "linear"
    config.diffusion.num_steps = 200
    config.diffusion.variance = "learned_range"
    config.diffusion.loss = "rescaled_hybrid"

    config.train.steps = 1200
    config.train.batch_size = 128
    config.train.learning_rate = 2e-3
    config.train.warmup_steps = 100
    config.train.decay = "cosine"
    config.train.clip_norm = 1.0
    config.train.ema_decay = (0.995,)
    config.train.label_dropout = 0.1
    config.train.log_every = 25
    config.train.sample_every = 150
    config.train.validate_every = 100
    config.train.checkpoint_every = 500
    config.train.evaluate_every = 400

    config.sampling.steps = 50
    config.sampling.num_samples = 100
    config.sampling.batch_size = 100
    config.evaluation.batch_size = 120
    config.evaluation.num_samples = 1000
    config.evaluation.in_training = "bits_per_dim,proxy_fd"
    config.evaluation.in_training_samples = 96  # 8 % of the training time
    return config
