"""Inception Score against entropies and the cases that are known exactly."""

import numpy as np
import pytest
import scipy.special
import scipy.stats

from ddpm_jax.core import errors
from ddpm_jax.metrics import scores


def by_entropies(logits):
    """exp of the mutual information: H(mean p) − mean H(p)."""
    p = scipy.special.softmax(logits, axis=1)
    entropy = scipy.stats.entropy
    return np.exp(entropy(p.mean(axis=0)) - entropy(p, axis=1).mean())


def test_entropies_split_by_split():
    logits = np.random.default_rng(0).normal(size=(25, 7)) * 3
    found = scores.inception_score(logits, split_size=10)
    expected = [by_entropies(part) for part in np.split(logits, [10, 20])]
    np.testing.assert_allclose(found.value, np.mean(expected), rtol=1e-10)
    np.testing.assert_allclose(found.deviation, np.std(expected), rtol=1e-10)
    assert found.splits == 3
    assert "shorter last split" in found.notes[0]


def test_sure_and_balanced_over_classes():
    logits = np.tile(np.eye(8) * 1000, (3, 1)).astype(np.float32)
    found = scores.inception_score(logits)
    np.testing.assert_allclose(found.value, 8, rtol=1e-9)
    assert found.deviation is None


def test_unsure_or_all_the_same():
    assert scores.inception_score(np.zeros((6, 4))).value == pytest.approx(1)
    same = np.tile([1000.0, 0, 0], (6, 1))
    assert scores.inception_score(same).value == pytest.approx(1)


def test_whole_splits_need_no_note():
    found = scores.inception_score(np.zeros((20, 4)), split_size=10)
    assert found.notes == []


@pytest.mark.parametrize("logits", [np.zeros((0, 4)), np.full((2, 4), np.nan)])
def test_what_has_no_score(logits):
    with pytest.raises(errors.Refusal, match="Inception Score"):
        scores.inception_score(logits)
