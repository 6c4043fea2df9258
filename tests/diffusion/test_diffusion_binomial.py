"""Binomial diffusion against the enumeration of all states and trajectories."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import bit_chain

from ddpm_jax.core import errors
from ddpm_jax.diffusion import binomial, nonequilibrium, process

BETAS, MEAN, BITS = (0.3, 0.4, 0.9), 0.2, 2
STEPS = len(BETAS)
ALL = bit_chain.states(BITS)
EXACT = bit_chain.Chain(BETAS, MEAN, BITS)
NETWORK = np.random.default_rng(1).normal(size=(STEPS, 4, BITS))  # logits [t, x_t, D]


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=binomial.OUTPUTS)
def chain(request):
    return binomial.Binomial(MEAN, request.param)


ROWS = tuple(itertools.product(ALL, ALL))


def tables(chain):
    return chain.tables(process.Schedule.from_betas(BETAS), np.float64)


def network(x, t):
    weights = jnp.array([2, 1])
    return jnp.asarray(NETWORK)[t, (x @ weights).astype(int)]


def pairs():
    """Every x_0 beside every x_t."""
    return [jnp.asarray(np.stack(x)) for x in zip(*ROWS, strict=True)]


def full(t, n=16):
    return jnp.full(n, t, jnp.int32)


def law_of_all(law):
    """Probabilities [B, 2^D] of a law of independent bits."""
    return bit_chain.reverse_matrix(np.asarray(law.on))


def test_kernel_marginal_and_posterior_are_those_of_the_enumeration():
    chain = binomial.Binomial(MEAN)
    made = tables(chain)
    x_0, x_t = pairs()
    for t in range(STEPS):
        kernel = law_of_all(chain.kernel(made, jnp.asarray(ALL), full(t, 4)))
        np.testing.assert_allclose(kernel, EXACT.kernels[t], atol=1e-12)
        marginal = law_of_all(chain.marginal(made, jnp.asarray(ALL), full(t, 4)))
        np.testing.assert_allclose(marginal, EXACT.marginals[t + 1], atol=1e-12)
        if t:
            posterior = law_of_all(chain.posterior(made, x_0, x_t, full(t)))
            expected = EXACT.posterior(t).reshape(16, 4)
            np.testing.assert_allclose(posterior, expected, atol=1e-12)


def test_probabilities_of_zero_are_exact_however_small():
    """1 − q loses them in float32; the second number of the law does not."""
    chain = binomial.Binomial(MEAN)
    schedule = process.Schedule.from_betas([1e-9, 1e-9, 0.5])
    law = chain.posterior(
        chain.tables(schedule), jnp.ones((1, 1)), jnp.ones((1, 1)), full(1, 1)
    )
    exact = bit_chain.Chain(schedule.betas, MEAN, 1).posterior(1)[1, 1, 0]
    np.testing.assert_allclose(law.off[0, 0], exact, rtol=1e-5)


def exact_reverse(chain):
    """The model's steps [x_t, x_{t−1}] by enumeration, the unlearned one first."""
    steps = [EXACT.kernels[0]]
    for t in range(1, STEPS):
        chance = 1 / (1 + np.exp(-NETWORK[t]))
        if chain.output == "x_0":
            one = bit_chain.Chain(BETAS, MEAN, 1).posterior(t)  # [x_0, x_t, x_{t−1}]
            now = ALL.astype(int)
            chance = chance * one[1, now, 1] + (1 - chance) * one[0, now, 1]
        steps.append(bit_chain.reverse_matrix(chance))
    return steps


def exact_law(chain):
    """p(x_0) [4] of the model."""
    law = EXACT.prior
    for step in reversed(exact_reverse(chain)):
        law = law @ step
    return law


