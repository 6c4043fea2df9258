"""Gaussian data: samplers and the bound against what is known exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle_network
import pytest
from reference import likelihood as ref_likelihood
from reference import oracle as ref_oracle
from reference import process as ref_process
from reference import schedules as ref_schedules

from ddpm_jax.diffusion import likelihood, process, reverse, samplers

BITS = 1 / np.log(2)
SIGMAS = 4.5  # standard errors


# ---- the oracle itself ---------------------------------------------------------------


def reference_oracle(name="linear", num_steps=1000):
    betas = ref_schedules.BY_NAME[name](num_steps)
    return ref_oracle.Oracle(
        ref_process.Process(betas), oracle_network.MEAN, oracle_network.STD
    )


def test_optimal_lines_are_one_and_the_same_estimate():
    oracle = reference_oracle()
    x_t = np.random.default_rng(0).normal(size=(1000, 4))
    t = np.arange(1000)
    estimates = {
        prediction: oracle.process.x_0_from(
            prediction,
            oracle.optimal(prediction).intercept
            + oracle.optimal(prediction).slope * x_t,
            x_t,
            t,
        )
        for prediction in ("noise", "x_0", "x_prev", "v")
    }
    for estimate in estimates.values():
        np.testing.assert_allclose(estimate, estimates["x_0"], atol=1e-9)


def test_variances_add_up():
    oracle = reference_oracle()
    c1 = oracle.process.c1[:, None]
    # Var[x_{t−1}|x_t] = E Var[x_{t−1}|x_t,x_0] + Var E[x_{t−1}|x_t,x_0]
    total = oracle.process.posterior_var[:, None] + c1**2 * oracle.residual_var
    np.testing.assert_allclose(oracle.reverse_var, total, rtol=1e-9)


def test_with_the_true_variance_the_chain_ends_in_the_data():
    oracle = reference_oracle()
    mean, var = oracle.ancestral_law(oracle.reverse_var)
    # The last step returns E[x_0|x_t], which lacks Var[x_0|x_t] at t = 0; what is left
    # of the start from N(0, I) is of the order ᾱ_T = 4e-5.
    np.testing.assert_allclose(var, oracle.data_var - oracle.residual_var[0], rtol=1e-4)
    np.testing.assert_allclose(mean, oracle.mean, atol=1e-4)


def test_ddim_tends_to_the_data_as_one_over_steps():
    errors = []
    for steps in (50, 100, 200, 400):
        oracle = reference_oracle("cosine", steps)
        errors.append(np.abs(oracle.ddim_law(0.0)[1] - oracle.data_var)[1:].max())
    slope = np.polyfit(np.log([50, 100, 200, 400]), np.log(errors), 1)[0]
    assert -1.3 < slope < -0.8


# ---- samplers ------------------------------------------------------------------------

COUNT = 8192


def check_law(samples, mean, var):
    """Sample moments against a Gaussian law, within sampling error."""
    samples = np.asarray(samples, np.float64)
    count = len(samples)
    error = np.abs(samples.mean(axis=0) - mean)
    assert (error <= SIGMAS * np.sqrt(var / count) + 1e-5).all(), (error, var)
    error = np.abs(samples.var(axis=0) - var)
    assert (error <= SIGMAS * var * np.sqrt(2 / count) + 1e-6).all(), (error, var)


def draw(tables, denoise, step, seed, count=COUNT, channels=4):
    """Jitted samples [count, C] from N(0, I) with noise of their own."""

    @jax.jit
    def run(key):
        start, chain = jax.random.split(key)
        shape = (count, channels)
        return samplers.sample(
            tables,
            denoise,
            step=step,
            x_T=jax.random.normal(start, shape),
            noise_fn=lambda k: jax.random.normal(jax.random.fold_in(chain, k), shape),
        ).x_0

    return run(jax.random.key(seed))


def chosen_variance(oracle, variance):
    """The reverse variance [T, C] that a kind of variance stands for."""
    beta = oracle.process.beta[:, None] + np.zeros_like(oracle.var)
    return {
        "fixed_small": oracle.process.posterior_var[:, None] + np.zeros_like(beta),
        "fixed_large": beta,
        "learned": oracle.reverse_var,
        "learned_range": oracle.reverse_var,
    }[variance]


@pytest.mark.parametrize(
    ("prediction", "variance", "name", "num_steps", "spec"),
    [
        ("noise", "fixed_small", "linear", 1000, 10),
        ("noise", "learned_range", "linear", 1000, "ddim50"),
        ("x_0", "fixed_large", "cosine", 1000, 3),
        ("x_0", "learned", "jsd", 40, ""),
        ("x_prev", "fixed_large", "linear_fixed", 300, "10,5,5"),
        ("x_prev", "learned", "linear", 100, ""),
        ("v", "learned_range", "cosine", 200, 100),
        ("v", "fixed_small", "cosine", 1000, 1),
    ],
)
def test_ancestral_samples_have_the_law_of_the_recursion(
    prediction, variance, name, num_steps, spec
):
    tables, oracle = oracle_network.build(name, num_steps, spec)
    target = chosen_variance(oracle, variance)
    network = oracle_network.network(
        tables, oracle, prediction, np.log(np.maximum(target, 1e-30)), variance
    )
    denoise = reverse.denoiser(
        tables, network, prediction=prediction, variance=variance
    )
    samples = draw(tables, denoise, samplers.ancestral(), seed=1)
    check_law(samples, *oracle.ancestral_law(target))


@pytest.mark.parametrize(
    ("prediction", "eta", "name", "spec"),
    [
        ("noise", 0.0, "linear", 1),
        ("noise", 0.0, "linear", 7),
        ("noise", 1.0, "linear", 25),
        ("x_0", 0.5, "cosine", "ddim50"),
        ("v", 1.0, "cosine", 4),
        ("x_prev", 0.3, "linear", 60),
        ("v", 0.0, "jsd", 100),
    ],
)
def test_ddim_samples_have_the_law_of_the_recursion(prediction, eta, name, spec):
    tables, oracle = oracle_network.build(name, 1000, spec)
    denoise = reverse.denoiser(
        tables,
        oracle_network.network(tables, oracle, prediction),
        prediction=prediction,
        variance="fixed_small",
    )
    samples = draw(tables, denoise, samplers.ddim(eta=eta), seed=2)
    check_law(samples, *oracle.ddim_law(eta))


@pytest.mark.parametrize("step", [samplers.ancestral(), samplers.ddim(eta=0.5)])
def test_zero_terminal_snr_starts_from_pure_noise(step):
    tables, oracle = oracle_network.build("linear", 30, zero_terminal_snr=True)
    denoise = reverse.denoiser(
        tables,
        oracle_network.network(tables, oracle, "v"),
        prediction="v",
        variance="fixed_large",
    )
    samples = draw(tables, denoise, step, seed=8)
    if step == samplers.ancestral():
        law = oracle.ancestral_law(chosen_variance(oracle, "fixed_large"))
    else:
        law = oracle.ddim_law(0.5)
    check_law(samples, *law)


def test_correlated_data_keeps_its_correlation():
    # A rotation of independent coordinates: the chain's noise is isotropic, so the law
    # of its samples is the rotated one.
    angle = 0.6
    rotation = np.array(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    )
    tables, oracle = oracle_network.build(
        "linear", 1000, 20, mean=(0.3, -0.2), std=(0.9, 0.1)
    )
    straight = oracle_network.network(tables, oracle, "noise")
    turn = jnp.asarray(rotation, jnp.float32)

    def network(x_t, t_seen):
        return straight(x_t @ turn, t_seen) @ turn.T

    denoise = reverse.denoiser(
        tables, network, prediction="noise", variance="fixed_large"
    )
    samples = np.asarray(
        draw(tables, denoise, samplers.ancestral(), seed=3, channels=2), np.float64
    )
    mean, var = oracle.ancestral_law(chosen_variance(oracle, "fixed_large"))
    covariance = rotation @ np.diag(var) @ rotation.T
    error = np.abs(np.cov(samples.T) - covariance)
    limit = SIGMAS * np.sqrt(
        (np.outer(np.diag(covariance), np.diag(covariance)) + covariance**2) / COUNT
    )
    assert (error < limit).all()
    check_law(samples @ rotation, mean, var)


# ---- the bound -----------------------------------------------------------------------


def grid_data(levels, count, seed=0):
    """Data on the grid of `levels`, near the oracle's Gaussian."""
    rng = np.random.default_rng(seed)
    x = rng.normal(oracle_network.MEAN, oracle_network.STD, (count, 4))
    step = 2 / (levels - 1)
    return np.clip(np.round((x + 1) / step), 0, levels - 1) * step - 1


