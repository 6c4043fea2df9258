"""Noise schedules against the reference and the published numbers (spec G1)."""

import numpy as np
import pytest
from reference import schedules as ref_schedules

from ddpm_jax.core import errors
from ddpm_jax.diffusion import process, schedules


@pytest.mark.parametrize("num_steps", [20, 37, 1000, 4000])
@pytest.mark.parametrize("name", sorted(ref_schedules.BY_NAME))
def test_betas_equal_the_reference(name, num_steps):
    betas = schedules.make_betas(name, num_steps)
    assert betas.dtype == np.float64
    assert betas.shape == (num_steps,)
    expected = ref_schedules.BY_NAME[name](num_steps)
    np.testing.assert_allclose(betas, expected, rtol=1e-9)
    schedule = process.Schedule.from_betas(betas)
    np.testing.assert_allclose(
        schedule.alpha_bar, ref_schedules.alpha_bar(expected), rtol=1e-9, atol=1e-20
    )


def test_no_schedule_is_left_out():
    assert set(schedules.SCHEDULES) - {"custom"} == set(ref_schedules.BY_NAME)


@pytest.mark.parametrize("num_steps", [1, 2, 3, 19])
@pytest.mark.parametrize("name", sorted(set(ref_schedules.BY_NAME) - {"linear"}))
def test_few_steps(name, num_steps):
    betas = schedules.make_betas(name, num_steps)
    np.testing.assert_allclose(betas, ref_schedules.BY_NAME[name](num_steps), rtol=1e-9)


@pytest.mark.parametrize("name", ["linear", "linear_fixed", "quad", "sigmoid"])
def test_ends_can_be_chosen(name):
    ends = {"beta_start": 3e-4, "beta_end": 0.01}
    betas = schedules.make_betas(name, 50, **ends)
    np.testing.assert_allclose(
        betas, ref_schedules.BY_NAME[name](50, **ends), rtol=1e-9
    )


@pytest.mark.parametrize(
    ("name", "t", "beta", "alpha_bar"),
    [
        ("linear", 0, 1e-4, 0.9999),
        ("linear", 1, 1.19919920e-4, 0.999780092),
        ("linear", 499, 0.01004004004, 0.0785872429),
        ("linear", 999, 0.02, 4.03582977e-5),
        ("cosine", 0, 4.12842248e-5, 0.999958716),
        ("cosine", 1, 4.61417527e-5, 0.999912576),
        ("cosine", 499, 0.00314588623, 0.49384359),
        ("cosine", 998, 0.749999, None),
        ("cosine", 999, 0.999, 2.42876691e-9),
    ],
)
def test_published_values(name, t, beta, alpha_bar):
    schedule = process.Schedule.from_betas(schedules.make_betas(name, 1000))
    assert schedule.betas[t] == pytest.approx(beta, rel=1e-6)
    if alpha_bar is not None:
        assert schedule.alpha_bar[t] == pytest.approx(alpha_bar, rel=1e-7)


@pytest.mark.parametrize(
    ("name", "num_steps", "first", "last", "alpha_bar_last"),
    [
        ("linear", 4000, 2.5e-5, 0.005, 4.24665e-5),
        ("cosine", 4000, 9.86582e-6, 0.999, 1.51798e-10),
        ("linear_fixed", 1000, 1e-4, 0.02, 4.03582977e-5),
        ("quad", 1000, 1e-4, 0.02, 7.334e-4),
        ("const", 1000, 0.02, 0.02, 0.98**1000),
        ("warmup10", 1000, 1e-4, 0.02, 4.61e-9),
        ("warmup50", 1000, 1e-4, 0.02, 2.61e-7),
    ],
)
def test_published_ends(name, num_steps, first, last, alpha_bar_last):
    schedule = process.Schedule.from_betas(schedules.make_betas(name, num_steps))
    assert schedule.betas[0] == pytest.approx(first, rel=1e-6)
    assert schedule.betas[-1] == pytest.approx(last, rel=1e-9)
    assert schedule.alpha_bar[-1] == pytest.approx(alpha_bar_last, rel=2e-3)


