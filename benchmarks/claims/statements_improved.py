"""Claims of Improved DDPM and DDIM, and what was set before the runs."""

from benchmarks.claims import evidence, measures
from benchmarks.claims.claim import BEDS, Bed, Claim, Curve, Picture, Row
from benchmarks.claims.evidence import Check
from benchmarks.claims.measures import SMALL_STEPS, STEPS

IMPROVED = "Improved DDPM (Nichol & Dhariwal 2021)"
IMAGENET_64 = """
| Improved DDPM, ImageNet-64, 200,000 iterations, T = 4,000 | FID | bits/dim |
|---|---|---|
| linear, L_simple | 31.3 | 3.77 |
| linear, L_hybrid | 32.2 | 3.66 |
| cosine, L_simple | 27.0 | 3.68 |
| cosine, L_hybrid | 28.0 | 3.62 |
| cosine, L_vlb | 56.7 | 3.57 |

Quoted second-hand: look it up before citing it.
"""

SKIPPED = (0.0, *measures.SKIPPED)


def _skip(bed, arm, share):
    return bed.fd(arm, f"skip {share:g}" if share else "ancestral 50")


def cosine(bed: Bed) -> Claim:
    """Return the claim on a data set."""
    return Claim(
        name=bed.named("cosine"),
        title="The cosine schedule beats the linear one",
        paper=f"{IMPROVED}, section 3.2, figures 3 to 5, tables 1 and 2",
        says="The linear schedule destroys images too early: a fifth of its reverse "
        "chain can be skipped at almost no cost. The cosine schedule has better bits "
        "per dimension and, on ImageNet 64×64, better samples.",
        checks=(
            Check(
                "bits/dim of cosine are below those of linear",
                bed.bits("cosine") - bed.bits("simple"),
                "below",
            ),
            Check(
                "distance of cosine is below that of linear",
                bed.fd("cosine") - bed.fd("simple"),
                "below",
            ),
            Check(
                "skipping the first fifth costs linear less distance than cosine",
                (_skip(bed, "simple", 0.2) - _skip(bed, "simple", 0.0))
                - (_skip(bed, "cosine", 0.2) - _skip(bed, "cosine", 0.0)),
                "below",
            ),
        ),
        columns=(*bed.quality, "distance of 40 of 50 steps", "of all 50"),
        rows=bed.table(
            {"simple": "linear", "cosine": "cosine"},
            "skip 0.2",
            "ancestral 50",
        ),
        published=IMAGENET_64,
        picture=Picture(
            "share of the reverse chain that is skipped",
            bed.axis,
            tuple(
                Curve(told, SKIPPED, tuple(_skip(bed, arm, share) for share in SKIPPED))
                for arm, told in (("simple", "linear"), ("cosine", "cosine"))
            ),
            alt="Distance against the share of the chain that is skipped, by schedule",
        ),
        limits=bed.told,
        because=bed.because(
            points={
                evidence.IN_PART: "Bits per dimension and samples are better; whether "
                "skipping a fifth of the chain costs linear less cannot be told from "
                "the noise of five seeds."
            }
        ),
    )


def learned_variance(bed: Bed) -> Claim:
    """Return the claim on a data set."""
    return Claim(
        name=bed.named("learned_variance"),
        title="A learned variance helps at few steps",
        paper=f"{IMPROVED}, sections 3.1 and 4, figure 8",
        says="A variance learned as a mix of the two fixed ones gives better "
        "likelihoods, and lets the chain be cut to few steps with little loss, where "
        "fixed variances lose much.",
        checks=(
            Check(
                "at 10 steps, distance is below that of the fixed large variance",
                bed.fd("hybrid", "ancestral 10") - bed.fd("simple", "ancestral 10"),
                "below",
            ),
            Check(
                "at 10 steps, distance is below that of the fixed small variance",
                bed.fd("hybrid", "ancestral 10") - bed.fd("simple", "small 10"),
                "below",
            ),
            Check(
                "bits/dim at all 200 steps are below those of the fixed large variance",
                bed.bits("hybrid") - bed.bits("simple"),
                "below",
            ),
            Check(
                "bits/dim at 10 steps are below those of the fixed large variance",
                bed.bits("hybrid", "10") - bed.bits("simple", "10"),
                "below",
            ),
        ),
        columns=(*(f"distance, {n} steps" for n in STEPS), "bits/dim, 10", "25", "200"),
        rows=(
            Row(
                "learned range, L_hybrid",
                (
                    *(bed.fd("hybrid", f"ancestral {n}") for n in STEPS),
                    *(bed.bits("hybrid", m) for m in ("10", "25", "")),
                ),
            ),
            Row(
                "fixed large, L_simple",
                (
                    *(bed.fd("simple", f"ancestral {n}") for n in STEPS),
                    *(bed.bits("simple", m) for m in ("10", "25", "")),
                ),
            ),
            Row(
                "fixed small, the same network",
                (*(bed.fd("simple", f"small {n}") for n in SMALL_STEPS), *[None] * 4),
            ),
        ),
        published=IMAGENET_64
        + "\nFigure 8 is a plot: FID of L_hybrid at 50 of 4,000 steps is near that at "
        "all, FID of fixed variances rises steeply.\n",
        picture=Picture(
            "steps",
            bed.axis,
            (
                Curve(
                    "learned range",
                    STEPS,
                    tuple(bed.fd("hybrid", f"ancestral {n}") for n in STEPS),
                ),
                Curve(
                    "fixed large",
                    STEPS,
                    tuple(bed.fd("simple", f"ancestral {n}") for n in STEPS),
                ),
                Curve(
                    "fixed small",
                    SMALL_STEPS,
                    tuple(bed.fd("simple", f"small {n}") for n in SMALL_STEPS),
                ),
            ),
            log="xy",
            alt="Distance against the number of ancestral steps, by variance",
        ),
        limits=bed.told
        + " The two networks differ in their loss too, as in the paper.",
        because=bed.because(
            points={
                evidence.IN_PART: "Bits per dimension of all steps are better, and so "
                "are samples in 10 steps than with the small fixed variance; with the "
                "large one, 10 steps do better in both samples and bits."
            }
        ),
    )


