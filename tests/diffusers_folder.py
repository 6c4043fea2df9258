"""A folder of weights as diffusers writes it, for the golden DDPM network."""

import json

import safetensors.numpy

SCHEDULER = {
    "_class_name": "DDPMScheduler",
    "beta_schedule": "linear",
    "prediction_type": "epsilon",
    "variance_type": "fixed_large",
}
UNET = {
    "_class_name": "UNet2DModel",
    "sample_size": 16,
    "block_out_channels": [32, 64, 64],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
    "norm_num_groups": 32,
    "attention_head_dim": None,
}


def save(folder, tensors, unet=None, scheduler=None):
    """Write what diffusers would; scheduler False leaves it out."""
    (folder / "unet").mkdir(parents=True)
    (folder / "scheduler").mkdir()
    (folder / "unet" / "config.json").write_text(json.dumps(unet or UNET))
    if scheduler is not False:
        text = json.dumps(scheduler or SCHEDULER)
        (folder / "scheduler" / "scheduler_config.json").write_text(text)
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    safetensors.numpy.save_file(tensors, path)
    return folder
