"""The published checkpoints: what each is, where it lies, what it should score.

Sources: the readme files of improved-diffusion, guided-diffusion and GLIDE; the DDPM
code, its PyTorch port and the models that Google put on the Hub; the papers' tables. A
signature is of names and shapes alone, so files that differ in their numbers share one.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping

from ddpm_jax.convert import published_fields

Shape = tuple[int, ...]

ADM_PROTOCOL = "50,000 samples against the training set, ADM's evaluator"
IDDPM_PROTOCOL = "50,000 samples against the training set, Improved DDPM's evaluation"


@dataclasses.dataclass(frozen=True)
class Published:
    """One published checkpoint.

    Attributes:
        name: in `PUBLISHED`.
        file: name of the file, of the TensorFlow prefix, or of the Hub's repository.
        format: of `open.Source`.
        url_path: behind https://openaipublic.blob.core.windows.net/ or
            https://huggingface.co/; "" where the authors link to a folder.
        fields: config fields by dotted name, and "facts.num_classes".
        parameters: how many numbers it holds.
        tensors: in how many tensors.
        signature: of their names and shapes, see `signature_of`.
        expected: what the papers measured, and how.
        notes: what a user should know.
    """

    name: str
    file: str
    format: str
    url_path: str
    fields: Mapping[str, object]
    parameters: int
    tensors: int
    signature: str
    expected: str
    notes: str = ""


def signature_of(shapes: Mapping[str, Shape]) -> str:
    """Return the SHA-256 of all names with their shapes, in the order of the names."""
    listed = [[name, list(shapes[name])] for name in sorted(shapes)]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def find(format_name: str, shapes: Mapping[str, Shape]) -> list[Published]:
    """Return the published checkpoints of exactly these tensors."""
    signature = signature_of(shapes)
    return [
        entry
        for entry in PUBLISHED.values()
        if (entry.format, entry.signature) == (format_name, signature)
    ]


def is_named(entry: Published, path: pathlib.Path) -> bool:
    """Return whether a path bears the published name, in its file or its folders."""
    there = {_stem(part) for part in path.parts[-3:]}
    return any(_stem(part) in there for part in pathlib.Path(entry.file).parts)


def _stem(name):
    for suffix in (".pt", ".ckpt", ".safetensors"):
        name = name.removesuffix(suffix)
    return name


VLB = {"loss": "rescaled_kl", "timestep_sampler": "loss_second_moment"}
CIFAR = (32, 128, 3, (16, 8))
IMAGENET64 = (64, 128, 3, (16, 8))
LSUN = (256, 128, 2, (16,))
LSUN_CHANGES = {"num_steps": 1000, "num_heads": 1, "scale_shift": False}
ADM256 = (256, 256, 2, (32, 16, 8))
UPSAMPLER = {"kind": "upsampler", "classes": 1000}

# ---- the table -----------------------------------------------------------------------


def _scores(fid, sfid, precision, recall, note="250 steps"):
    scores = f"FID {fid}, sFID {sfid}, precision {precision}, recall {recall}"
    return f"{scores}; {note}, {ADM_PROTOCOL}"


LSUN_SCORES = (
    "FID 4.24, sFID 8.21, precision 0.62, recall 0.46 on bedrooms, of which of the two "
    f"files is not said; {ADM_PROTOCOL}"
)
IDDPM = {
    # Name → (name whose signature it has, fields, expected).
    "imagenet64_uncond_100M_1500K": (
        "imagenet64_uncond_100M_1500K",
        published_fields.iddpm(*IMAGENET64, rescaled=True, schedule="cosine"),
        f"FID 19.2, NLL 3.57 bits/dim; {IDDPM_PROTOCOL}",
    ),
    "imagenet64_uncond_vlb_100M_1500K": (
        "imagenet64_uncond_100M_1500K",
        published_fields.iddpm(*IMAGENET64, rescaled=True, schedule="cosine", **VLB),
        f"FID 40.1, NLL 3.53 bits/dim; {IDDPM_PROTOCOL}",
    ),
    "imagenet64_cond_270M_250K": (
        "imagenet64_cond_270M_250K",
        published_fields.iddpm(
            64, 192, 3, (16, 8), rescaled=False, schedule="cosine", classes=1000
        ),
        f"FID 2.92, precision 0.82, recall 0.71; 250 steps, {IDDPM_PROTOCOL}",
    ),
    "cifar10_uncond_50M_500K": (
        "cifar10_uncond_50M_500K",
        published_fields.iddpm(*CIFAR, rescaled=True, schedule="cosine", dropout=0.3),
        f"FID 3.19, NLL 3.17 bits/dim; 4,000 steps, {IDDPM_PROTOCOL}",
    ),
    "cifar10_uncond_vlb_50M_500K": (
        "cifar10_uncond_50M_500K",
        published_fields.iddpm(
            *CIFAR, rescaled=True, schedule="cosine", dropout=0.3, **VLB
        ),
        f"FID 11.47, NLL 2.94 bits/dim; 4,000 steps, {IDDPM_PROTOCOL}",
    ),
    "upsample_cond_500K": (
        "upsample_cond_500K",
        published_fields.iddpm(256, 192, 2, (16, 8), rescaled=False, **UPSAMPLER),
        f"FID 12.3 after imagenet64_cond_270M_250K; {IDDPM_PROTOCOL}",
    ),
    "lsun_uncond_100M_1200K_bs128": (
        "lsun_uncond_100M_1200K_bs128",
        published_fields.iddpm(*LSUN, rescaled=False, **LSUN_CHANGES),
        LSUN_SCORES,
    ),
    "lsun_uncond_100M_2400K_bs64": (
        "lsun_uncond_100M_1200K_bs128",
        published_fields.iddpm(*LSUN, rescaled=False, **LSUN_CHANGES),
        LSUN_SCORES,
    ),
}
ADM = {
    "64x64_diffusion": (
        "64x64_diffusion",
        published_fields.adm(
            64,
            192,
            3,
            (32, 16, 8),
            schedule="cosine",
            classes=1000,
            dropout=0.1,
            qkv_order="new",
        ),
        _scores(2.07, 4.29, 0.74, 0.63),
    ),
    "128x128_diffusion": (
        "128x128_diffusion",
        published_fields.adm(128, 256, 2, (32, 16, 8), classes=1000, head_channels=0),
        _scores(5.91, 5.09, 0.70, 0.65) + "; FID 2.97 guided by its classifier, 0.5",
    ),
    "256x256_diffusion": (
        "256x256_diffusion",
        published_fields.adm(*ADM256, classes=1000),
        _scores(10.94, 6.02, 0.69, 0.63) + "; FID 4.59 guided by its classifier, 1.0",
    ),
    "256x256_diffusion_uncond": (
        "256x256_diffusion_uncond",
        published_fields.adm(*ADM256),
        _scores(26.21, 6.35, 0.61, 0.63) + "; FID 12.00 guided by the classifier, 10.0",
    ),
    "512x512_diffusion": (
        "512x512_diffusion",
        published_fields.adm(512, 256, 2, (32, 16, 8), classes=1000),
        _scores(23.24, 10.19, 0.73, 0.60) + "; FID 7.72 guided by its classifier, 4.0",
    ),
    "64_256_upsampler": (
        "64_256_upsampler",
        published_fields.adm(256, 192, 2, (32, 16, 8), head_channels=0, **UPSAMPLER),
        _scores(7.49, 5.13, 0.72, 0.63, "after 64x64_diffusion, 250 steps each"),
    ),
    "128_512_upsampler": (
        "128_512_upsampler",
        published_fields.adm(
            512, 192, 2, (32, 16), channel_mult=published_fields.MULT[256], **UPSAMPLER
        ),
        _scores(9.96, 5.62, 0.75, 0.64, "after 128x128_diffusion, 250 steps each"),
    ),
    "lsun_bedroom": (
        "256x256_diffusion_uncond",
        published_fields.adm(*ADM256, dropout=0.1),
        _scores(1.90, 5.59, 0.66, 0.51, "1,000 steps"),
    ),
    "lsun_cat": (
        "256x256_diffusion_uncond",
        published_fields.adm(*ADM256, dropout=0.1),
        _scores(5.57, 6.69, 0.63, 0.52, "1,000 steps"),
    ),
    "lsun_horse": (
        "256x256_diffusion_uncond",
        published_fields.adm(*ADM256, dropout=0.1),
        _scores(2.57, 6.81, 0.71, 0.55, "1,000 steps"),
    ),
    "lsun_horse_nodropout": (
        "256x256_diffusion_uncond",
        published_fields.adm(*ADM256),
        _scores(2.95, 5.94, 0.69, 0.55, "1,000 steps"),
    ),
    **{
        f"{size}x{size}_classifier": (
            f"{size}x{size}_classifier",
            published_fields.classifier(size, 4 if size == 64 else 2, schedule),
            "guides the diffusion model of its size",
        )
        for size, schedule in (
            (64, "cosine"),
            (128, "linear"),
            (256, "linear"),
            (512, "linear"),
        )
    },
}
FILTERED = (
    "GLIDE (filtered), 0.3 B parameters, trained without people; the paper's 3.5 B "
    "model was never released"
)
GLIDE = {
    # Name → (file, fields).
    "glide_base": ("base", published_fields.glide(64)),
    "glide_upsample": ("upsample", published_fields.glide(256)),
    "glide_base_inpaint": (
        "base_inpaint",
        published_fields.glide(64, inpainting=True),
    ),
    "glide_upsample_inpaint": (
        "upsample_inpaint",
        published_fields.glide(256, inpainting=True),
    ),
}
HO_CIFAR = "FID 3.17 (training set), 5.24 (test set), NLL ≤ 3.75 bits/dim; 1,000 steps"
HO_LSUN = {
    # Data → (step of the published weights, expected).
    "bedroom": (2_388_000, "FID 6.36; 50,000 samples, 1,000 steps"),
    "cat": (1_761_000, "FID 19.75; 50,000 samples, 1,000 steps"),
    "church": (4_432_000, "FID 7.89; 50,000 samples, 1,000 steps"),
}
PORTED = "FID 3.21 averaged, 12.14 raw (training set); 50,000 samples, torch-fidelity"


def _openai_entries():
    for folder, table in (
        ("diffusion/march-2021", IDDPM),
        ("diffusion/jul-2021", ADM),
    ):
        for name, (alike, fields, expected) in table.items():
            file = f"{name}.pt"
            parts = (
                f"{folder}/{file}",
                fields,
                *published_fields.SIGNATURES[alike],
                expected,
            )
            yield Published(name, file, "openai", *parts)


def _glide_entries():
    for name, (stem, fields) in GLIDE.items():
        file = f"{stem}.pt"
        yield Published(
            name,
            file,
            "openai",
            f"diffusion/dec-2021/{file}",
            fields,
            *published_fields.SIGNATURES[name],
            "no figures of the released weights were published",
            FILTERED,
        )


def _clip_entries():
    """Yield both encoders as one network."""
    yield Published(
        "glide_clip",
        "clip_image_enc.pt",
        "clip",
        "diffusion/dec-2021/clip_image_enc.pt",
        published_fields.glide_clip(),
        *published_fields.SIGNATURES["glide_clip"],
        "guides GLIDE's base model",
        f"with clip_text_enc.pt beside it; {FILTERED}",
    )


def _tensorflow_entries():
    """Yield the originals, raw and averaged weights in one checkpoint."""
    small = (
        published_fields.ddpm(32, floor="next"),
        *published_fields.SIGNATURES["tensorflow 32"],
    )
    large = (
        published_fields.ddpm(256, floor="1e-20"),
        *published_fields.SIGNATURES["tensorflow 256"],
    )
    note = "averaged weights are taken"
    yield Published(
        "ddpm_cifar10",
        "diffusion_cifar10_model/model.ckpt-790000",
        "ddpm",
        "",
        *small,
        HO_CIFAR,
        note,
    )
    for data, (step, expected) in HO_LSUN.items():
        file = f"diffusion_lsun_{data}_model/model.ckpt-{step}"
        yield Published(f"ddpm_lsun_{data}", file, "ddpm", "", *large, expected, note)
    file = "diffusion_celeba_hq_model"
    yield Published("ddpm_celebahq", file, "ddpm", "", *large, "none published", note)


def _port_entries():
    """Yield the PyTorch port's files, raw and averaged weights apart."""
    small = (
        published_fields.ddpm(32, floor="next"),
        *published_fields.SIGNATURES["pytorch 32"],
    )
    large = (
        published_fields.ddpm(256, floor="1e-20"),
        *published_fields.SIGNATURES["pytorch 256"],
    )
    for prefix in ("", "ema_"):
        file = f"{prefix}diffusion_cifar10_model-790000.ckpt"
        yield Published(f"{prefix}cifar10", file, "ddpm", "", *small, PORTED)
        for data, (step, expected) in HO_LSUN.items():
            file = f"{prefix}diffusion_lsun_{data}_model-{step}.ckpt"
            name = f"{prefix}lsun_{data}_ddpm"
            yield Published(name, file, "ddpm", "", *large, expected)


def _hub_entries():
    """Yield the models of google/ on the Hub."""
    small = published_fields.ddpm(32, floor="1e-20", initialisation="torch")
    large = published_fields.ddpm(256, floor="1e-20", initialisation="torch")
    name = "ddpm-cifar10-32"
    note = "whether its weights are averaged is not said"
    parts = (
        f"google/{name}",
        small,
        *published_fields.SIGNATURES["diffusers 32"],
        HO_CIFAR,
        note,
    )
    yield Published(name, name, "diffusers", *parts)
    for prefix in ("ddpm", "ddpm-ema"):
        for data in ("celebahq", "church", "bedroom", "cat"):
            name = f"{prefix}-{data}-256"
            expected = HO_LSUN.get(data, (0, "none published"))[1]
            parts = (
                f"google/{name}",
                large,
                *published_fields.SIGNATURES["diffusers 256"],
                expected,
            )
            yield Published(name, name, "diffusers", *parts)


PUBLISHED: dict[str, Published] = {
    entry.name: entry
    for entries in (
        _openai_entries(),
        _glide_entries(),
        _clip_entries(),
        _tensorflow_entries(),
        _port_entries(),
        _hub_entries(),
    )
    for entry in entries
}
