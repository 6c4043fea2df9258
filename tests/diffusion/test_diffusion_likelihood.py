"""KL, discretised Gaussian, prior and whole bound against float64."""

import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import likelihood as ref_likelihood
from reference import process as ref_process
from reference import reverse as ref_reverse

from ddpm_jax.core import errors
from ddpm_jax.diffusion import likelihood, process, respacing, reverse, schedules

FLOOR = math.log(1e-12)


def pair(name="linear", num_steps=1000, spec=""):
    schedule = process.Schedule.from_betas(schedules.make_betas(name, num_steps))
    schedule = respacing.respace(schedule, spec)
    return process.tables(schedule), ref_process.Process(schedule.betas)


# ---- KL ------------------------------------------------------------------------------


def test_published_kl():
    value = likelihood.normal_kl(*map(jnp.float32, (0.1, -1.0, 0.3, -0.5)))
    assert float(value) == pytest.approx(0.0862397553, rel=1e-5)


def test_kl_equals_the_reference():
    rng = np.random.default_rng(0)
    parameters = [
        rng.normal(size=(50, 40)).astype(np.float32) * scale
        for scale in (1.0, 5.0, 1.0, 5.0)
    ]
    wide = [value.astype(np.float64) for value in parameters]
    value = likelihood.normal_kl(*parameters)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(
        value, ref_likelihood.normal_kl(*wide), rtol=1e-5, atol=1e-6
    )
    assert (np.asarray(value) >= -1e-6).all()


def test_kl_of_a_gaussian_from_itself_is_zero():
    mean, log_var = jnp.linspace(-2, 2, 9), jnp.linspace(-20, 3, 9)
    np.testing.assert_array_equal(
        likelihood.normal_kl(mean, log_var, mean, log_var), np.zeros(9)
    )


@pytest.mark.parametrize("difference", [1e-2, 1e-3, -1e-3, 1e-4])
def test_kl_of_nearly_equal_variances(difference):
    # ½ (e^d − 1 − d) = d²/4 + d³/12 + …
    log_var = np.float32(difference)
    value = likelihood.normal_kl(0.0, jnp.float32(log_var), 0.0, jnp.float32(0.0))
    d = float(log_var)
    assert float(value) == pytest.approx(d * d / 4 + d**3 / 12, rel=2e-3)


# ---- the discretised Gaussian --------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "mean", "std", "expected"),
    [
        (0, 0, 0.01, -1.1873711715),
        (0, 0.02, 0.01, -3.0826696959),
        (-1, -0.98, 0.01, -2.9178975452),
        (1, 0.98, 0.01, -2.9178975452),
        (0, 1, 0.01, -27.6310211159),
        (128 / 127.5 - 1, 0, 0.1, -3.4654996892),
    ],
)
def test_published_log_probabilities(x, mean, std, expected):
    value = likelihood.discretised_gaussian_log_prob(
        jnp.float32(x), jnp.float32(mean), jnp.float32(math.log(std)), levels=256
    )
    assert float(value) == pytest.approx(expected, abs=2e-5, rel=2e-5)
    exact = ref_likelihood.discretised_log_prob(
        np.float64(x), np.float64(mean), math.log(std), 256
    )
    assert float(exact) == pytest.approx(expected, abs=1e-9)


def grid(levels, count=None, seed=0):
    index = np.arange(levels)
    if count is not None:
        index = np.random.default_rng(seed).integers(0, levels, count)
        index[:4] = [0, 1, levels - 2, levels - 1]
    return (2 * index / (levels - 1) - 1).astype(np.float32)


@pytest.mark.parametrize("levels", [2, 3, 17, 256, 65536])
def test_log_probabilities_in_float32(levels):
    rng = np.random.default_rng(levels)
    x = grid(levels, 20000)
    # Means from the pixel's own neighbourhood to far away, scales from far below a bin
    # to wider than the range.
    log_scale = rng.uniform(math.log(0.05 / levels), 1.0, x.shape).astype(np.float32)
    offset = rng.normal(size=x.shape) * np.exp(log_scale) * rng.choice([0.3, 1, 3])
    mean = (x + offset).astype(np.float32)
    value = likelihood.discretised_gaussian_log_prob(x, mean, log_scale, levels=levels)
    assert value.dtype == jnp.float32
    assert value.shape == x.shape
    exact = ref_likelihood.discretised_log_prob(
        x.astype(np.float64), mean.astype(np.float64), log_scale.astype(np.float64),
        levels,
    )  # fmt: skip
    np.testing.assert_allclose(value, exact, rtol=1e-4, atol=2e-5)
    assert (np.asarray(value) >= np.float32(FLOOR)).all()


