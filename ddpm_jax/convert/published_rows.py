"""Rows of the tables of the four papers: weights, sampler, metric, published value.

Sources: DDPM (Ho et al. 2020), table 1 and section 4; DDIM (Song et al. 2021), table 1;
Improved DDPM (Nichol & Dhariwal 2021), tables 1, 2 and section 4; Diffusion Models Beat
GANs (Dhariwal & Nichol 2021), tables 4 and 5 and those of its appendix.
"""

from collections.abc import Mapping
from typing import NamedTuple

from ddpm_jax.convert import published, published_pairs

BATCHES = (
    "https://openaipublic.blob.core.windows.net/diffusion/jul-2021/ref_batches/"
    "{0}/VIRTUAL_{1}.npz"
)
SAMPLES = 50_000
BITS = "bits_per_dim"
# How far a repetition may be off: of distances a share, or the least; of the others a
# difference. Published numbers are rounded, and another seed gives another value.
SHARES = {"fid": (0.03, 0.15), "sfid": (0.03, 0.15)}
DIFFERENCES = {"precision": 0.015, "recall": 0.015, BITS: 0.02}


class Row(NamedTuple):
    """A row of a published table.

    Attributes:
        paper: where it stands.
        weights: names of `published.PUBLISHED`, each of which holds these weights.
        sampling: fields of config.sampling by last name.
        expected: value by the name on the card.
        reference: URL of what samples are compared with; "" for the training data.
        classifier: name of the classifier that guides; "" for none.
        data: of `data.name`, where the data itself is needed.
        note: what is known to be done otherwise here than there.
    """

    paper: str
    weights: tuple[str, ...]
    sampling: Mapping[str, object]
    expected: Mapping[str, float]
    reference: str = ""
    classifier: str = ""
    data: str = ""
    note: str = ""

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names for evaluation.metric that give these values."""
        pairs = {"precision": "precision_recall", "recall": "precision_recall"}
        return tuple(dict.fromkeys(pairs.get(name, name) for name in self.expected))

    @property
    def is_of_samples(self) -> bool:
        """Whether images have to be made."""
        return BITS not in self.expected


def tolerance(metric: str, expected: float) -> float:
    """Return how far a repetition may be from a published value."""
    if metric in DIFFERENCES:
        return DIFFERENCES[metric]
    share, least = SHARES[metric]
    return max(share * expected, least)


# ---- the tables ----------------------------------------------------------------------

CIFAR10 = ("ddpm_cifar10", "ema_cifar10", "ddpm-cifar10-32")
DDIM = {
    # Steps → FID with η = 0, with η = 1.
    10: (13.36, 41.07),
    20: (6.84, 18.36),
    50: (4.67, 8.01),
    100: (4.16, 5.78),
    1000: (4.04, 4.73),
}
QUADRATIC = (
    "the authors' code spaces its steps up to 0.8 T, and here they reach T, as in the "
    "paper's formula"
)
LSUN = {"bedroom": 6.36, "cat": 19.75, "church": 7.89}
IMPROVED = {
    # Row → (weights, respacing, expected).
    # Precision and recall of this one were measured in other features.
    "imagenet64": ("imagenet64_cond_270M_250K", "250", {"fid": 2.92}),
    "cifar10": ("cifar10_uncond_50M_500K", "", {"fid": 3.19}),
    "cifar10_bits": ("cifar10_uncond_50M_500K", "", {BITS: 3.17}),
    "cifar10_vlb": ("cifar10_uncond_vlb_50M_500K", "", {"fid": 11.47}),
    "cifar10_vlb_bits": ("cifar10_uncond_vlb_50M_500K", "", {BITS: 2.94}),
}
ADM = {
    # Weights → (reference, respacing, scores).
    "64x64_diffusion": ("imagenet/64", "250", (2.07, 4.29, 0.74, 0.63)),
    "128x128_diffusion": ("imagenet/128", "250", (5.91, 5.09, 0.70, 0.65)),
    "256x256_diffusion": ("imagenet/256", "250", (10.94, 6.02, 0.69, 0.63)),
    "256x256_diffusion_uncond": ("imagenet/256", "250", (26.21, 6.35, 0.61, 0.63)),
    "512x512_diffusion": ("imagenet/512", "250", (23.24, 10.19, 0.73, 0.60)),
    "lsun_bedroom": ("lsun/bedroom", "", (1.90, 5.59, 0.66, 0.51)),
    "lsun_cat": ("lsun/cat", "", (5.57, 6.69, 0.63, 0.52)),
    "lsun_horse": ("lsun/horse", "", (2.57, 6.81, 0.71, 0.55)),
    "lsun_horse_nodropout": ("lsun/horse", "", (2.95, 5.94, 0.69, 0.55)),
}
SCORES = ("fid", "sfid", "precision", "recall")


def reference_of(folder: str) -> str:
    """Return the URL of a batch, such as that of "imagenet/256" or "lsun/cat"."""
    name = folder.replace("/", "_") if folder.startswith("lsun") else ""
    size = "" if name else folder.partition("/")[2]
    labeled = "" if size == "512" else "_labeled"
    return BATCHES.format(folder, f"{name}256" if name else f"imagenet{size}{labeled}")


def _conditional(weights):
    fields = published.PUBLISHED[weights].fields
    return {"labels": "random"} if fields["model.class_conditional"] else {}


def _rows():
    ancestral = {"method": "ancestral"}
    data = {"data": "cifar10"}
    for name, expected in (("", {"fid": 3.17}), ("_bits", {BITS: 3.75})):
        row = Row("DDPM, table 1", CIFAR10, ancestral, expected, **data)
        yield f"ddpm/cifar10{name}", row
    for name, fid in LSUN.items():
        weights = tuple(
            known
            for known in (f"ddpm_lsun_{name}", f"ema_lsun_{name}_ddpm")
            if known in published.PUBLISHED
        )
        yield f"ddpm/lsun_{name}", Row("DDPM", weights, ancestral, {"fid": fid})
    for steps, fids in DDIM.items():
        for eta, fid in zip((0.0, 1.0), fids, strict=True):
            sampling = {"method": "ddim", "steps": steps, "eta": eta}
            sampling["spacing"] = "quadratic"
            name = f"ddim/cifar10_{steps}_eta{eta:g}"
            row = Row("DDIM, table 1", CIFAR10, sampling, {"fid": fid}, **data)
            yield name, row._replace(note=QUADRATIC)
    for name, (weights, respacing, expected) in IMPROVED.items():
        steps = {"respacing": respacing} if respacing else {}
        sampling = {**ancestral, **steps, **_conditional(weights)}
        is_small = name.startswith("cifar10")
        own = data if is_small else {"reference": reference_of("imagenet/64")}
        row = Row("Improved DDPM", (weights,), sampling, expected, **own)
        yield f"iddpm/{name}", row
    for weights, (folder, respacing, scores) in ADM.items():
        steps = {"respacing": respacing} if respacing else {}
        sampling = {**ancestral, **steps, **_conditional(weights)}
        expected = dict(zip(SCORES, scores, strict=True))
        row = Row("ADM", (weights,), sampling, expected, reference_of(folder))
        yield f"adm/{weights}", row
    for name, pair in published_pairs.named().items():
        if pair.fid is None:
            continue
        scores = (pair.fid, pair.sfid, pair.precision, pair.recall)
        sampling = {
            **{"method": pair.method, "respacing": pair.respacing},
            **{"classifier_scale": pair.scale, "labels": "random"},
        }
        size = pair.model.partition("x")[0]
        yield (
            f"adm/{name}",
            Row(
                "ADM",
                (pair.model,),
                sampling,
                dict(zip(SCORES, scores, strict=True)),
                reference_of(f"imagenet/{size}"),
                pair.classifier,
            ),
        )


ROWS: dict[str, Row] = dict(_rows())
