"""What the published checkpoints are made of: config fields from flags, signatures.

`published` tells which is which.
"""

from ddpm_jax.convert.formats import clip, openai
from ddpm_jax.convert.formats import ddpm as ddpm_lib

MULT = {
    # Size in pixels → channel_mult of the OpenAI codes.
    32: (1, 2, 2, 2),
    64: (1, 2, 3, 4),
    128: (1, 1, 2, 3, 4),
    256: (1, 1, 2, 2, 4, 4),
    512: (0.5, 1, 1, 2, 2, 4, 4),
}
OF_DIFFUSION = (
    # Changes to fields of diffusion; the others are of model.
    "schedule",
    "num_steps",
    "rescale_timesteps",
    "loss",
    "timestep_sampler",
)


def _fields(size, channels, mult, blocks, attention):
    return {
        "data.image_size": (size, size),
        "data.channels": 3,
        "model.kind": "unet",
        "model.channels": channels,
        "model.channel_mult": mult,
        "model.num_res_blocks": blocks,
        "model.attention_resolutions": attention,
        "model.resample": "conv",
        "model.dropout": 0.0,
    }


def _openai(size, channels, blocks, attention, **changes):
    """Return the fields of a network of Improved DDPM, with `changes` to them."""
    fields = {
        **_fields(size, channels, MULT[size], blocks, attention),
        **openai.DIALECT,
        "model.scale_shift": True,
        "model.resblock_updown": False,
        "model.qkv_order": "legacy",
        "model.num_heads": 4,
        "model.head_channels": 0,
        "model.class_conditional": False,
        "diffusion.schedule": "linear",
        "diffusion.num_steps": 1000,
        "diffusion.rescale_timesteps": False,
        "diffusion.prediction": "noise",
        "diffusion.variance": "learned_range",
        "diffusion.loss": "hybrid",
        "diffusion.timestep_sampler": "uniform",
    }
    if changes.get("kind") == "upsampler":
        fields["data.low_res_factor"] = 4  # 64 to 256, 128 to 512
    classes = changes.pop("classes", None)
    if classes is not None:
        fields |= {"model.class_conditional": True, "facts.num_classes": classes}
    return fields | {_full(name): value for name, value in changes.items()}


def _full(name):
    return f"{'diffusion' if name in OF_DIFFUSION else 'model'}.{name}"


def iddpm(*architecture, rescaled, **changes):
    """Return fields of Improved DDPM; `rescaled` are its two flags of that name."""
    loss = "rescaled_hybrid" if rescaled else "hybrid"
    steps = {"num_steps": 4000, "rescale_timesteps": rescaled, "loss": loss}
    return _openai(*architecture, **{**steps, **changes})


def adm(*architecture, **changes):
    """Return fields of ADM; heads are 64 channels wide unless told otherwise."""
    return _openai(
        *architecture, **{"resblock_updown": True, "head_channels": 64, **changes}
    )


def classifier(size, blocks, schedule):
    """Return fields of a classifier of ADM, whose process is that of its network."""
    fields = adm(size, 128, blocks, (32, 16, 8), schedule=schedule)
    for name in ("prediction", "variance", "loss", "timestep_sampler"):
        del fields[f"diffusion.{name}"]
    return fields | {
        "model.kind": "classifier",
        "model.pool": "attention",
        "facts.num_classes": 1000,
    }


def glide(size, *, inpainting=False):
    """Return fields of GLIDE: its model of 64 pixels, or its upsampler to 256."""
    base = size == 64
    kind = "unet" if base else "upsampler"
    schedule = "cosine" if base else "linear"
    fields = adm(size, 192, 3 if base else 2, (32, 16, 8), kind=kind, schedule=schedule)
    fields |= _glide_sampling(base, inpainting)
    return fields | {
        "model.dropout": 0.1,
        "model.inpainting": inpainting,
        "model.text_layers": 16,
        "model.text_width": 512,
        "model.text_heads": 8,
        "model.text_context": 128,
        "model.text_vocabulary": 50257,
    }


def _glide_sampling(base, inpainting):
    """Return how the published notebooks sample: guided, or enlarging in 27 steps."""
    if base:
        return {
            "sampling.method": "ancestral",
            "sampling.steps": 100,
            "sampling.guidance_scale": 5.0 if inpainting else 3.0,
        }
    return {
        "sampling.method": "ancestral" if inpainting else "ddim",
        "sampling.respacing": "fast27",
        "sampling.temperature": 0.997,
    }


def glide_clip():
    """Return fields of GLIDE's noised CLIP, which guides its model of 64 pixels."""
    return {
        **clip.DIALECT,
        "data.image_size": (64, 64),
        "data.channels": 3,
        "model.kind": "clip",
        "model.channels": 768,
        "model.patch_size": 4,
        "model.image_layers": 12,
        "model.num_heads": 12,
        "model.head_channels": 0,
        "model.embedding": 512,
        "model.text_width": 512,
        "model.text_layers": 12,
        "model.text_heads": 8,
        "model.text_context": 77,
        "model.text_vocabulary": 65536,
        "diffusion.num_steps": 1000,
    }


def ddpm(size, *, floor, initialisation="ddpm"):
    """Return fields of DDPM: CIFAR-10 at 32 pixels, everything else at 256."""
    small = size == 32
    mult = (1, 2, 2, 2) if small else (1, 1, 2, 2, 4, 4)
    return {
        **_fields(size, 128, mult, 2, (16,)),
        **ddpm_lib.DIALECT,
        "model.initialisation": initialisation,
        "model.dropout": 0.1 if small else 0.0,
        "diffusion.schedule": "linear_fixed",
        "diffusion.num_steps": 1000,
        "diffusion.prediction": "noise",
        "diffusion.variance": "fixed_large" if small else "fixed_small",
        "diffusion.log_var_floor": floor,
        "diffusion.loss": "simple",
    }


