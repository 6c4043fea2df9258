"""Claims of Improved DDPM and DDIM, and what was set before the runs."""

from benchmarks.claims import measures
from benchmarks.claims.claim import (
    BITS,
    FD,
    QUALITY,
    Claim,
    Curve,
    Picture,
    Row,
    bits,
    fd,
    table,
)
from benchmarks.claims.evidence import Check, measured
from benchmarks.claims.measures import SMALL_STEPS, STEPS

IMPROVED = "Improved DDPM (Nichol & Dhariwal 2021)"
SIZE = (
    "600 steps on 8×8 digits where the paper has 200,000 and more on ImageNet 64×64; "
    "T = 200, not 4,000; the network knows the class; `proxy_fd` is not FID."
)
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


def _skip(arm, share):
    return fd(arm, f"fd skip {share:g}" if share else "fd ancestral 50")


COSINE = Claim(
    name="cosine",
    title="The cosine schedule beats the linear one",
    paper=f"{IMPROVED}, section 3.2, figures 3 to 5, tables 1 and 2",
    says="The linear schedule destroys images too early: a fifth of its reverse chain "
    "can be skipped at almost no cost. The cosine schedule has better bits per "
    "dimension and, on ImageNet 64×64, better samples.",
    checks=(
        Check(
            "bits/dim of cosine are below those of linear",
            bits("cosine") - bits("simple"),
            "below",
        ),
        Check(
            "`proxy_fd` of cosine is below that of linear",
            fd("cosine") - fd("simple"),
            "below",
        ),
        Check(
            "skipping the first fifth costs linear less `proxy_fd` than cosine",
            (_skip("simple", 0.2) - _skip("simple", 0.0))
            - (_skip("cosine", 0.2) - _skip("cosine", 0.0)),
            "below",
        ),
    ),
    columns=(*QUALITY, "`proxy_fd` of 40 of 50 steps", "of all 50"),
    rows=table(
        {"simple": "linear", "cosine": "cosine"},
        FD,
        BITS,
        ("fd skip 0.2", "proxy_fd"),
        ("fd ancestral 50", "proxy_fd"),
    ),
    published=IMAGENET_64,
    picture=Picture(
        "share of the reverse chain that is skipped",
        "proxy_fd",
        tuple(
            Curve(told, SKIPPED, tuple(_skip(arm, share) for share in SKIPPED))
            for arm, told in (("simple", "linear"), ("cosine", "cosine"))
        ),
        log="y",
        alt="proxy_fd against the share of the chain that is skipped, by schedule",
    ),
    limits=SIZE,
)

LEARNED_VARIANCE = Claim(
    name="learned_variance",
    title="A learned variance helps at few steps",
    paper=f"{IMPROVED}, sections 3.1 and 4, figure 8",
    says="A variance learned as a mix of the two fixed ones gives better likelihoods, "
    "and lets the chain be cut to few steps with little loss, where fixed variances "
    "lose much.",
    checks=(
        Check(
            "at 10 steps, `proxy_fd` is below that of the fixed large variance",
            fd("hybrid", "fd ancestral 10") - fd("simple", "fd ancestral 10"),
            "below",
        ),
        Check(
            "at 10 steps, `proxy_fd` is below that of the fixed small variance",
            fd("hybrid", "fd ancestral 10") - fd("simple", "fd small 10"),
            "below",
        ),
        Check(
            "bits/dim at all 200 steps are below those of the fixed large variance",
            bits("hybrid") - bits("simple"),
            "below",
        ),
        Check(
            "bits/dim at 10 steps are below those of the fixed large variance",
            bits("hybrid", "bits 10") - bits("simple", "bits 10"),
            "below",
        ),
    ),
    columns=(*(f"`proxy_fd`, {n} steps" for n in STEPS), "bits/dim, 10", "25", "200"),
    rows=(
        Row(
            "learned range, L_hybrid",
            (
                *(fd("hybrid", f"fd ancestral {n}") for n in STEPS),
                *(bits("hybrid", m) for m in ("bits 10", "bits 25", "bits")),
            ),
        ),
        Row(
            "fixed large, L_simple",
            (
                *(fd("simple", f"fd ancestral {n}") for n in STEPS),
                *(bits("simple", m) for m in ("bits 10", "bits 25", "bits")),
            ),
        ),
        Row(
            "fixed small, the same network",
            (*(fd("simple", f"fd small {n}") for n in SMALL_STEPS), *[None] * 4),
        ),
    ),
    published=IMAGENET_64
    + "\nFigure 8 is a plot: FID of L_hybrid at 50 of 4,000 steps is near that at all, "
    "FID of fixed variances rises steeply.\n",
    picture=Picture(
        "steps",
        "proxy_fd",
        (
            Curve(
                "learned range",
                STEPS,
                tuple(fd("hybrid", f"fd ancestral {n}") for n in STEPS),
            ),
            Curve(
                "fixed large",
                STEPS,
                tuple(fd("simple", f"fd ancestral {n}") for n in STEPS),
            ),
            Curve(
                "fixed small",
                SMALL_STEPS,
                tuple(fd("simple", f"fd small {n}") for n in SMALL_STEPS),
            ),
        ),
        log="xy",
        alt="proxy_fd against the number of ancestral steps, by variance",
    ),
    limits=SIZE + " The two networks differ in their loss too, as in the paper.",
)