@pytest.mark.parametrize("levels", [2, 17, 256, 65536])
def test_probabilities_of_all_levels_add_up_to_one(levels):
    x = grid(levels)
    log_probs = jax.jit(
        functools.partial(likelihood.discretised_gaussian_log_prob, levels=levels)
    )
    for mean in (-1.4, -0.999, 0.1, 0.83, 1.2):
        for log_scale in (-4.0, -1.0, 1.0):
            log_prob = np.asarray(
                log_probs(x, jnp.float32(mean), jnp.float32(log_scale)), np.float64
            )
            # Every bin below the floor counts as 1e-12.
            total = np.exp(log_prob).sum()
            assert total == pytest.approx(1, abs=2e-6 + levels * 1e-12)


def test_reference_approximates_the_normal_distribution():
    # Page's formula is within 3e-4 of Φ.
    z = np.linspace(-6, 6, 401)
    exact = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in z])
    assert np.abs(ref_likelihood.approximate_cdf(z) - exact).max() < 3e-4


@pytest.mark.parametrize("levels", [17, 256, 65536])
def test_gradients_are_finite_everywhere(levels):
    x = grid(levels, 2000)
    mean = np.random.default_rng(1).uniform(-3, 3, x.shape).astype(np.float32)
    mean[:4] = x[:4]

    def total(mean, log_scale):
        log_prob = likelihood.discretised_gaussian_log_prob(
            x, mean, log_scale, levels=levels
        )
        return jnp.sum(log_prob)

    gradient = jax.jit(jax.grad(total, argnums=(0, 1)))
    for scale in (-23.0, -6.0, 0.0, 5.0):
        log_scale = jnp.full(x.shape, scale, jnp.float32)
        chex.assert_tree_all_finite(gradient(mean, log_scale))


def test_the_bound_of_continuous_data_has_a_density_at_its_end():
    """It is that of many levels, each bin of which holds density times width."""
    tables, _ = pair(num_steps=50)
    levels = 2**16
    rng = np.random.default_rng(0)
    x_0 = rng.uniform(-0.9, 0.9, (2, 20, 1)).astype(np.float32)
    log_var = jnp.full_like(x_0, -3.0)
    made = reverse.Prediction(x_0, x_0, x_0 + 0.1, jnp.exp(log_var), log_var)
    t = jnp.array([0, 7])
    terms = [
        np.asarray(likelihood.vlb_term(tables, x_0, x_0, t, made, levels=n))
        for n in (None, levels)
    ]
    assert terms[0][1] == terms[1][1]  # only the decoder knows of levels
    width = np.log2(2 / (levels - 1))
    # Page's approximation of the normal distribution is good to about 1 %.
    assert terms[0][0] == pytest.approx(terms[1][0] + width, abs=0.02)
    exact = 0.5 * (math.log(2 * math.pi) - 3 + 0.01 * math.exp(3)) / math.log(2)
    assert terms[0][0] == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize("levels", [1, 0, -5, 2.5])
def test_impossible_levels_are_refused(levels):
    with pytest.raises(errors.Refusal, match="level"):
        likelihood.discretised_gaussian_log_prob(
            jnp.zeros(1), jnp.zeros(1), jnp.zeros(1), levels=levels
        )


# ---- terms of the bound --------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "values"),
    [("linear", (5.87e-10, 7.28e-6, 2.911e-5)), ("cosine", (0, 4.4e-10, 1.75e-9))],
)
def test_published_prior(name, values):
    tables, reference = pair(name)
    x_0 = jnp.asarray([[0.0, 0.0], [0.5, -0.5], [1.0, -1.0]])
    prior = likelihood.prior_bpd(tables, x_0)
    assert prior.shape == (3,)
    assert prior.dtype == jnp.float32
    np.testing.assert_allclose(prior, values, rtol=1e-2, atol=1e-13)
    exact = ref_likelihood.prior_bpd(reference, np.asarray(x_0, np.float64))
    np.testing.assert_allclose(exact, values, rtol=6e-3, atol=1e-13)


