"""Claims of ADM and GLIDE, guidance in the plane, and what cannot be tested."""

import itertools

from benchmarks.claims import evidence
from benchmarks.claims.claim import BEDS, DIGITS, Bed, Claim, Curve, Picture, Row
from benchmarks.claims.evidence import Check, Quantity, measured
from benchmarks.claims.measures import GUIDES, guided_name

ADM = "ADM (Dhariwal & Nichol 2021)"
SIZE = (
    "600 steps on 8×8 digits; the paper has up to 4.36 million on ImageNet. Precision, "
    "recall (k = 3) and `proxy_fd` are of 64 features of a classifier trained on the "
    "digits, from 500 samples and 1,438 real digits, DDIM in 15 steps; agreement is "
    "the share in which a support-vector machine reads the class asked for."
)
TABLE_4 = """
| ADM table 4, ImageNet-256 | FID | precision | recall |
|---|---|---|---|
| unconditional | 26.21 | 0.61 | 0.63 |
| unconditional, scale 1 | 33.03 | 0.56 | 0.65 |
| unconditional, scale 10 | 12.00 | 0.76 | 0.44 |
| conditional | 10.94 | 0.69 | 0.63 |
| conditional, scale 1 | 4.59 | 0.82 | 0.52 |
| conditional, scale 10 | 9.11 | 0.88 | 0.32 |
"""
SCORES = ("agreement", "precision", "recall", "proxy_fd")


def adagn(bed: Bed) -> Claim:
    """Return the claim on a data set."""
    return Claim(
        name=bed.named("adagn"),
        title="Adaptive group normalisation beats addition",
        paper=f"{ADM}, section 3.1 and table 3",
        says="Scaling and shifting the normalised activations by the time embedding "
        "gives better samples than adding it: FID 13.06 instead of 15.08.",
        checks=(
            Check(
                "distance of AdaGN is below that of addition",
                bed.fd("hybrid") - bed.fd("addition"),
                "below",
            ),
        ),
        columns=bed.quality,
        rows=bed.table({"hybrid": "AdaGN", "addition": "addition"}),
        published="""
| ADM table 3, ImageNet-128 | FID |
|---|---|
| AdaGN | 13.06 |
| addition, then GroupNorm | 15.08 |
""",
        limits=bed.told + " The network with addition has fewer parameters, as in the "
        "paper. Points have layer normalisation in the place of group normalisation.",
    )


ATTENTION = Claim(
    name="attention_digits",
    title="Attention at more resolutions helps",
    paper=f"{ADM}, section 3 and table 1",
    says="Attention at 32, 16 and 8 pixels instead of at 16 alone improves FID by 0.66 "
    "to 0.72.",
    checks=(
        Check(
            "distance with attention at 8×8 and 4×4 is below that at 4×4 alone",
            DIGITS.fd("attention") - DIGITS.fd("hybrid"),
            "below",
        ),
        Check(
            "so are bits/dim",
            DIGITS.bits("attention") - DIGITS.bits("hybrid"),
            "below",
        ),
    ),
    columns=DIGITS.quality,
    rows=DIGITS.table({"hybrid": "at 4×4", "attention": "at 8×8 and 4×4"}),
    published="ADM table 1, ImageNet-128, 700,000 and 1,200,000 iterations: FID −0.72 "
    "and −0.66 from 15.33 and 13.21.",
    limits=DIGITS.told + " Two resolutions in all. Equal steps, neither "
    "equal parameters nor equal FLOPs.",
)


def _guided(guide, scale, value):
    return measured("hybrid", guided_name(guide, scale), value)


def _rows(*guides):
    return tuple(
        Row(
            f"{guide}, scale {scale:g}",
            tuple(_guided(guide, scale, value) for value in SCORES),
        )
        for guide in guides
        for scale in GUIDES[guide]
    )


def _curves(value, *guides):
    return tuple(
        Curve(
            {"free": "classifier-free"}.get(guide, guide),
            tuple(_guided(guide, scale, "precision") for scale in GUIDES[guide]),
            tuple(_guided(guide, scale, value) for scale in GUIDES[guide]),
        )
        for guide in guides
    )