def test_jsd_erases_the_same_share_at_every_step():
    # 1 − 1/(T − t) telescopes: ᾱ_t = 1 − (t + 1)/T, published as ᾱ_998 = 0.001.
    schedule = process.Schedule.from_betas(schedules.make_betas("jsd", 1000))
    expected = 1 - np.arange(1, 1001) / 1000
    np.testing.assert_allclose(schedule.alpha_bar, expected, atol=1e-12)
    assert schedule.alpha_bar[-1] == 0


def test_the_cap_of_the_cosine_acts_on_the_last_step_only():
    for num_steps in (1000, 4000):
        betas = schedules.make_betas("cosine", num_steps)
        assert np.flatnonzero(betas == 0.999).tolist() == [num_steps - 1]


@pytest.mark.parametrize("name", sorted(set(ref_schedules.BY_NAME) - {"jsd"}))
def test_zero_terminal_snr(name):
    plain = process.Schedule.from_betas(schedules.make_betas(name, 50))
    betas = schedules.make_betas(name, 50, zero_terminal_snr=True)
    moved = process.Schedule.from_betas(betas)
    assert moved.alpha_bar[-1] == 0
    assert moved.alpha_bar[0] == pytest.approx(plain.alpha_bar[0], rel=1e-12)
    # √ᾱ is an affine function of what it was.
    before, after = np.sqrt(plain.alpha_bar), np.sqrt(moved.alpha_bar)
    ratios = np.diff(after) / np.diff(before)
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-6)
    np.testing.assert_allclose(
        betas, ref_schedules.zero_terminal_snr(plain.betas), rtol=1e-7, atol=1e-12
    )


def test_custom_betas_are_taken_as_they_are():
    given = (0.1, 0.5, 0.25, 1.0)
    assert schedules.make_betas("custom", 4, betas=given).tolist() == list(given)


@pytest.mark.parametrize(
    ("name", "num_steps", "options", "names"),
    [
        ("linear", 19, {}, ["19", "20"]),
        ("linear", 1, {}, ["20"]),
        ("cosine", 0, {}, ["0", "1"]),
        ("cosine", -3, {}, ["-3"]),
        ("cosine", 2.5, {}, ["2.5"]),
        ("cosinus", 10, {}, ["cosinus", "cosine", "linear", "custom"]),
        ("linear_fixed", 2, {"beta_end": 1.5}, ["1.5", "(0, 1]", "beta_end"]),
        ("linear_fixed", 10, {"beta_start": 0.0}, ["0", "(0, 1]"]),
        ("linear_fixed", 10, {"beta_start": -0.1}, ["-0.1", "(0, 1]"]),
        ("const", 10, {"beta_end": float("nan")}, ["nan"]),
        ("custom", 3, {"betas": (0.1, 1.2, 0.1)}, ["1.2", "(0, 1]"]),
        ("custom", 3, {"betas": (0.1, 0.2)}, ["3"]),
        ("custom", 3, {}, ["custom", "betas"]),
        ("cosine", 2, {"betas": (0.1, 0.2)}, ["cosine", "custom"]),
        ("cosine", 1, {"zero_terminal_snr": True}, ["1"]),
    ],
)
def test_refusals(name, num_steps, options, names):
    with pytest.raises(errors.Refusal) as caught:
        schedules.make_betas(name, num_steps, **options)
    for part in names:
        assert part in str(caught.value)


@pytest.mark.parametrize("betas", [(), (0.0, 0.1), (0.1, 1.0001), (float("nan"),)])
def test_a_process_refuses_impossible_betas(betas):
    with pytest.raises(errors.Refusal):
        process.Schedule.from_betas(betas)


def test_linear_starts_to_be_possible_at_twenty_steps():
    betas = schedules.make_betas("linear", 20)
    assert betas[-1] == pytest.approx(1.0)
    assert betas[-1] <= 1