def objectives(bed: Bed) -> Claim:
    """Return the claim on a data set."""
    return Claim(
        name=bed.named("objectives"),
        title="L_hybrid keeps samples, L_vlb has the best likelihood",
        paper=f"{IMPROVED}, sections 3.1 and 3.3, tables 1 and 2",
        says="The hybrid objective has better bits per dimension than L_simple at "
        "about the same sample quality; the bound alone has the best bits and much "
        "worse samples.",
        checks=(
            Check(
                "bits/dim of L_hybrid are below those of L_simple",
                bed.bits("hybrid") - bed.bits("simple"),
                "below",
            ),
            Check(
                "bits/dim of L_vlb are below those of L_hybrid",
                bed.bits("vlb") - bed.bits("hybrid"),
                "below",
            ),
            Check(
                "distance of L_hybrid is below 1.25 times that of L_simple",
                bed.fd("hybrid") / bed.fd("simple"),
                "below",
                1.25,
            ),
            Check(
                "distance of L_vlb is above that of L_hybrid",
                bed.fd("vlb") - bed.fd("hybrid"),
                "above",
            ),
        ),
        columns=bed.quality,
        rows=bed.table(
            {
                "simple": "L_simple, fixed variance",
                "hybrid": "L_hybrid",
                "vlb": "L_vlb, uniform timesteps",
            },
        ),
        published=IMAGENET_64,
        limits=bed.told + " The paper draws the timesteps of L_vlb by importance; see "
        f"[importance sampling]({bed.named('importance_sampling')}.md) for that.",
        because=bed.because(
            points={
                evidence.IN_PART: (
                    "The hybrid loss has the better bits per dimension. Bits and "
                    "samples of L_vlb cannot be told from its own within the noise "
                    "of five seeds; drawing timesteps by importance lowers those "
                    "bits by another 0.22, see its own page."
                )
            }
        ),
    )


def _noise(bed, way, number):
    return bed.gradients("vlb", f"{way} {number}")


def importance(bed: Bed) -> Claim:
    """Return the claim on a data set."""
    return Claim(
        name=bed.named("importance_sampling"),
        title="Importance sampling lowers the noise of the bound's gradient",
        paper=f"{IMPROVED}, section 3.3, figures 6 and 7",
        says="The gradient of L_vlb is much noisier than that of L_hybrid, since its "
        "terms differ in size by orders of magnitude. Drawing timesteps by p_t ∝ "
        "√E[L_t²] lowers the noise; training on L_vlb then reaches better bits per "
        "dimension.",
        checks=(
            Check(
                "tr Σ with importance is below half of that with uniform timesteps",
                _noise(bed, "importance", "trace") / _noise(bed, "bound", "trace"),
                "below",
                0.5,
            ),
            Check(
                "the noise scale of L_vlb is above that of L_hybrid",
                _noise(bed, "bound", "scale") / _noise(bed, "hybrid", "scale"),
                "above",
                1.0,
            ),
            Check(
                "bits/dim after training with importance are below those without",
                bed.bits("vlb_importance") - bed.bits("vlb"),
                "below",
            ),
        ),
        columns=(
            "tr Σ of one example",
            "noise scale, images",
            "bits/dim if trained so",
        ),
        rows=(
            *(
                Row(
                    told,
                    (_noise(bed, way, "trace"), _noise(bed, way, "scale"), bits_after),
                )
                for way, told, bits_after in (
                    ("bound", "L_vlb, uniform", bed.bits("vlb")),
                    ("importance", "L_vlb, importance", bed.bits("vlb_importance")),
                    ("hybrid", "L_hybrid, uniform", None),
                )
            ),
        ),
        published="Figures 6 and 7 are plots: without importance sampling the loss of "
        "L_vlb is too noisy to train on.",
        limits=bed.told
        + " Noise is measured at the trained weights of the `vlb` runs, for "
        "gradients before clipping, from 100 batches of 128 points or 32 of 32 digits.",
        because=bed.because(
            points={
                evidence.IN_PART: (
                    "Variance of the gradient falls to a third, and bits per "
                    "dimension are better. The noise scale of L_vlb is twice that "
                    "of L_hybrid in the mean, with an interval that reaches below "
                    "1: five seeds are too few for a ratio of two noisy numbers."
                )
            }
        ),
    )


