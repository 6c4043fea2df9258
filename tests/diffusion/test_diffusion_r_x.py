"""Multiplying a chain by r(x) against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.core import errors
from ddpm_jax.diffusion import binomial, learned_rates, nonequilibrium, process, r_x

BETAS = np.array([0.01, *np.linspace(0.05, 0.5, 20)])
STEPS, COUNT = len(BETAS), 20_000
ALPHA_BAR = np.append(1.0, np.cumprod(1 - BETAS))  # at the paper's t = 0 … T


def run(chain, tables, network, change, draw):
    def noise(t):
        return draw(jax.random.fold_in(jax.random.key(5), t), (COUNT, 1))

    sample = jax.jit(
        lambda start: nonequilibrium.sample(
            chain, tables, network, start, noise, change=change
        )
    )
    return np.asarray(sample(noise(999)).x_0)[:, 0]


def gaussian(change):
    """Samples of the exact chain of data ~ N(0, 1)."""
    chain = learned_rates.LearnedRates(tuple(BETAS), "residual")
    return run(
        chain,
        chain.tables(jnp.zeros(STEPS)),
        lambda x, t: jnp.zeros((COUNT, 2)),
        change,
        jax.random.normal,
    )


def test_a_gaussian_chain_times_a_gaussian_is_the_product():
    """r = N(y; x_0, σ²); what is known of x_0 given x_t makes every step exact."""
    y, variance = 1.5, 0.4

    def copy(t):
        level = jnp.asarray(ALPHA_BAR, jnp.float32)[t][:, None]
        return y / jnp.sqrt(level), (1 - level + variance) / level

    samples = gaussian(r_x.observed(copy))
    exact_mean, exact_variance = y / (1 + variance), variance / (1 + variance)
    error = np.sqrt(exact_variance / COUNT)
    assert abs(samples.mean() - exact_mean) < 4 * error
    error_of_variance = exact_variance * np.sqrt(2 / COUNT)
    assert abs(samples.var() - exact_variance) < 4 * error_of_variance


def test_one_step_times_a_gaussian_is_the_product():
    law = learned_rates.Normal(jnp.array([[0.3]]), jnp.array([[0.5]]))
    made = r_x.observed((2.0, 0.25))(law, jnp.zeros(1, int))
    x = np.linspace(-8, 8, 200_001)
    density = np.exp(-0.5 * (x - 0.3) ** 2 / 0.5 - 0.5 * (x - 2.0) ** 2 / 0.25)
    density /= density.sum()
    np.testing.assert_allclose(made.mean[0, 0], density @ x, rtol=1e-5)
    spread = density @ x**2 - (density @ x) ** 2
    np.testing.assert_allclose(made.variance[0, 0], spread, rtol=1e-5)


def test_a_smooth_r_moves_the_mean_to_first_order():
    """The exact product's mean, for a step of little variance."""
    law = learned_rates.Normal(jnp.array([[0.3]]), jnp.array([[1e-3]]))
    change = r_x.smooth(lambda x, t: -0.5 * jnp.sum((2.0 - x) ** 2, axis=1) / 0.25)
    exact = (0.3 / 1e-3 + 2.0 / 0.25) / (1 / 1e-3 + 1 / 0.25)
    made = change(law, jnp.zeros(1, int))
    np.testing.assert_allclose(made.mean[0, 0] - 0.3, exact - 0.3, rtol=5e-3)
    np.testing.assert_array_equal(made.variance, law.variance)


def test_powers_of_r():
    t = jnp.array([0, 5, 20])
    for name, expected in (("constant", [3, 3, 3]), ("linear", [3, 2.25, 0])):
        power = r_x.powered(lambda x: 3 * jnp.ones(3), name, 20)
        np.testing.assert_allclose(power(jnp.zeros((3, 1)), t), expected)
    with pytest.raises(errors.Refusal, match=r"unknown exponent of r 'half'"):
        r_x.powered(lambda x: x, "half", 20)