def check_mean(values, expected):
    """Per-example values against their expectations, within sampling error."""
    difference = np.asarray(values, np.float64) - expected
    error = difference.std(axis=0, ddof=1) / np.sqrt(len(difference))
    mean = np.abs(difference.mean(axis=0))
    limit = SIGMAS * error + 1e-6 + 1e-5 * np.abs(expected).mean(axis=0)
    assert (mean <= limit).all(), (mean / limit).max()


@pytest.mark.parametrize(
    ("prediction", "variance", "name", "spec", "levels"),
    [
        ("noise", "fixed_small", "linear", 40, 256),
        ("x_0", "fixed_large", "cosine", "ddim25", 17),
        ("x_prev", "learned", "linear", 30, 256),
        ("v", "learned_range", "cosine", 50, 65536),
    ],
)
def test_every_term_of_the_bound(prediction, variance, name, spec, levels):
    tables, oracle = oracle_network.build(name, 1000, spec)
    kind = {
        "fixed_small": oracle.process.posterior_log_var[:, None],
        "fixed_large": np.log(oracle.process.large_var)[:, None],
    }.get(variance, np.log(oracle.reverse_var))
    log_var = kind + np.zeros_like(oracle.var)
    x_0 = grid_data(levels, 2048).astype(np.float32)
    denoise = reverse.denoiser(
        tables,
        oracle_network.network(tables, oracle, prediction, log_var, variance),
        prediction=prediction,
        variance=variance,
    )

    @jax.jit
    def evaluate(x_0, key):
        return likelihood.bits_per_dim(
            tables,
            denoise,
            x_0,
            noise_fn=lambda k: jax.random.normal(jax.random.fold_in(key, k), x_0.shape),
            levels=levels,
        )

    bound = evaluate(jnp.asarray(x_0), jax.random.key(4))
    x_0 = x_0.astype(np.float64)
    vb = oracle.expected_vb(x_0, log_var, levels)
    prior = ref_likelihood.prior_bpd(oracle.process, x_0)

    check_mean(bound.vb, vb)
    np.testing.assert_allclose(bound.prior, prior, rtol=1e-5, atol=1e-8)
    check_mean(bound.total, vb.sum(axis=1) + prior)
    check_mean(bound.decoder, vb[:, 0])
    check_mean(bound.rate, vb[:, 1:].sum(axis=1) + prior)
    line = oracle.optimal("x_0")
    bias = line.intercept + (line.slope * oracle.signal - 1) * x_0[:, None, :]
    square = bias**2 + (line.slope * oracle.spread) ** 2
    check_mean(bound.x_0_mse, square.mean(axis=2))
    ratio = (oracle.signal / oracle.spread) ** 2
    check_mean(bound.noise_mse, (ratio * square).mean(axis=2))


