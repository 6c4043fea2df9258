"""Ceilings and judges of the toy data against enumeration and closed forms."""

import itertools

import numpy as np
import pytest
from reference import bit_chain
from scipy import stats

from ddpm_jax.data import toy
from ddpm_jax.metrics import gaussian_fit, known_laws


@pytest.mark.parametrize("mean", [0.2, 0.5])
def test_the_ceiling_of_heartbeats_is_that_of_all_states(mean, monkeypatch):
    """Six bins, a pulse in every third: 64 states, each step factorised at best."""
    monkeypatch.setattr(toy, "BINS", 6)
    monkeypatch.setattr(toy, "PERIOD", 3)
    betas = 1 / np.arange(5, 0, -1.0)
    chain = bit_chain.Chain(betas, mean, 6)
    rows = chain.index(toy.heartbeats())
    data = np.bincount(rows, minlength=64) / 3

    def entropy(law):
        return -np.sum(law * np.log(np.where(law > 0, law, 1)), axis=-1)

    bound = -data @ entropy(chain.marginals[1])
    last = chain.marginals[-1][rows[0]]
    bound -= np.sum(last * np.log(last / chain.prior))
    for t in range(1, len(betas)):
        joint = data[:, None] * chain.marginals[t + 1]  # [x_0, x_t]
        posterior = chain.posterior(t)
        mixed = np.einsum("ab,abc->bc", joint, posterior)
        chances = mixed / mixed.sum(axis=1, keepdims=True) @ chain.states
        best = bit_chain.reverse_matrix(chances)
        for a, b in itertools.product(rows, range(64)):
            bound -= joint[a, b] * stats.entropy(posterior[a, b], best[b])
    found = known_laws.heartbeat_ceiling(betas, mean)
    np.testing.assert_allclose(found, bound / np.log(2), atol=1e-9)


def test_the_ceiling_of_the_roll_is_that_of_a_thin_curve():
    """−H(X_1) → −log(range of the angle) − E log speed − ½ log 2πe β for small β."""
    angle = np.linspace(toy.FIRST_ANGLE, toy.LAST_ANGLE, 400_001)
    speed = np.linalg.norm(np.gradient(toy.roll_at(angle), angle, axis=0), axis=1)
    beta_1 = 1e-4
    entropy = np.log(3 * np.pi) + np.log(speed).mean()
    entropy += 0.5 * np.log(2 * np.pi * np.e * beta_1)
    found = known_laws.swissroll_ceiling(beta_1)
    np.testing.assert_allclose(found, -entropy / np.log(2), atol=5e-3)


def test_the_ceiling_of_a_chain_is_k_of_its_best_gaussians():
    """K of the step from x_2 by draws, with moments of x_0 by sums, and closed KLs."""
    betas = np.array([0.01, 0.05])
    generator = np.random.default_rng(2)
    count = 4000
    x_0 = toy.roll_at(generator.uniform(toy.FIRST_ANGLE, toy.LAST_ANGLE, count))
    kept = np.prod(1 - betas)
    x_2 = np.sqrt(kept) * x_0 + np.sqrt(1 - kept) * generator.normal(size=(count, 2))
    roll = toy.roll_at(np.linspace(toy.FIRST_ANGLE, toy.LAST_ANGLE, 2001))
    apart = x_2[:, None] - np.sqrt(kept) * roll
    chance = np.exp(-0.5 * np.sum(apart**2, axis=2) / (1 - kept))
    chance /= chance.sum(axis=1, keepdims=True)
    first = chance @ roll
    second = chance @ roll**2
    # q(x_1|x_2,x_0) by its regression on both, as x_1 = √0.99 x_0 + 0.1 ε.
    of_noise = betas[0] * (1 - betas[1]) / (1 - kept)
    of_x_0 = np.sqrt(1 - betas[0]) * (1 - of_noise)
    variance = betas[0] * betas[1] / (1 - kept)
    best = variance + of_x_0**2 * (second - first**2)
    square = (of_x_0 * (x_0 - first)) ** 2
    kl = 0.5 * np.sum(np.log(best / variance) - 1 + (variance + square) / best, axis=1)
    end = 0.5 * np.sum(kept * x_0**2 - kept - np.log(1 - kept), axis=1)
    entropy_1 = np.log(2 * np.pi * np.e * betas[0])
    bound = (-kl - end - entropy_1) / np.log(2)
    found = known_laws.swissroll_chain_ceiling(betas)
    assert abs(found - bound.mean()) < 4 * bound.std() / np.sqrt(count)
    assert bound.std() / np.sqrt(count) < 0.05
    assert found < known_laws.swissroll_ceiling(betas[0])


def test_distances_to_the_roll():
    """Points moved along the normal are as far away as they were moved."""
    angle = np.array([6.0, 9.0, 12.0])
    step = 1e-5
    along = toy.roll_at(angle + step) - toy.roll_at(angle - step)
    normal = np.stack([-along[:, 1], along[:, 0]], axis=1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    for far in (0.0, 0.01, -0.1):
        found = known_laws.distances(toy.roll_at(angle) + far * normal)
        np.testing.assert_allclose(found, abs(far), atol=1e-5)


def test_points_of_the_roll_are_judged_by_noised_data():
    generator = np.random.default_rng(1)
    points = toy.roll_at(generator.uniform(5, 14, 500))
    noised = points + 0.01 * generator.normal(size=points.shape)
    found = known_laws.judge_points(noised, 1e-4)
    expected = 0.01 * np.sqrt(2 / np.pi)  # of the normal component alone
    np.testing.assert_allclose(found["mean_distance"], expected, rtol=0.15)
    np.testing.assert_allclose(found["ratio_of_distances"], 1, rtol=0.2)


def test_heartbeats_are_judged():
    beats = 2 * np.tile(toy.heartbeats(), (2, 1))[..., None] - 1
    beats[0, 3] *= -1
    found = known_laws.judge_heartbeats(beats, 0.1)
    assert found == {"valid_share": 0.9}


def test_a_fitted_gaussian_is_scipys():
    generator = np.random.default_rng(0)
    mixing = generator.normal(size=(3, 3))
    fitted, scored = (generator.normal(size=(n, 3)) @ mixing for n in (400, 20))
    found = gaussian_fit.log_likelihoods(fitted.reshape(-1, 3, 1), scored)
    law = stats.multivariate_normal(fitted.mean(axis=0), np.cov(fitted.T, bias=True))
    np.testing.assert_allclose(found, law.logpdf(scored), rtol=1e-4)