CLASSIFIER = Claim(
    name="classifier_guidance_digits",
    title="Classifier guidance trades recall for precision",
    paper=f"{ADM}, section 4.3, figures 3 to 5 and table 4",
    says="The larger the scale, the higher precision and the lower recall. An "
    "unconditional network needs a scale far above 1 to reach its classes; with it, "
    "guidance repairs much of what conditioning would give.",
    checks=(
        Check(
            "precision at scale 8 is above that without guidance",
            _guided("classifier", 8.0, "precision") - _guided("free", 1.0, "precision"),
            "above",
        ),
        Check(
            "recall at scale 8 is below that without guidance",
            _guided("classifier", 8.0, "recall") - _guided("free", 1.0, "recall"),
            "below",
        ),
        Check(
            "told of no class, agreement at scale 1 is below 0.9",
            _guided("classifier alone", 1.0, "agreement"),
            "below",
            0.9,
        ),
        Check(
            "told of no class, agreement at scale 4 is above that at scale 1",
            _guided("classifier alone", 4.0, "agreement")
            - _guided("classifier alone", 1.0, "agreement"),
            "above",
        ),
    ),
    columns=SCORES,
    rows=(
        Row(
            "conditional, no guidance",
            tuple(_guided("free", 1.0, value) for value in SCORES),
        ),
        *_rows("classifier", "classifier alone"),
    ),
    published=TABLE_4,
    picture=Picture(
        "precision",
        "recall",
        _curves("recall", "classifier", "classifier alone"),
        alt="Recall against precision along the scale, conditional and told of no "
        "class",
    ),
    limits=SIZE + " *classifier alone*: the same network, told of no class, stands for "
    "the unconditional one.",
)


def _at_agreement(guide, wanted, value):
    """Return a score where a guide reaches an agreement, on the line between scales."""
    keys = [("hybrid", guided_name(guide, scale)) for scale in GUIDES[guide]]

    def read(lookup):
        points = [lookup[key] for key in keys]
        for one, other in itertools.pairwise(points):
            if one["agreement"] <= wanted <= other["agreement"]:
                gap = other["agreement"] - one["agreement"]
                share = (wanted - one["agreement"]) / gap if gap else 0.0
                return one[value] + share * (other[value] - one[value])
        nearest = min(points, key=lambda point: abs(point["agreement"] - wanted))
        return nearest[value]

    return Quantity(frozenset(keys), read)


MATCHED = 0.98

FREE_OR_CLASSIFIER = Claim(
    name="free_or_classifier_digits",
    title="Classifier-free guidance or a classifier, at matched fidelity",
    paper="GLIDE (Nichol et al. 2021), section 5; Ho & Salimans 2021",
    says="Guiding without a separate network gives the better trade: at equal fidelity "
    "to what was asked for, samples of classifier-free guidance are better. (GLIDE "
    "compares with CLIP guidance, by FID against CLIP score and by people.)",
    checks=(
        Check(
            f"where agreement is {MATCHED:.0%}, `proxy_fd` of classifier-free guidance "
            "is below that of the classifier on the network that is told no class",
            _at_agreement("free", MATCHED, "proxy_fd")
            - _at_agreement("classifier alone", MATCHED, "proxy_fd"),
            "below",
        ),
        Check(
            "there its recall is above that of the classifier",
            _at_agreement("free", MATCHED, "recall")
            - _at_agreement("classifier alone", MATCHED, "recall"),
            "above",
        ),
    ),
    columns=SCORES,
    rows=_rows("free", "classifier alone"),
    published="GLIDE shows it as a plot: along the scale, the curve of classifier-free "
    "guidance lies outside that of CLIP guidance in precision against recall.",
    picture=Picture(
        "agreement",
        "proxy_fd",
        tuple(
            Curve(
                {"free": "classifier-free"}.get(guide, guide),
                tuple(_guided(guide, s, "agreement") for s in GUIDES[guide]),
                tuple(_guided(guide, s, "proxy_fd") for s in GUIDES[guide]),
            )
            for guide in ("free", "classifier alone")
        ),
        log="y",
        alt="proxy_fd against agreement along the scale, for both guides",
    ),
    limits=SIZE + " Between two scales the scores are joined by a line; where no scale "
    "reaches the agreement, the nearest one stands for it.",
)


SCALES = (1.0, 2.0, 4.0)


def _law(scale, value):
    return measured("mixture", f"laws {scale:g}", value)


def _trade(scale, value):
    return measured("mixture", f"trade {scale:g}", value)