def test_quadrature_has_converged():
    _, oracle = oracle_network.build("linear", 1000, 40)
    x_0 = grid_data(256, 64)
    log_var = oracle.process.posterior_log_var[:, None] + np.zeros_like(oracle.var)
    few, many = (
        oracle.expected_decoder(x_0, log_var, 256, nodes=nodes) for nodes in (80, 140)
    )
    np.testing.assert_allclose(few, many, rtol=1e-6)


def test_rate_of_the_best_model_is_the_information_that_a_chain_carries():
    # I(x_0; x_{t−1}) = I(x_0; x_t) + I(x_0; x_{t−1} | x_t): with the best reverse
    # Gaussians the terms t ≥ 1 add up to I(x_0; x_{t=0}) − I(x_0; x_{T−1}).
    tables, oracle = oracle_network.build("linear", 1000, 50)
    log_var = np.log(oracle.reverse_var)
    expected = oracle.information(0) - oracle.information(-1)
    denoise = reverse.denoiser(
        tables,
        oracle_network.network(tables, oracle, "noise", log_var, "learned"),
        prediction="noise",
        variance="learned",
    )
    count = 8192
    rng = np.random.default_rng(5)
    data = rng.normal(oracle_network.MEAN, oracle_network.STD, (count, 4))

    @jax.jit
    def rate(x_0, key):
        bound = likelihood.bits_per_dim(
            tables,
            denoise,
            x_0,
            noise_fn=lambda k: jax.random.normal(jax.random.fold_in(key, k), x_0.shape),
        )
        return bound.rate - bound.prior

    values = rate(jnp.asarray(data, jnp.float32), jax.random.key(6))
    check_mean(values, np.full(count, expected * BITS))


# ---- encoding and decoding -----------------------------------------------------------


def test_encoding_and_decoding_comes_back_as_one_over_steps():
    counts = np.array([25, 50, 100, 200])
    x_0 = jnp.asarray(grid_data(256, 64, seed=7), jnp.float32)
    errors = []
    for count in counts:
        tables, oracle = oracle_network.build("linear", 1000, int(count))
        denoise = reverse.denoiser(
            tables,
            oracle_network.network(tables, oracle, "noise"),
            prediction="noise",
            variance="fixed_small",
        )

        def chain(x, step, path, tables=tables, denoise=denoise):
            return samplers.sample(
                tables,
                denoise,
                step=step,
                x_T=x,
                noise_fn=lambda k: jnp.zeros_like(x_0),
                path=path,
            ).x_0

        up = tuple((t, t + 1, "step") for t in range(tables.num_steps - 1))
        down = tuple((t, t - 1, "step") for t in range(tables.num_steps - 1, 0, -1))

        @jax.jit
        def round_trip(x, chain=chain, up=up, down=down):
            latent = chain(x, samplers.reverse_ddim(), up)
            return chain(latent, samplers.ddim(eta=0.0), down)

        errors.append(float(jnp.sqrt(jnp.mean((round_trip(x_0) - x_0) ** 2))))
    slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert -1.25 < slope < -0.8, errors
    assert errors[-1] < 0.02


def test_oracle_of_the_package_and_the_reference_see_the_same_betas():
    tables, oracle = oracle_network.build("cosine", 1000, "ddim25")
    whole = ref_schedules.alpha_bar(ref_schedules.cosine(1000))
    np.testing.assert_allclose(
        oracle.process.alpha_bar, whole[np.arange(0, 1000, 40)], rtol=1e-9
    )
    q = process.q_mean_variance(tables, jnp.ones((25, 1)), jnp.arange(25))
    np.testing.assert_allclose(q[0][:, 0] ** 2, oracle.process.alpha_bar, rtol=1e-6)
