"""The metrics of samples: what each needs, and how it is made from features.

A metric is its file in `ddpm_jax/metrics/` and its entry of `METRICS` here. Scores
import their mathematics when they are taken: the command line, which checks names by
this table, should not wait for JAX.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ddpm_jax.core import errors

BITS = "bits_per_dim"  # of a network, not of samples: it has no entry below
ACCURACY = "accuracy"  # of a classifier, likewise
BOUND = "bound"  # of the 2015 paper: K, likewise
PSNR, CONSISTENCY = "psnr", "consistency"  # of an upsampler, likewise
OF_UPSAMPLERS = (PSNR, CONSISTENCY)
PROMPT_ACCURACY, PROMPT_SWAP = "prompt_accuracy", "prompt_swap"  # of runs with text
INCEPTION = "inception-2015"  # feature networks, by name
PROXY, PROXY_RANDOM = "proxy_fd", "proxy_fd_random"
PROXY_DIMENSION = 64
KID_SUBSET = 1000

ROUNDING = 1e-5  # share of a value that is no error of a measurement, in float32
LEAST = 1e-2  # value below which that share is one of this


class Score(NamedTuple):
    """One number and what belongs to it.

    Attributes:
        metric: the name on its card.
        value: the number.
        standard_error: of the value over draws of as many samples, or None.
        details: other numbers for the card.
        protocol: settings of the estimate.
        notes: what a reader should know.
    """

    metric: str
    value: float
    standard_error: float | None
    details: dict[str, float | None]
    protocol: dict[str, int]
    notes: list[str]


class Compared(NamedTuple):
    """What metrics compare samples with.

    Attributes:
        statistics: a `statistics.ReferenceStatistics`, or None where no metric asks.
        features: "pool" features, float32 [n, D], likewise.
    """

    statistics: Any
    features: Any


@dataclasses.dataclass(frozen=True)
class Metric:
    """One way to score samples.

    Attributes:
        network: name of the feature network.
        summed: features whose moments are needed.
        kept: features that are needed image by image.
        compares: "statistics" or "features" of a reference, or "nothing".
        cards: names of the numbers that it gives.
        score: (samples, reference, mesh) → one score for each of `cards`.
        dimension: of the features, for what few samples mean; 0 where it means little.
        minimum: samples that it needs.
        lower_is_better: which values are good.
    """

    network: str
    compares: str
    cards: tuple[str, ...]
    score: Callable[..., list[Score]]
    summed: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    dimension: int = 0
    minimum: int = 2
    lower_is_better: bool = True


def _frechet(metric, feature):
    """Return the score of a Fréchet distance of one feature."""

    def score(samples, reference, mesh):
        from ddpm_jax.metrics import frechet

        del mesh
        mean, covariance = reference.statistics.gaussians[feature]
        moments = samples.moments(feature)
        found = frechet.frechet_distance(
            mean, covariance, moments.mean, moments.covariance
        )
        doubt = frechet.jackknife(samples.groups[feature], mean, covariance)
        details = {
            "means": found.means,
            "covariances": found.covariances,
            "bias": doubt.bias if doubt else None,
        }
        notes = [*found.notes, *reference.statistics.notes]
        error = doubt.standard_error if doubt else None
        return [Score(metric, found.value, error, details, {}, notes)]

    return score


def _inception_score(samples, reference, mesh):
    from ddpm_jax.metrics import scores

    del reference, mesh
    found = scores.inception_score(samples.kept["logits"])
    error = found.deviation and found.deviation / math.sqrt(found.splits)
    details = {"deviation": found.deviation}
    protocol = {"splits": found.splits, "split_size": found.split_size}
    name = "inception_score"
    return [Score(name, found.value, error, details, protocol, found.notes)]


def _precision_recall(samples, reference, mesh):
    from ddpm_jax.metrics import precision

    found = precision.precision_recall(
        reference.features, samples.kept["pool"], mesh=mesh
    )
    protocol = {"k": found.k, "num_reference": found.num_reference}
    return [
        Score(name, getattr(found, name), None, {}, protocol, [])
        for name in ("precision", "recall")
    ]


def _kid(samples, reference, mesh):
    from ddpm_jax.metrics import kernel

    del mesh
    features = samples.kept["pool"]
    # Subsets of half a set at most, or they would all be one and show no error.
    half = max(2, min(len(features), len(reference.features)) // 2)
    found = kernel.kernel_distance(
        reference.features, features, subset_size=min(KID_SUBSET, half)
    )
    protocol = {
        "subsets": found.subsets,
        "subset_size": found.subset_size,
        "num_reference": len(reference.features),
    }
    details = {"deviation": found.deviation}
    return [Score("kid", found.value, found.standard_error, details, protocol, [])]


def _distance(name, network, feature, dimension):
    return Metric(
        network=network,
        compares="statistics",
        cards=(name,),
        score=_frechet(name, feature),
        summed=(feature,),
        dimension=dimension,
    )


METRICS = {
    "fid": _distance("fid", INCEPTION, "pool", 2048),
    "sfid": _distance("sfid", INCEPTION, "spatial", 2023),
    "inception_score": Metric(
        network=INCEPTION,
        compares="nothing",
        cards=("inception_score",),
        score=_inception_score,
        kept=("logits",),
        minimum=1,
        lower_is_better=False,
    ),
    "precision_recall": Metric(
        network=INCEPTION,
        compares="features",
        cards=("precision", "recall"),
        score=_precision_recall,
        kept=("pool",),
        minimum=4,
        lower_is_better=False,
    ),
    "kid": Metric(
        network=INCEPTION,
        compares="features",
        cards=("kid",),
        score=_kid,
        kept=("pool",),
    ),
    PROXY: _distance(PROXY, PROXY, "pool", PROXY_DIMENSION),
    PROXY_RANDOM: _distance(PROXY_RANDOM, PROXY_RANDOM, "pool", PROXY_DIMENSION),
}

# Metrics of networks, and whether low values of them are good.
OF_TEXTS = (PROMPT_ACCURACY, PROMPT_SWAP)
OF_NETWORKS = {
    **{BITS: True, ACCURACY: False, BOUND: False},
    **dict.fromkeys((*OF_TEXTS, *OF_UPSAMPLERS), False),
}
NAMES = (*OF_NETWORKS, *METRICS)  # of evaluation.metric


def check_count(names: Sequence[str], count: int) -> list[str]:
    """Refuse too few samples; return what few samples mean.

    Args:
        names: keys of `METRICS`.
        count: of the samples.

    Raises:
        Refusal: fewer than a metric needs.
    """
    notes = []
    for name in names:
        metric = METRICS[name]
        if count < metric.minimum:
            raise errors.Refusal(
                f"{name} of {count} samples: it needs at least {metric.minimum}"
            )
        if count <= metric.dimension:
            cure = "use more"
            if metric.network == INCEPTION:
                cure += ", or read the kernel distance (kid), which has no bias"
            notes.append(
                f"{name}: {count} samples for {metric.dimension} features give a value "
                f"that is too high and depends on their number: {cure}"
            )
    return notes


def qualified(score: Score, notes: Sequence[str]) -> Score:
    """Return a score with more notes, and without an error that is only rounding.

    Copies of one image in every group of the estimate leave nothing that differs.
    """
    error = score.standard_error
    if error is not None and error <= ROUNDING * max(abs(score.value), LEAST):
        notes = [*notes, "no standard error: the parts of the images do not differ"]
        error = None
    return score._replace(standard_error=error, notes=[*score.notes, *notes])


def compares(card: str) -> bool:
    """Return whether the number of a card depends on a reference."""
    metric = next(m for m in METRICS.values() if card in m.cards)
    return metric.compares != "nothing"


def first_card(name: str) -> tuple[str, bool]:
    """Return the first number that a metric gives, and whether low values are good."""
    if name == BITS:
        return BITS, True
    metric = METRICS[name]
    return metric.cards[0], metric.lower_is_better
