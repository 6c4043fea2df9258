"""The Gaussian chain of the 2015 paper against closed forms, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import process as reference

from ddpm_jax.core import errors
from ddpm_jax.diffusion import learned_rates, nonequilibrium

BETAS = (0.01, 0.1, 0.3, 0.6, 0.9)
CHAIN = learned_rates.LearnedRates(BETAS, "residual")
STEPS = len(BETAS)
HALF_LOG_2PI_E = 0.5 * np.log(2 * np.pi * np.e)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def tables():
    return CHAIN.tables(jnp.zeros(STEPS))


def nothing(x, t):
    """The network of data ~ N(0, I): the reverse step is the kernel itself."""
    del t
    return jnp.zeros((*x.shape[:-1], 2 * x.shape[-1]))


def full(t, n):
    return jnp.full(n, t, jnp.int32)


def test_rates_are_those_they_start_from_where_nothing_is_learned():
    np.testing.assert_allclose(tables().beta, BETAS, rtol=1e-9)
    np.testing.assert_allclose(CHAIN.schedule(np.zeros(STEPS)).betas, BETAS, rtol=1e-9)


@pytest.mark.parametrize("offset", [-1e4, -30.0, 0.0, 30.0, 1e4])
def test_rates_stay_inside_0_and_1_with_finite_gradients(offset):
    offsets = jnp.full(STEPS, offset, jnp.float32)
    beta = CHAIN.tables(offsets).beta
    assert beta.dtype == jnp.float32
    assert ((beta > 0) & (beta < 1)).all()
    np.testing.assert_allclose(beta[0], BETAS[0])
    np.testing.assert_allclose(CHAIN.schedule(offsets).betas, beta, rtol=2e-5)
    slope = jax.jacobian(lambda o: CHAIN.tables(o).log_alpha_bar)(offsets)
    assert np.isfinite(slope).all()
    assert (np.asarray(slope)[:, 0] == 0).all()  # β_1 is not learned


def test_marginal_and_posterior_are_those_of_the_reference():
    exact = reference.Process(BETAS)
    x_0, x_t = np.random.default_rng(0).normal(size=(2, 4, 3))
    for t in range(1, STEPS):
        at = full(t, 4)
        law = CHAIN.marginal(tables(), x_0, at)
        np.testing.assert_allclose(law.mean, np.sqrt(exact.alpha_bar[t]) * x_0)
        np.testing.assert_allclose(law.variance, exact.noise_var[t] * np.ones((4, 3)))
        law = CHAIN.posterior(tables(), x_0, x_t, at)
        mean = exact.c1[t] * x_0 + exact.c2[t] * x_t
        np.testing.assert_allclose(law.mean, mean)
        np.testing.assert_allclose(law.variance[0, 0], exact.posterior_var[t])


def test_the_two_forms_of_the_mean():
    """Both are p = kernel at z = 0; else they are as table App.1 and the code say."""
    x, t, generator = jnp.ones((2, 1)), full(3, 2), np.random.default_rng(2)
    z = generator.normal(size=(2, 2))
    sigma = 1 / (1 + np.exp(-(z[:, 1:] + np.log(0.6 / 0.4))))
    law = CHAIN.reverse(tables(), z, x, t)
    np.testing.assert_allclose(law.variance, sigma)
    np.testing.assert_allclose(law.mean, np.sqrt(0.4) + np.sqrt(0.6) * z[:, :1])
    convex = learned_rates.LearnedRates(BETAS)
    mean = convex.reverse(tables(), z, x, t).mean
    np.testing.assert_allclose(mean, (1 - z[:, :1]) * (1 - sigma) + z[:, :1])


def test_the_bound_of_normal_data_is_minus_the_entropy_of_x_1():
    """The chain of N(0, 1) is its own reverse, so that nothing else is lost."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(4)  # exact: K is quadratic
    weights = np.outer(weights, weights).ravel() / weights.sum() ** 2
    x_0, noise = (v.reshape(-1, 1) for v in np.meshgrid(nodes, nodes))
    bound = nonequilibrium.ends(CHAIN, tables(), x_0)
    for t in range(1, STEPS):
        at = full(t, len(x_0))
        x_t = CHAIN.q_sample(tables(), x_0, at, noise)
        output = nothing(x_t, at)
        bound -= nonequilibrium.step_kl(CHAIN, tables(), output, x_0, x_t, at)
    np.testing.assert_allclose(weights @ bound, -HALF_LOG_2PI_E, atol=1e-8)


def test_terms_of_all_t_average_to_the_bound():
    x_0, x_t = np.random.default_rng(0).normal(size=(2, STEPS - 1, 3))
    t = jnp.arange(1, STEPS)
    output = nothing(x_t, t)
    found = nonequilibrium.terms(CHAIN, tables(), output, x_0, x_t, t, unit=np.log(2))
    kl = nonequilibrium.step_kl(CHAIN, tables(), output, x_0, x_t, t)
    bound = nonequilibrium.ends(CHAIN, tables(), x_0).mean() - kl.sum()
    np.testing.assert_allclose(found["bound"].mean(), bound / np.log(2))
    entropy_1 = 3 * (HALF_LOG_2PI_E + 0.5 * np.log(BETAS[0]))
    np.testing.assert_allclose(found["loss"].mean(), -(bound + entropy_1) / np.log(2))


def test_every_trajectory_weighs_the_exact_probability_of_normal_data():
    """A reversible chain: p(x_T) Π p/q telescopes to π(x_0)."""
    x_0 = np.random.default_rng(0).normal(size=(3, 2))
    noise = np.random.default_rng(1).normal(size=(STEPS, 3, 2))
    weights = nonequilibrium.log_weights(
        CHAIN, tables(), nothing, jnp.asarray(x_0), lambda t: jnp.asarray(noise)[t]
    )
    exact = -0.5 * np.sum(x_0**2 + np.log(2 * np.pi), axis=1)
    np.testing.assert_allclose(weights, exact, atol=1e-10)
    found = nonequilibrium.averaged(jnp.stack([weights] * 5))
    np.testing.assert_allclose(found.log_probability, exact, atol=1e-10)
    np.testing.assert_allclose(found.effective, 5)


def test_entropy_bounds_of_data_of_unit_variance():
    """Of N(0, 1) the reverse entropy is known: it equals the upper bound."""
    for t in range(1, STEPS):
        lower, upper = nonequilibrium.entropy_bounds(
            CHAIN, tables(), jnp.zeros((1, 1)), full(t, 1)
        )
        exact = HALF_LOG_2PI_E + 0.5 * np.log(BETAS[t])
        np.testing.assert_allclose(upper[0], exact)
        posterior = reference.Process(BETAS).posterior_var[t]
        np.testing.assert_allclose(lower[0], HALF_LOG_2PI_E + 0.5 * np.log(posterior))
        assert lower[0] < upper[0]


@pytest.mark.parametrize("beta_1", [0.0, 1.0, -1.0, np.nan])
def test_a_first_rate_outside_0_and_1_is_refused(beta_1):
    with pytest.raises(errors.Refusal, match=r"diffusion\.beta_start=.* is β_1"):
        learned_rates.check_beta_1(beta_1)
