"""Scenes of coloured shapes made of captions, 24×24: text prompts on a laptop.

    python -m ddpm_jax.main --config=configs/shapes_text.py
    python -m ddpm_jax.main --mode=sample --workdir=runs/shapes_text \
        --prompt="a red circle above a blue square" --config.sampling.guidance_scale=3
    python -m ddpm_jax.main --mode=evaluate --workdir=runs/shapes_text

The data is made on the spot. Numbers: our own, chosen for two CPU cores; the text
encoder is GLIDE's, small. Result to expect: see docs/text.md.
"""

from ddpm_jax import config as schema


def get_config():
    """Return the configuration."""
    config = schema.base()
    config.data.name = "shapes"
    config.data.image_size = (24,)  # cells of 8 pixels; at 3×3 a pixel is a cell
    config.data.tokenizer = "words"

    config.model.channels = 16
    config.model.channel_mult = (0.5, 1.5, 3, 4)
    config.model.num_res_blocks = 1
    config.model.attention_resolutions = (6, 3)
    config.model.attention_positions = True
    config.model.num_heads = 4
    config.model.norm_groups = 8
    config.model.text_layers = 2
    config.model.text_width = 64
    config.model.text_heads = 4

    config.diffusion.schedule = "cosine"
    config.diffusion.num_steps = 1000
    config.diffusion.prediction = "x_0"  # what captions decide weighs most in it
    config.diffusion.variance = "fixed_small"

    config.train.steps = 6000
    config.train.batch_size = 32  # more steps for the same time learn more
    config.train.optimizer = "muon"
    config.train.learning_rate = 3e-3
    config.train.warmup_steps = 200
    config.train.decay = "cosine"
    config.train.clip_norm = 1.0
    config.train.ema_decay = (0.999,)
    config.train.label_dropout = 0.1
    config.train.log_every = 100
    config.train.sample_every = 400  # the first one within three minutes
    config.train.validate_every = 500
    config.train.checkpoint_every = 1000

    config.mesh.cpu_devices = 2

    config.sampling.method = "dpmpp_2m"
    config.sampling.steps = 20
    config.sampling.num_samples = 64
    config.evaluation.batch_size = 64
    config.evaluation.metric = "prompt_accuracy"
    config.evaluation.num_samples = 1000
    return config