OBJECTIVES = Claim(
    name="objectives",
    title="L_hybrid keeps samples, L_vlb has the best likelihood",
    paper=f"{IMPROVED}, sections 3.1 and 3.3, tables 1 and 2",
    says="The hybrid objective has better bits per dimension than L_simple at about "
    "the same sample quality; the bound alone has the best bits and much worse "
    "samples.",
    checks=(
        Check(
            "bits/dim of L_hybrid are below those of L_simple",
            bits("hybrid") - bits("simple"),
            "below",
        ),
        Check(
            "bits/dim of L_vlb are below those of L_hybrid",
            bits("vlb") - bits("hybrid"),
            "below",
        ),
        Check(
            "`proxy_fd` of L_hybrid is below 1.25 times that of L_simple",
            fd("hybrid") / fd("simple"),
            "below",
            1.25,
        ),
        Check(
            "`proxy_fd` of L_vlb is above that of L_hybrid",
            fd("vlb") - fd("hybrid"),
            "above",
        ),
    ),
    columns=QUALITY,
    rows=table(
        {
            "simple": "L_simple, fixed variance",
            "hybrid": "L_hybrid",
            "vlb": "L_vlb, uniform timesteps",
        },
        FD,
        BITS,
    ),
    published=IMAGENET_64,
    limits=SIZE + " The paper draws the timesteps of L_vlb by importance; see "
    "[importance_sampling](importance_sampling.md) for that.",
)


def _noise(way, number):
    return measured("vlb", "gradient noise", f"{way} {number}")


IMPORTANCE = Claim(
    name="importance_sampling",
    title="Importance sampling lowers the noise of the bound's gradient",
    paper=f"{IMPROVED}, section 3.3, figures 6 and 7",
    says="The gradient of L_vlb is much noisier than that of L_hybrid, since its terms "
    "differ in size by orders of magnitude. Drawing timesteps by p_t ∝ √E[L_t²] lowers "
    "the noise; training on L_vlb then reaches better bits per dimension.",
    checks=(
        Check(
            "tr Σ with importance is below half of that with uniform timesteps",
            _noise("importance", "trace") / _noise("bound", "trace"),
            "below",
            0.5,
        ),
        Check(
            "the noise scale of L_vlb is above that of L_hybrid",
            _noise("bound", "scale") / _noise("hybrid", "scale"),
            "above",
            1.0,
        ),
        Check(
            "bits/dim after training with importance are below those without",
            bits("vlb_importance") - bits("vlb"),
            "below",
        ),
    ),
    columns=("tr Σ of one example", "noise scale, images", "bits/dim if trained so"),
    rows=(
        *(
            Row(told, (_noise(way, "trace"), _noise(way, "scale"), bits_after))
            for way, told, bits_after in (
                ("bound", "L_vlb, uniform", bits("vlb")),
                ("importance", "L_vlb, importance", bits("vlb_importance")),
                ("hybrid", "L_hybrid, uniform", None),
            )
        ),
    ),
    published="Figures 6 and 7 are plots: without importance sampling the loss of "
    "L_vlb is too noisy to train on.",
    limits=SIZE + " Noise is measured at the trained weights of the `vlb` runs, for "
    "gradients before clipping, from 32 batches of 32.",
)

FEW_STEPS = Claim(
    name="few_steps",
    title="A fraction of the steps is enough",
    paper=f"{IMPROVED}, section 4, figure 8",
    says="A network trained on thousands of steps samples nearly as well with a "
    "strided subset of them: 100 of 4,000 are near the best FID.",
    checks=(
        Check(
            "`proxy_fd` of 25 steps is below 1.25 times that of all 200",
            fd("hybrid", "fd ancestral 25") / fd("hybrid", "fd ancestral 200"),
            "below",
            1.25,
        ),
        Check(
            "that of 5 steps is above 1.25 times that of all: there is something to "
            "lose",
            fd("hybrid", "fd ancestral 5") / fd("hybrid", "fd ancestral 200"),
            "above",
            1.25,
        ),
    ),
    columns=tuple(f"{n} steps" for n in (*STEPS, 200)),
    rows=(
        Row(
            "`proxy_fd`",
            tuple(fd("hybrid", f"fd ancestral {n}") for n in (*STEPS, 200)),
        ),
    ),
    limits=SIZE + " An eighth of the chain stands for the paper's fortieth.",
)

DDIM = Claim(
    name="ddim",
    title="DDIM beats ancestral steps where they are few",
    paper="DDIM (Song et al. 2021), table 1; Improved DDPM, section 4",
    says="Below some 50 steps DDIM gives better samples than ancestral steps; with "
    "many steps ancestral ones are as good or better.",
    checks=(
        Check(
            "at 5 steps, DDIM is below the learned variance in `proxy_fd`",
            fd("hybrid", "fd ddim 5") - fd("hybrid", "fd ancestral 5"),
            "below",
        ),
        Check(
            "at 5 steps, DDIM is below the fixed large variance in `proxy_fd`",
            fd("simple", "fd ddim 5") - fd("simple", "fd ancestral 5"),
            "below",
        ),
        Check(
            "at 50 steps, ancestral steps are below 1.1 times DDIM in `proxy_fd`",
            fd("hybrid", "fd ancestral 50") / fd("hybrid", "fd ddim 50"),
            "below",
            1.1,
        ),
    ),
    columns=tuple(f"{n} steps" for n in STEPS),
    rows=tuple(
        Row(
            f"{told}, {method}",
            tuple(fd(arm, f"fd {method} {n}") for n in STEPS),
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
        "proxy_fd",
        tuple(
            Curve(
                f"{told}, {method}",
                STEPS,
                tuple(fd(arm, f"fd {method} {n}") for n in STEPS),
            )
            for arm, told in (("hybrid", "learned"), ("simple", "fixed large"))
            for method in ("ddim", "ancestral")
        ),
        log="xy",
        alt="proxy_fd against the number of steps, by method and variance",
    ),
    limits=SIZE,
)

CLAIMS = (
    *(COSINE, LEARNED_VARIANCE, OBJECTIVES, IMPORTANCE, FEW_STEPS),
    DDIM,
)