# ---- signatures ----------------------------------------------------------------------

SIGNATURES = {
    # Of files that share names and shapes → (parameters, tensors, signature).
    "64x64_diffusion": (
        295_904_454,
        541,
        "4c7cc457c29f5bfe091b56bd9504a4f2a91d6aee57e16a6f982b17f29ee3edbb",
    ),
    "128x128_diffusion": (
        421_529_606,
        493,
        "62f053bc80ca3c4081ab5c1efb10a57d26607f69cf2571836aedb70e373a2203",
    ),
    "256x256_diffusion": (
        553_838_086,
        567,
        "6fcf52b21aeb4a353b922ae4ff63fb9ee7391637dbb835844154d5f98e121328",
    ),
    "256x256_diffusion_uncond": (
        552_814_086,
        566,
        "85a06372a246b9bf22c61bd49e151f71a9fe839ccd065f8d7bb71be3900183f6",
    ),
    "512x512_diffusion": (
        558_997_638,
        645,
        "27d57a5a0945222704a3f409d71af66712e91c42454a0a27f6e7bad740775d26",
    ),
    "64_256_upsampler": (
        311_795_910,
        567,
        "2fb59427623d9c4c429ed420c0cd97b62fbb65355707a0696f70808e78ba4ee6",
    ),
    "128_512_upsampler": (
        308_835_270,
        537,
        "2359f741d690e76ddb67898bad5483b1e037795e636c189eb579a4ffd505a43a",
    ),
    "64x64_classifier": (
        65_438_568,
        307,
        "8a5b3ef9131c87676b212101b1f403af834893f2464e3d2f3e915cf0a475900d",
    ),
    "128x128_classifier": (
        42_568_040,
        221,
        "8edc1cef0fb667548786a6a0de73e46c062bb3a3fe1807a7b2af85617d2df542",
    ),
    "256x256_classifier": (
        54_096_360,
        249,
        "4a9fd0f6e6e407a197498481d9fcc0f563f7147f947ce1e9e590c4c77def54bc",
    ),
    "512x512_classifier": (
        54_448_360,
        281,
        "9fed76084c76e1e0611740ba7a490fcd8572e9bffaeccdfd0271b85ff4b921c8",
    ),
    "cifar10_uncond_50M_500K": (
        52_546_438,
        446,
        "b92380bef75fd699662e10be261366d8fda50062d86ff15c46618c18693e108d",
    ),
    "imagenet64_uncond_100M_1500K": (
        121_063_942,
        450,
        "57881712a81f83834676c13e41a9fd32c8bf1bc3ae473417ce7b7bf433d58893",
    ),
    "imagenet64_cond_270M_250K": (
        273_049_350,
        451,
        "c4d0c48a52e0b7c751a1827e31ab936ef698d90d9b34798e764bbbda8135f5c2",
    ),
    "lsun_uncond_100M_1200K_bs128": (
        113_676_678,
        426,
        "bc72bc4bd6986c68378fa1195d68275ec4385db982e6d671fce29f3fff44a5cf",
    ),
    "upsample_cond_500K": (
        279_792_390,
        457,
        "9789e50a649ca0412422c7a476511a4a1a6d746bcde26870e1734882fc2dd4d9",
    ),
    "glide_base": (
        385_030_726,
        783,
        "abfa3458f6a1da132bca17d2973c6720e934433e927e39f6cb4dae73fb8bc282",
    ),
    "glide_upsample": (
        398_361_286,
        797,
        "c659be5924dbdfc5416422991858bf2e09d601da39580f4428444b20195d72f1",
    ),
    "glide_base_inpaint": (
        385_037_638,
        783,
        "fd1bb4abbbf7895f12811ecc9b76214e46617369f1983ea738df25cd46f5bfda",
    ),
    "glide_upsample_inpaint": (
        398_368_198,
        797,
        "dcdb82f5ae2dee0c063ba401fcc8868669860b7a3007c9562ac20e69367e6a01",
    ),
    "glide_clip": (
        158_123_264,
        373,
        "aa4288516f9bd2f0cd87280ea85acd635e009e0b18048c81acb4dd67d18420dc",
    ),
    "tensorflow 32": (
        35_746_307,
        328,
        "7f3822305eb921457a58580687b31909027fffae6e5ad0227f3948718d70a7cd",
    ),
    "pytorch 32": (
        35_746_307,
        328,
        "8bfcb96d7bdf7f82c303b2fb01410150bba1548e29da72391cd850499cfad8b8",
    ),
    "diffusers 32": (
        35_746_307,
        328,
        "3518e72882d7d0a748bd48ba649438fee2e5dac4609ed8b7d339bf7a572e5745",
    ),
    "tensorflow 256": (
        113_673_219,
        450,
        "a0551aad239e58d8321f66ffba30cd1ae931705a4d3da68a34f87bffecb138da",
    ),
    "pytorch 256": (
        113_673_219,
        450,
        "bf3297ae13948a100284336db99b542ce7784f3e2724fd5dff1cfd01c248033b",
    ),
    "diffusers 256": (
        113_673_219,
        450,
        "24cf7d010ea37206bf14c98367a8d9e8bbeb933ee10c0bdb50b65c48413bd303",
    ),
}