TRADE = Claim(
    name="classifier_guidance",
    title="Classifier guidance trades recall for precision",
    paper=f"{ADM}, section 4.3, figures 3 to 5 and table 4",
    says="The larger the scale, the higher precision and the lower recall.",
    checks=(
        Check(
            "precision at scale 4 is above that at scale 1",
            _trade(4.0, "precision") - _trade(1.0, "precision"),
            "above",
        ),
        Check(
            "recall at scale 4 is below that at scale 1",
            _trade(4.0, "recall") - _trade(1.0, "recall"),
            "below",
        ),
    ),
    columns=("precision", "recall"),
    rows=tuple(
        Row(
            f"scale {scale:g}",
            (_trade(scale, "precision"), _trade(scale, "recall")),
        )
        for scale in SCALES
    ),
    published=TABLE_4,
    limits="Exact networks in the plane, see [the mixture](mixture.md): guidance by "
    "the exact classifier, DDIM in 250 of 1,000 steps, 2,000 points of each set, k = "
    "3. At scale 1 nothing is missing and nothing is wrong, so that precision has no "
    "room but for points far out. The trade of learned networks is "
    "[another page](classifier_guidance_digits.md).",
    because={
        evidence.IN_PART: "Recall falls to half. Precision is 0.98 before: exact "
        "networks make no mistakes that guidance could remove."
    },
)

MIXTURE = Claim(
    name="mixture",
    title="What a scale above 1 really samples",
    paper=f"{ADM}, section 4.2; Ho & Salimans 2021, section 3",
    says="At every noise level the guided score is that of p(x_t)·p(c|x_t)^s, whether "
    "a classifier or the network itself gives p(c|x_t). It is often read as: samples "
    "follow p(x)·p(c|x)^s. We test the first, and what comes out at the end of the "
    "chain: for s = 1 that law, for s > 1 another, further out and narrower.",
    checks=(
        Check(
            "with exact networks the two guides make the same points, to 0.01",
            _law(4.0, "difference of guides"),
            "below",
            0.01,
        ),
        Check(
            "at scale 1 the energy distance to p(x|c) is below 0.01",
            _law(1.0, "distance"),
            "below",
            0.01,
        ),
        Check(
            "at scale 4 the energy distance to p(x)·p(c|x)^4 is above 0.01",
            _law(4.0, "distance"),
            "above",
            0.01,
        ),
        Check(
            "at scale 4 the points spread less than that law",
            _law(4.0, "spread"),
            "below",
            1.0,
        ),
    ),
    columns=(
        *("distance to p(x)·p(c\\|x)^s", "of two exact sets"),
        *("deviation over that of the law", "largest difference of the guides"),
    ),
    rows=tuple(
        Row(
            f"scale {scale:g}",
            tuple(
                _law(scale, value)
                for value in (
                    *("distance", "distance of exact sets"),
                    *("spread", "difference of guides"),
                )
            ),
        )
        for scale in SCALES
    ),
    picture=Picture(
        "",
        "",
        own="plane",
        alt="Points of guidance over the density of p(x)·p(c|x)^s, for scales 1, 2, 4",
    ),
    limits="Exact networks in the plane, DDIM in 250 of 1,000 steps, 2,000 points a "
    "seed. The distance is the energy distance, without bias: two sets of one law have "
    "0 ± its own noise.",
    because={
        evidence.REPRODUCED: "Both guides make the same points; at scale 4 they lie "
        "further out and closer together than p(x)·p(c|x)⁴ has them."
    },
)

GANS = Claim(
    name="gans",
    title="Diffusion models beat GANs",
    paper=f"{ADM}, table 5",
    says="On ImageNet at 128, 256 and 512 pixels guided diffusion has better FID than "
    "BigGAN-deep, at better recall.",
    limits="No GAN is trained here, and digits of 8×8 pixels are no field on which the "
    "two differ. Published weights can be imported and scored: see "
    "[weights](../weights.md).",
)

PEOPLE = Claim(
    name="people",
    title="People prefer classifier-free guidance",
    paper="GLIDE (Nichol et al. 2021), section 5",
    says="Asked for realism and for how well the caption is met, people rank images of "
    "classifier-free guidance above those of CLIP guidance, and both above none.",
    limits="It takes people, captions and images of 256 pixels.",
)

BLOCKS = Claim(
    name="blocks",
    title="Depth, heads, BigGAN's blocks, at equal FLOPs",
    paper=f"{ADM}, tables 1 and 2",
    says="At equal training time, attention heads of 64 channels and BigGAN's residual "
    "blocks for resampling are worth their cost; residuals scaled by 1/√2 are not.",
    limits="An image of 8×8 pixels has one halving and 32 channels at most here: there "
    "is one block to resample with, and no room for heads of 64 channels.",
)

CLAIMS = (
    *(adagn(bed) for bed in BEDS),
    *(TRADE, MIXTURE, ATTENTION, CLASSIFIER, FREE_OR_CLASSIFIER),
    *(GANS, PEOPLE, BLOCKS),
)
