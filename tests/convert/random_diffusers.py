"""Small `diffusers.UNet2DModel`s of many kinds, with every parameter random."""

import pytest

DEFAULTS = {
    "sample_size": 8,
    "block_out_channels": (16, 32),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "attention_head_dim": 8,
}
UPDOWN = {
    "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "downsample_type": "resnet",
    "upsample_type": "resnet",
}
CONFIGS = {
    "plain": {},
    "ddpm": {
        # The network of DDPM, smaller.
        "block_out_channels": (32, 64, 64),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        "norm_num_groups": 32,
        "norm_eps": 1e-6,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "downsample_padding": 0,
        "attention_head_dim": None,
    },
    "adm": {
        "attn_norm_num_groups": 8,
        "num_class_embeds": 5,
        "out_channels": 6,
        "resnet_time_scale_shift": "scale_shift",
        **UPDOWN,
    },
    "attention at both levels": {
        "down_block_types": ("AttnDownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D"),
        "layers_per_block": 2,
        "attention_head_dim": None,
        **{k: v for k, v in UPDOWN.items() if k.endswith("_type")},
    },
    "no norm in the middle": {"resnet_time_scale_shift": "scale_shift"},
    "no attention in the middle": {"add_attention": False},
    "oblong, one channel": {
        "sample_size": (4, 8),
        "in_channels": 1,
        "out_channels": 1,
        "num_class_embeds": 3,
    },
}
OTHERS = {
    # What our network does not have.
    "divided middle": {"mid_block_scale_factor": 2.0},
    "centred": {"center_input_sample": True},
}


def make(name, seed=0):
    """Return (a network, its arguments: images, timesteps and, if it has them, labels).

    Weights are spread so that every layer changes the output, norms around 1.
    """
    diffusers = pytest.importorskip("diffusers")
    torch = pytest.importorskip("torch")
    options = {**DEFAULTS, **{**CONFIGS, **OTHERS}[name]}
    generator = torch.Generator().manual_seed(seed)
    model = diffusers.UNet2DModel(**options).eval()
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            drawn = torch.randn(tensor.shape, generator=generator)
            fan_in = tensor[0].numel() if tensor.ndim > 1 else 25
            is_scale = "norm" in key and key.endswith("weight")
            tensor.copy_(1 + 0.2 * drawn if is_scale else drawn * fan_in**-0.5)
    size = options["sample_size"]
    size = (size, size) if isinstance(size, int) else size
    channels = options.get("in_channels", 3)
    inputs = [
        torch.randn(2, channels, *size, generator=generator),
        torch.tensor([700, 3]),
    ]
    if rows := options.get("num_class_embeds"):
        inputs.append(torch.tensor([rows - 1, 1]))
    return model, inputs