def test_prior_uses_the_last_step_of_the_respaced_process():
    x_0 = np.random.default_rng(0).uniform(-1, 1, (4, 3, 3, 2)).astype(np.float32)
    for spec in ("ddim25", 1, "1", 40):
        tables, reference = pair("linear", 1000, spec)
        np.testing.assert_allclose(
            likelihood.prior_bpd(tables, x_0),
            ref_likelihood.prior_bpd(reference, x_0.astype(np.float64)),
            rtol=1e-4,
        )


def stand_in(levels=17, seed=0, batch=3):
    rng = np.random.default_rng(seed)
    x_0 = (rng.integers(0, levels, (batch, 4, 2)) * 2 / (levels - 1) - 1).astype(
        np.float32
    )
    weight = rng.normal(size=(2, 4)).astype(np.float32)
    return x_0, weight


@pytest.mark.parametrize("levels", [17, 256])
@pytest.mark.parametrize("name", ["linear_fixed", "cosine"])
def test_the_whole_bound_with_recorded_noise(name, levels):
    tables, reference = pair(name, 40, "ddim20")
    kept = np.array(tables.schedule.timesteps)
    x_0, weight = stand_in(levels)
    draws = np.random.default_rng(1).normal(size=(20, *x_0.shape)).astype(np.float32)
    kinds = {"prediction": "v", "variance": "learned_range"}

    def network(x_t, t_seen):
        time = jnp.asarray(t_seen, jnp.float32).reshape(-1, 1, 1) / 40
        return jnp.tanh(x_t @ weight + time)

    denoise = reverse.denoiser(
        tables, network, x_0_hooks=(reverse.clipping(-1, 1),), **kinds
    )

    def evaluate(x_0):
        return likelihood.bits_per_dim(
            tables,
            denoise,
            x_0,
            noise_fn=lambda k: jnp.asarray(draws)[k],
            levels=levels,
        )

    def predict(x_t, t):
        output = np.tanh(
            x_t @ weight.astype(np.float64) + kept[t].reshape(-1, 1, 1) / 40
        )
        return ref_reverse.reverse(
            reference, output, x_t, t, hook=ref_reverse.clip, **kinds
        )

    expected = ref_likelihood.bits_per_dim(
        reference, predict, x_0.astype(np.float64), draws.astype(np.float64), levels
    )
    bound = jax.jit(evaluate)(x_0)
    for field, value in expected.items():
        computed = getattr(bound, field)
        assert computed.shape == value.shape
        assert computed.dtype == jnp.float32
        np.testing.assert_allclose(computed, value, rtol=1e-4, atol=2e-5, err_msg=field)
    np.testing.assert_allclose(bound.decoder, expected["vb"][:, 0], rtol=1e-4)
    np.testing.assert_allclose(bound.rate + bound.decoder, expected["total"], rtol=1e-4)
    chex.assert_trees_all_close(evaluate(x_0), bound, rtol=1e-5, atol=1e-5)


def test_the_bound_traces_the_network_once_for_any_number_of_steps():
    sizes = []
    for num_steps in (25, 500):
        tables, _ = pair("linear", num_steps)
        x_0, weight = stand_in()
        traces = []

        def network(x_t, t_seen, weight=weight, traces=traces):
            traces.append(x_t.shape)
            return jnp.tanh(x_t @ weight)[..., :2]

        denoise = reverse.denoiser(
            tables, network, prediction="noise", variance="fixed_small"
        )
        program = jax.make_jaxpr(
            lambda x_0, denoise=denoise, tables=tables: likelihood.bits_per_dim(
                tables, denoise, x_0, noise_fn=lambda k: jnp.zeros_like(x_0)
            )
        )(x_0)
        assert len(traces) == 1
        sizes.append(len(str(program).splitlines()))
    assert sizes[0] == sizes[1]


def test_one_step():
    tables, reference = pair("linear", 1000, 1)
    x_0, _ = stand_in()
    noise = np.random.default_rng(2).normal(size=x_0.shape).astype(np.float32)
    kinds = {"prediction": "x_0", "variance": "fixed_small"}
    denoise = reverse.denoiser(tables, lambda x, _: 0.9 * x_0, **kinds)
    bound = likelihood.bits_per_dim(
        tables, denoise, x_0, noise_fn=lambda k: noise, levels=17
    )
    wide = x_0.astype(np.float64)
    expected = ref_likelihood.bits_per_dim(
        reference,
        lambda x_t, t: ref_reverse.reverse(reference, 0.9 * wide, x_t, t, **kinds),
        wide,
        noise.astype(np.float64)[None],
        17,
    )
    np.testing.assert_allclose(bound.total, expected["total"], rtol=1e-4)