def test_the_bound_is_that_of_all_trajectories(chain):
    """E_q log p(x_0…x_T)/q(x_1…x_T|x_0), less what the unlearned step adds."""
    made, reverse = tables(chain), exact_reverse(chain)
    expected = np.zeros(4)
    for path in itertools.product(range(4), repeat=STEPS + 1):
        q = np.prod([EXACT.kernels[t][path[t], path[t + 1]] for t in range(STEPS)])
        log_p = np.log(EXACT.prior[path[-1]])
        log_p += sum(np.log(reverse[t][path[t + 1], path[t]]) for t in range(STEPS))
        expected[path[0]] += q * (log_p - np.log(q))
    at_ends = np.log(EXACT.prior) - EXACT.marginals[1] @ np.log(EXACT.prior)
    x_0, x_t = pairs()
    bound = nonequilibrium.ends(chain, made, jnp.asarray(ALL))
    for t in range(1, STEPS):
        output = network(x_t, full(t))
        kl = nonequilibrium.step_kl(chain, made, output, x_0, x_t, full(t))
        bound -= (EXACT.marginals[t + 1] * kl.reshape(4, 4)).sum(axis=1)
    np.testing.assert_allclose(bound, expected - at_ends, atol=1e-10)
    assert (bound + at_ends <= np.log(exact_law(chain)) + 1e-12).all()


def test_importance_averages_reach_the_exact_probability(chain):
    made, count = tables(chain), 4000

    def one(key):
        def noise(t):
            return jax.random.uniform(jax.random.fold_in(key, t), (4, BITS))

        return nonequilibrium.log_weights(chain, made, network, jnp.asarray(ALL), noise)

    weights = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), count))
    found = nonequilibrium.averaged(weights)
    w = np.exp(np.asarray(weights))
    error = w.std(axis=0) / np.sqrt(count)
    probability = np.exp(found.log_probability)
    assert (np.abs(probability - exact_law(chain)) < 4 * error).all()
    expected = w.sum(axis=0) ** 2 / (w**2).sum(axis=0)
    np.testing.assert_allclose(found.effective, expected, rtol=1e-9)


def test_samples_have_the_law_of_the_model(chain):
    count = 20_000

    def noise(t):
        return jax.random.uniform(jax.random.fold_in(jax.random.key(3), t), (count, 2))

    run = jax.jit(
        lambda start: nonequilibrium.sample(
            chain, tables(chain), network, start, noise, kept=(2, 0)
        )
    )(noise(99))
    _, second, third = exact_reverse(chain)
    for x, law in (
        (run.x_0, exact_law(chain)),
        (run.states[0], EXACT.prior),
        (run.states[1], EXACT.prior @ third @ second),
    ):
        shares = np.bincount(EXACT.index(x), minlength=4) / count
        error = np.sqrt(law * (1 - law) / count)
        assert (np.abs(shares - law) < 4 * error).all()
    np.testing.assert_array_equal(run.states[1], run.x_1)


def test_entropy_bounds_hold_and_are_those_of_the_enumeration():
    """Over data of the prior's mean, whose entropy grows along the chain."""
    chain, data = binomial.Binomial(MEAN), np.array([0.7, 0.1, 0.1, 0.1])
    made = tables(chain)

    def entropy(law):
        return -np.sum(law * np.log(law))

    for t in range(1, STEPS):
        before, now = (data @ EXACT.marginals[k] for k in (t, t + 1))
        joint = before[:, None] * EXACT.kernels[t]
        forwards = entropy(joint) - entropy(before)
        backwards = entropy(joint) - entropy(now)
        given = [data @ list(map(entropy, EXACT.marginals[k])) for k in (t, t + 1)]
        lower, upper = nonequilibrium.entropy_bounds(
            chain, made, jnp.asarray(ALL), full(t, 4)
        )
        np.testing.assert_allclose(data @ upper, forwards, atol=1e-12)
        np.testing.assert_allclose(data @ lower, forwards + given[0] - given[1])
        assert data @ lower <= backwards <= data @ upper


@pytest.mark.parametrize("mean", [0.0, 1.0, -0.1])
def test_a_prior_of_certain_bits_is_refused(mean):
    with pytest.raises(errors.Refusal, match=f"a prior mean of {mean}: choose"):
        binomial.Binomial(mean)
