"""Inception Score: how sure the classifier is of each image and how varied it is."""

from typing import NamedTuple

import numpy as np

from ddpm_jax.core import errors

SPLIT_SIZE = 5000


class InceptionScore(NamedTuple):
    """Mean and standard deviation over splits of exp(mean KL).

    Attributes:
        value: mean over splits.
        deviation: over splits; None for a single one.
        splits: how many.
        images: in all.
        split_size: images per split.
    """

    value: float
    deviation: float | None
    splits: int
    images: int
    split_size: int

    @property
    def notes(self) -> list[str]:
        """Return what a reader of the value should know."""
        if self.images % self.split_size == 0:
            return []
        return [
            f"{self.images} images are no multiple of {self.split_size}: the shorter "
            "last split counts as much as the others and lowers the score"
        ]


def inception_score(
    logits: np.ndarray, *, split_size: int = SPLIT_SIZE
) -> InceptionScore:
    """Return exp(E_x KL(p(y|x) ‖ p(y))), averaged over consecutive splits.

    Args:
        logits: [n, classes], without the bias of the last layer.
        split_size: images per split; a shorter remainder is a split of its own.

    Raises:
        Refusal: no images, NaN or infinity.

    Reference: Salimans et al. 2016, section 4; the splits as in the code of ADM.
    """
    logits = np.asarray(logits, np.float64)
    if not len(logits) or not np.isfinite(logits).all():
        raise errors.Refusal(
            f"logits of shape {list(logits.shape)} that are empty or not finite have "
            "no Inception Score: give at least one image and whole weights"
        )
    starts = range(0, len(logits), split_size)
    scores = [_score(logits[start : start + split_size]) for start in starts]
    deviation = float(np.std(scores)) if len(scores) > 1 else None
    return InceptionScore(
        value=float(np.mean(scores)),
        deviation=deviation,
        splits=len(scores),
        images=len(logits),
        split_size=split_size,
    )


def _score(logits):
    log_p = logits - logits.max(axis=1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(axis=1, keepdims=True))
    p = np.exp(log_p)
    marginal = p.mean(axis=0)
    # A class that no image has contributes nothing, and its logarithm is −∞.
    log_marginal = np.log(np.where(marginal > 0, marginal, 1.0))
    return np.exp(np.mean(np.sum(p * (log_p - log_marginal), axis=1)))
