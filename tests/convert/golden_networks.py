"""Our networks with the shapes of the published ones in tests/golden."""

from ddpm_jax.models import classifier, unet

SIZES = {"image_size": (32, 32), "in_channels": 3, "channels": 32}
SIZES["channel_mult"] = (1, 2, 2)
NETWORKS = {
    "gd_adm": {
        "out_channels": 6,
        "num_res_blocks": 1,
        "attention_resolutions": (32, 16),
        "head_channels": 16,
        "num_classes": 10,
        "resblock_updown": True,
    },
    "id_cifar_like": {
        "out_channels": 6,
        "num_res_blocks": 3,
        "attention_resolutions": (16, 8),
        "num_heads": 4,
    },
    "gd_classifier_attention": {
        "num_res_blocks": 1,
        "attention_resolutions": (16, 8),
        "head_channels": 16,
        "num_classes": 10,
    },
    "diffusers_ddpm_cifar_like": {
        "image_size": (16, 16),
        "out_channels": 3,
        "num_res_blocks": 1,
        "attention_resolutions": (8,),
        "num_heads": 1,
        "scale_shift": False,
        "sinusoid": "sin_cos",
        "sinusoid_shift": 1,
        "norm_epsilon": 1e-6,
        "downsample_padding": "end",
        "qkv_order": "new",
        "attention_scale": "product",
    },
}


def network(name, **changes):
    """Return one of them."""
    make = classifier.classifier if "classifier" in name else unet.unet
    return make(**{**SIZES, **NETWORKS[name], **changes})