def test_a_constant_r_pulls_twice_as_far_as_the_product():
    """As the module says: the chain of N(0, 1) with r = exp(x/2), of product mean ½."""
    power = r_x.powered(lambda x: 0.5 * jnp.sum(x, axis=1), "constant", STEPS)
    samples = gaussian(r_x.smooth(power))
    mean = 0.0  # of the autoregression, step by step, x_T first: Σ = 1 there
    for kept, variance in [(0.0, 1.0), *((1 - b, b) for b in BETAS[::-1])]:
        mean = np.sqrt(kept) * mean + 0.5 * variance
    assert abs(samples.mean() - mean) < 4 / np.sqrt(COUNT)
    assert mean > 0.8


def test_a_chain_of_bits_times_a_bitwise_r_is_the_tilted_law():
    prior, chance, ratio = 0.3, 0.6, 5.0  # r(1) = 5, r(0) = 1
    chain = binomial.Binomial(prior)
    tables = chain.tables(process.Schedule.from_betas(BETAS))
    level = jnp.asarray(ALPHA_BAR, jnp.float32)

    def of_data(x_t, level):
        """q(x_0 = 1 | x_t) of bits that are 1 with `chance`, by Bayes."""

        def seen(x_0):
            on = prior + (x_0 - prior) * level
            return jnp.where(x_t == 1, on, 1 - on)

        return chance * seen(1) / (chance * seen(1) + (1 - chance) * seen(0))

    def network(x_t, t):
        on = of_data(x_t, level[t + 1][:, None])
        return jnp.log(on) - jnp.log1p(-on)

    def share(t):
        """E[r(x_0) | x_t] of 1, of the sum with that of 0."""
        on, off = (
            1 + (ratio - 1) * of_data(jnp.full((COUNT, 1), bit), level[t][:, None])
            for bit in (1.0, 0.0)
        )
        return on / (on + off)

    bits = run(chain, tables, network, r_x.bitwise(share), jax.random.uniform)
    tilted = chance * ratio / (chance * ratio + 1 - chance)
    assert abs(bits.mean() - tilted) < 4 * np.sqrt(tilted * (1 - tilted) / COUNT)


def test_one_step_of_bits_times_r():
    law = binomial.Bits(jnp.array([[0.3, 0.9]]), jnp.array([[0.7, 0.1]]))
    made = r_x.bitwise(jnp.array([[0.8, 0.0]]))(law, jnp.zeros(1, int))
    on = 0.3 * 4 / (0.3 * 4 + 0.7 * 1)
    np.testing.assert_allclose(made.on, [[on, 0]], rtol=1e-6)
    np.testing.assert_allclose(made.off, [[1 - on, 1]], rtol=1e-6)


@pytest.mark.parametrize("kind", ["bits", "gaussian"])
def test_known_coordinates_are_held_and_others_untouched(kind):
    values, mask = jnp.array([[1.0, 0.0]]), jnp.array([[True, False]])
    half = jnp.full((1, 2), 0.5)
    if kind == "bits":
        chain, law = binomial.Binomial(), binomial.Bits(half, half)
    else:
        chain = learned_rates.LearnedRates((0.5, 0.5))
        law = learned_rates.Normal(half, half)
    made = r_x.known(values, mask)(law, jnp.zeros(1, int))
    for seed in range(3):
        drawn = chain.draw(made, chain.noise(jax.random.key(seed), (1, 2)))
        assert drawn[0, 0] == 1.0
    np.testing.assert_array_equal([part[0, 1] for part in made], [0.5, 0.5])


@pytest.mark.parametrize(
    ("values", "mask", "match"),
    [
        (np.zeros((2, 3)), np.zeros((2, 2), bool), r"a mask bool\[2, 2\] for values"),
        (np.zeros((2, 2)), np.zeros((2, 2)), r"a mask float32\[2, 2\] for values"),
        (np.full((1, 2), np.nan), np.ones((1, 2), bool), "2 of 2 numbers of the known"),
    ],
)
def test_masks_and_values_that_are_none_are_refused(values, mask, match):
    with pytest.raises(errors.Refusal, match=match):
        r_x.known(jnp.asarray(values), jnp.asarray(mask))
