"""Tables, marginals, posterior and conversions against the float64 reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import process as ref_process
from reference import schedules as ref_schedules

from ddpm_jax.core import errors
from ddpm_jax.diffusion import process, respacing, reverse, schedules

SHAPES = [(5, 3), (5, 4, 6, 2), (5, 2, 3, 4, 1), (5, 7, 2)]


def pair(name="linear", num_steps=1000, floor="next", spec="", **options):
    betas = schedules.make_betas(name, num_steps, **options)
    schedule = process.Schedule.from_betas(betas, log_var_floor=floor)
    schedule = respacing.respace(schedule, spec)
    reference = ref_process.Process(schedule.betas, log_var_floor=floor)
    return process.tables(schedule), reference


CASES = [
    *[(name, 1000, "next", "") for name in sorted(ref_schedules.BY_NAME)],
    *[(name, 4000, "next", "") for name in ("linear", "cosine")],
    *[(name, 20, "1e-20", "") for name in sorted(ref_schedules.BY_NAME)],
    *[("cosine", 1000, floor, spec) for floor in ("next", "1e-20") for spec in (1, 2)],
    *[("linear", 1000, "next", spec) for spec in ("ddim25", 50, 1)],
    *[(name, 1, "next", "") for name in ("const", "cosine", "jsd")],
]


def all_steps(tables):
    t = jnp.arange(tables.num_steps)
    return t, jnp.ones((tables.num_steps, 1)), jnp.zeros((tables.num_steps, 1))


@pytest.mark.parametrize(("name", "num_steps", "floor", "spec"), CASES)
def test_tables_equal_the_reference(name, num_steps, floor, spec):
    tables, reference = pair(name, num_steps, floor, spec)
    t, one, zero = all_steps(tables)

    def check(value, expected):
        assert value.dtype == jnp.float32
        value = np.broadcast_to(np.asarray(value), one.shape)[:, 0]
        np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-37)

    mean, variance, log_var = process.q_mean_variance(tables, one, t)
    check(mean, np.sqrt(reference.alpha_bar))
    check(variance, reference.noise_var)
    with np.errstate(divide="ignore"):
        log_noise_var = np.log1p(-reference.alpha_bar)
    value = np.broadcast_to(np.asarray(log_var), one.shape)[:, 0]
    # Near ᾱ = 0 the last digits of ᾱ itself, 1e-9 of it, are all there is.
    np.testing.assert_allclose(value, log_noise_var, rtol=1e-6, atol=1e-15)
    check(process.q_sample(tables, zero, t, one), np.sqrt(reference.noise_var))
    check(process.q_posterior(tables, one, zero, t)[0], reference.c1)
    check(process.q_posterior(tables, zero, one, t)[0], reference.c2)
    check(process.q_posterior(tables, one, zero, t)[1], reference.posterior_log_var)
    for variance, expected_var, expected_log_var in (
        ("fixed_small", reference.posterior_var, reference.posterior_log_var),
        ("fixed_large", reference.large_var, np.log(reference.large_var)),
    ):
        p = reverse.denoiser(
            tables, lambda x, _: x, prediction="x_0", variance=variance
        )(one, t)
        check(p.variance, expected_var)
        check(p.log_var, expected_log_var)
    # The upper end of the learned range is log β at every t.
    p = reverse.denoiser(
        tables,
        lambda x, _: jnp.concatenate([x, jnp.ones_like(x)], axis=-1),
        prediction="x_0",
        variance="learned_range",
    )(one, t)
    check(p.log_var, np.log(reference.beta))


@pytest.mark.parametrize(
    ("name", "t", "variance", "log_var", "c1", "c2"),
    [
        ("linear", 0, 0, -9.81672514, 1, 0),
        ("linear", 1, 5.45318766e-5, -9.81672514, 0.5452915, 0.454708499),
        ("linear", 499, 0.0100313554, -4.60203955, 0.00307007111, 0.99410667),
        ("linear", 999, 0.0199999835, -3.91202383, 1.28351487e-4, 0.989948678),
        ("cosine", 0, 0, -10.7340825, 1, 0),
        ("cosine", 1, 2.17894961e-5, -10.7340825, 0.527781409, 0.47221859),
        ("cosine", 499, 0.0031361999, -5.76474343, 0.00437458823, 0.995351619),
        ("cosine", 999, 0.998997576, -0.00100292667, 0.00155689172, 0.0316226999),
    ],
)
def test_published_posterior(name, t, variance, log_var, c1, c2):
    tables, _ = pair(name)
    step, one, zero = jnp.array([t]), jnp.ones((1, 1)), jnp.zeros((1, 1))
    p = reverse.denoiser(
        tables, lambda x, _: x, prediction="x_0", variance="fixed_small"
    )(one, step)
    assert float(p.variance[0, 0]) == pytest.approx(variance, rel=1e-6)
    assert float(p.log_var[0, 0]) == pytest.approx(log_var, rel=1e-6)
    first, _ = process.q_posterior(tables, one, zero, step)
    second, _ = process.q_posterior(tables, zero, one, step)
    assert float(first[0, 0]) == pytest.approx(c1, rel=1e-6)
    assert float(second[0, 0]) == pytest.approx(c2, rel=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_any_rank(shape):
    tables, reference = pair("cosine", 50)
    rng = np.random.default_rng(0)
    x_0, noise = rng.normal(size=(2, *shape)).astype(np.float32)
    t = np.array([0, 1, 17, 48, 49], np.int32)
    x_t = process.q_sample(tables, x_0, t, noise)
    expected = reference.q_sample(x_0.astype(np.float64), t, noise)
    assert x_t.shape == shape
    assert x_t.dtype == jnp.float32
    np.testing.assert_allclose(x_t, expected, rtol=1e-5, atol=1e-6)
    mean, log_var = process.q_posterior(tables, x_0, x_t, t)
    expected_mean, expected_log_var = reference.posterior(x_0, np.asarray(x_t), t)
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        log_var, np.broadcast_to(expected_log_var, shape), rtol=1e-6
    )
    signal, variance, log_variance = process.q_mean_variance(tables, x_0, t)
    full = np.broadcast_to(variance, shape)
    np.testing.assert_allclose(
        np.asarray(signal) + np.sqrt(full) * noise, expected, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(
        np.broadcast_to(log_variance, shape), np.log(full), rtol=1e-4, atol=1e-7
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_conversions_come_back(shape):
    tables, reference = pair("linear", 1000)
    rng = np.random.default_rng(1)
    x_0, noise = rng.normal(size=(2, *shape)).astype(np.float32)
    t = np.array([0, 1, 300, 600, 999], np.int32)
    x_t = process.q_sample(tables, x_0, t, noise)
    # A rounding of x_t by one part in 2^24 is divided by √ᾱ, 0.006 at t = 999, on the
    # way to x_0, by √(1−ᾱ), 0.01 at t = 0, on the way to the noise, and by c1 on the
    # way from x_{t−1}.
    signal = np.sqrt(reference.alpha_bar)[t].min()
    spread = np.sqrt(reference.noise_var)[t].min()
    unit = 4 * 2.0**-24 * np.abs(x_t).max()

    back = process.x_0_from_noise(tables, x_t, t, noise)
    np.testing.assert_allclose(back, x_0, atol=unit / signal)
    back = process.noise_from_x_0(tables, x_t, t, x_0)
    np.testing.assert_allclose(back, noise, atol=unit / spread)
    v = process.v_from_x_0_and_noise(tables, x_0, t, noise)
    expected = reference.target("v", x_0.astype(np.float64), t, noise)
    np.testing.assert_allclose(v, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        process.x_0_from_v(tables, x_t, t, v), x_0, atol=2 * unit
    )
    mean, _ = process.q_posterior(tables, x_0, x_t, t)
    back = process.x_0_from_x_prev(tables, x_t, t, mean)
    assert back.shape == shape
    error = np.abs(np.asarray(back) - x_0).reshape(5, -1).max(axis=1)
    assert (error <= unit / reference.c1[t]).all()


def test_pure_noise_at_zero_terminal_snr():
    tables, _ = pair("linear", 50, zero_terminal_snr=True)
    rng = np.random.default_rng(2)
    x_0, noise, estimate = rng.normal(size=(3, 4, 6)).astype(np.float32)
    t = np.full(4, 49, np.int32)
    x_t = process.q_sample(tables, x_0, t, noise)
    np.testing.assert_array_equal(x_t, noise)
    np.testing.assert_array_equal(
        process.noise_from_x_0(tables, x_t, t, estimate), noise
    )
    np.testing.assert_array_equal(process.x_0_from_v(tables, x_t, t, -x_0), x_0)
    np.testing.assert_array_equal(
        process.v_from_x_0_and_noise(tables, x_0, t, noise), -x_0
    )


def test_tables_pass_through_jit_and_keep_their_schedule():
    tables, _ = pair("cosine", 12)
    x_0 = jnp.ones((2, 3))
    t = jnp.array([0, 11])

    @jax.jit
    def compiled(tables, x_0, t):
        assert tables.schedule.num_steps == 12
        return process.q_sample(tables, x_0, t, x_0)

    np.testing.assert_allclose(
        compiled(tables, x_0, t), process.q_sample(tables, x_0, t, x_0), rtol=1e-6
    )
    for leaf in jax.tree.leaves(tables):
        assert leaf.dtype in (jnp.float32, jnp.int32)
        assert not np.isnan(leaf).any()


@pytest.mark.parametrize(
    ("num_steps", "rescale", "spec", "seen"),
    [
        (10, False, "", list(range(10))),
        (10, False, "ddim5", [0, 2, 4, 6, 8]),
        (10, True, "", [100.0 * k for k in range(10)]),
        (4000, True, "2", [0.0, 999.75]),
        (4000, True, 1, [999.75]),
        (1000, True, "ddim4", [0.0, 250.0, 500.0, 750.0]),
    ],
)
def test_the_network_sees_original_timesteps(num_steps, rescale, spec, seen):
    schedule = process.Schedule.from_betas(
        schedules.make_betas("cosine", num_steps), rescale_timesteps=rescale
    )
    tables = process.tables(respacing.respace(schedule, spec))
    seen_by_network = []

    def network(x_t, t_seen):
        seen_by_network.append(np.asarray(t_seen))
        return x_t

    denoise = reverse.denoiser(
        tables, network, prediction="x_0", variance="fixed_small"
    )
    steps = len(seen)
    denoise(jnp.zeros((steps, 1)), jnp.arange(steps))
    np.testing.assert_array_equal(seen_by_network[0], seen)
    kind = np.floating if rescale else np.integer
    assert np.issubdtype(seen_by_network[0].dtype, kind)


def test_an_unknown_floor_is_refused():
    with pytest.raises(errors.Refusal, match="1e-20"):
        process.Schedule.from_betas((0.1, 0.2), log_var_floor="none")


def test_a_respaced_process_is_not_respaced_again():
    schedule = process.Schedule.from_betas(schedules.make_betas("cosine", 30))
    short = respacing.respace(schedule, 5)
    with pytest.raises(errors.Refusal, match="already"):
        respacing.respace(short, 2)