def few_steps(bed: Bed) -> Claim:
    """Return the claim on a data set."""
    return Claim(
        name=bed.named("few_steps"),
        title="A fraction of the steps is enough",
        paper=f"{IMPROVED}, section 4, figure 8",
        says="A network trained on thousands of steps samples nearly as well with a "
        "strided subset of them: 100 of 4,000 are near the best FID.",
        checks=(
            Check(
                "distance of 25 steps is below 1.25 times that of all 200",
                bed.fd("hybrid", "ancestral 25") / bed.fd("hybrid", "ancestral 200"),
                "below",
                1.25,
            ),
            Check(
                "that of 5 steps is above 1.25 times that of all: there is something "
                "to lose",
                bed.fd("hybrid", "ancestral 5") / bed.fd("hybrid", "ancestral 200"),
                "above",
                1.25,
            ),
        ),
        columns=tuple(f"{n} steps" for n in (*STEPS, 200)),
        rows=(
            Row(
                "distance",
                tuple(bed.fd("hybrid", f"ancestral {n}") for n in (*STEPS, 200)),
            ),
        ),
        limits=bed.told + " An eighth of the chain stands for the paper's fortieth.",
        because=bed.because(
            points={
                evidence.IN_PART: "25 steps, an eighth of this chain, are too few; 50, "
                "a quarter, are about as good as all 200, of which the paper has 4,000."
            }
        ),
    )


def ddim(bed: Bed) -> Claim:
    """Return the claim on a data set."""
    return Claim(
        name=bed.named("ddim"),
        title="DDIM beats ancestral steps where they are few",
        paper="DDIM (Song et al. 2021), table 1; Improved DDPM, section 4",
        says="Below some 50 steps DDIM gives better samples than ancestral steps; with "
        "many steps ancestral ones are as good or better.",
        checks=(
            Check(
                "at 5 steps, DDIM is below the learned variance in distance",
                bed.fd("hybrid", "ddim 5") - bed.fd("hybrid", "ancestral 5"),
                "below",
            ),
            Check(
                "at 5 steps, DDIM is below the fixed large variance in distance",
                bed.fd("simple", "ddim 5") - bed.fd("simple", "ancestral 5"),
                "below",
            ),
            Check(
                "at 50 steps, ancestral steps are below 1.1 times DDIM in distance",
                bed.fd("hybrid", "ancestral 50") / bed.fd("hybrid", "ddim 50"),
                "below",
                1.1,
            ),
        ),
        columns=tuple(f"{n} steps" for n in STEPS),
        rows=tuple(
            Row(
                f"{told}, {method}",
                tuple(bed.fd(arm, f"{method} {n}") for n in STEPS),
            )
            for arm, told in (("hybrid", "learned range"), ("simple", "fixed large"))
            for method in ("ddim", "ancestral")
        ),
        published="""
| DDIM table 1, CIFAR-10, FID by steps | 10 | 20 | 50 | 100 | 1000 |
|---|---|---|---|---|---|
| DDIM, η = 0 | 13.36 | 6.84 | 4.67 | 4.16 | 4.04 |
| ancestral, fixed large variance | 367.4 | 133.4 | 32.7 | 9.99 | 3.17 |

Quoted second-hand, with quadratic spacing of the steps: look it up before citing it.
""",
        picture=Picture(
            "steps",
            bed.axis,
            tuple(
                Curve(
                    f"{told}, {method}",
                    STEPS,
                    tuple(bed.fd(arm, f"{method} {n}") for n in STEPS),
                )
                for arm, told in (("hybrid", "learned"), ("simple", "fixed large"))
                for method in ("ddim", "ancestral")
            ),
            log="xy",
            alt="Distance against the number of steps, by method and variance",
        ),
        limits=bed.told,
        because=bed.because(
            points={
                evidence.NOT_REPRODUCED: "On points, in evenly spaced steps, DDIM is "
                "worse than ancestral steps of either variance at 5 and 10 steps. Why "
                "points differ from images was not tested. The two networks have one "
                "curve of DDIM, since their means are trained alike."
            }
        ),
    )


STATEMENTS = (cosine, learned_variance, objectives, importance, few_steps, ddim)
CLAIMS = tuple(state(bed) for bed in BEDS for state in STATEMENTS)
