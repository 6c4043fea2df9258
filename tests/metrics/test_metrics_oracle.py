"""The laws of samplers on Gaussian data against the independent reference."""

import numpy as np
import pytest
from reference import higher_order
from reference import oracle as ref_oracle
from reference import process as ref_process
from reference import schedules as ref_schedules

from ddpm_jax.core import errors
from ddpm_jax.diffusion import process, respacing
from ddpm_jax.metrics import oracle

T = 1000


def schedules(name, steps):
    """The package's whole and respaced process, and the oracle of the latter."""
    whole = process.Schedule.from_betas(ref_schedules.BY_NAME[name](T))
    schedule = respacing.respace(whole, steps)
    reference = ref_oracle.Oracle(
        ref_process.Process(schedule.betas), oracle.DATA.mean, np.sqrt(oracle.DATA.var)
    )
    return whole, schedule, reference


@pytest.mark.parametrize("steps", [1, 2, 7, 50, T])
@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_laws_are_those_of_the_reference(name, steps):
    _, schedule, reference = schedules(name, steps)
    small = reference.process.posterior_var[:, None] + np.zeros_like(reference.var)
    wanted = {
        ("ancestral", 0.0): reference.ancestral_law(small),
        ("ddim", 0.0): reference.ddim_law(0.0),
        ("ddim", 0.4): reference.ddim_law(0.4),
        ("ddim", 1.0): reference.ddim_law(1.0),
    }
    for (method, eta), (mean, var) in wanted.items():
        law = oracle.sample_law(oracle.DATA, schedule, method=method, eta=eta)
        np.testing.assert_allclose(law.mean, mean, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(law.var, var, rtol=1e-8)


@pytest.mark.parametrize("steps", [3, 4, 7, 50])
@pytest.mark.parametrize("name", ["linear", "cosine", "zero"])
@pytest.mark.parametrize("method", ["heun", "dpmpp_2m", "dpmpp_2s"])
def test_laws_of_second_order_are_those_of_the_papers(method, name, steps):
    betas = ref_schedules.BY_NAME["linear" if name == "zero" else name](T)
    if name == "zero":
        betas = ref_schedules.zero_terminal_snr(betas)
    schedule = respacing.respace(process.Schedule.from_betas(betas), steps)
    data = oracle.DATA

    def x_0(x, alpha_bar):
        gain = np.sqrt(alpha_bar) * data.var / (alpha_bar * data.var + 1 - alpha_bar)
        return data.mean + gain * (x - np.sqrt(alpha_bar) * data.mean)

    levels = schedule.alpha_bar[::-1]
    chain = higher_order.SOLVERS[method]
    at_0, at_1 = (
        x_0(chain(levels, x_0, np.full(4, value)), levels[-1]) for value in (0.0, 1.0)
    )
    for temperature in (1.0, 0.5):
        law = oracle.sample_law(data, schedule, method=method, temperature=temperature)
        np.testing.assert_allclose(law.mean, at_0, rtol=1e-7, atol=1e-9)
        wanted = np.square((at_1 - at_0) * temperature)
        np.testing.assert_allclose(law.var, wanted, rtol=1e-6)


def test_temperature_scales_the_noise_that_is_left_of_the_start():
    _, schedule, _ = schedules("linear", 5)
    one, half, none = (
        oracle.sample_law(
            oracle.DATA, schedule, method="ancestral", temperature=temperature
        )
        for temperature in (1.0, 0.5, 0.0)
    )
    np.testing.assert_allclose(half.mean, one.mean)
    np.testing.assert_allclose(half.var - none.var, (one.var - none.var) / 4)


def test_many_steps_of_ddim_end_in_the_data():
    _, schedule, _ = schedules("cosine", T)
    law = oracle.sample_law(oracle.DATA, schedule, method="ddim")
    np.testing.assert_allclose(law.mean, oracle.DATA.mean, atol=0.01)
    np.testing.assert_allclose(law.var, oracle.DATA.var, rtol=0.05)


def test_unknown_methods_are_refused():
    _, schedule, _ = schedules("linear", 3)
    with pytest.raises(errors.Refusal, match="'euler'"):
        oracle.sample_law(oracle.DATA, schedule, method="euler")


def test_the_network_is_the_regression_of_the_noise():
    whole, _, reference = schedules("linear", T)
    t = np.array([0, 1, 500, 999])
    x_t = np.random.default_rng(0).normal(size=(4, 2, 3, 4))
    line = reference.optimal("noise")
    wanted = line.intercept[t][:, None, None] + line.slope[t][:, None, None] * x_t
    made = oracle.noise_network(oracle.DATA, whole)(x_t, t)
    np.testing.assert_allclose(made, wanted, rtol=1e-5, atol=1e-6)


def test_deviations_are_counted_in_standard_errors():
    law = oracle.Gaussian(np.array([1.0, -2.0]), np.array([4.0, 0.25]))
    count = 400
    # Two values, so that mean and variance are known: μ ± σ.
    signs = np.tile([1.0, -1.0], count // 2)[:, None]
    exact = law.mean + np.sqrt(law.var) * signs
    assert max(oracle.deviation(exact, law)) < 1e-9
    # Standard errors: of the mean 2/√400 = 0.1, of the variance 0.25·√(2/400).
    moved = exact + np.array([0.3, 0.0])
    assert oracle.deviation(moved, law).mean == pytest.approx(3.0)
    wider = law.mean + np.sqrt(law.var * np.array([1.0, 1.5])) * signs
    assert oracle.deviation(wider, law).var == pytest.approx(0.5 / np.sqrt(2 / 400))


def test_rounding_is_allowed_for_where_the_chain_starts_in_noise():
    _, schedule, _ = schedules("linear", 1)
    law = oracle.Gaussian(np.zeros(1), np.full(1, 1e-16))
    samples = np.full((100, 1), 1e-5)  # the size of float32 rounding over √ᾱ
    assert oracle.deviation(samples, law).mean > 1000
    assert oracle.deviation(samples, law, schedule).mean == 0


def test_samples_that_are_no_numbers_are_infinitely_far():
    _, schedule, _ = schedules("linear", 3)
    law = oracle.sample_law(oracle.DATA, schedule, method="ddim")
    samples = np.tile(law.mean, (8, 1))
    samples[0, 1] = np.nan
    assert oracle.deviation(samples, law) == (np.inf, np.inf)
    assert oracle.deviation(samples, law, schedule) == (np.inf, np.inf)
