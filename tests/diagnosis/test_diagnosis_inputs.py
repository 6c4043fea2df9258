"""Data, schedule and sampler: sound ones pass, each kind of damage is found."""

import dataclasses

import gaussian_run
import numpy as np
import pytest
from reference import schedules as ref_schedules

from ddpm_jax.diagnosis import findings, inputs, measure
from ddpm_jax.diffusion import process, respacing, solvers
from ddpm_jax.metrics import oracle
from ddpm_jax.runtime import sharding
from ddpm_jax.sampling import naming
from ddpm_jax.sampling import recipe as recipe_lib

WHOLE = gaussian_run.images(300, seed=2)
WHOLE[0, 0, 0], WHOLE[1, 0, 0] = -1.0, 1.0  # black and white are there


def judge(images, *, levels=gaussian_run.LEVELS, same=True):
    seen = measure.statistics(
        gaussian_run.fetch_from(images), len(images), len(images), levels
    )
    return inputs.data(seen, levels=levels, same=same)


# ---- data ----------------------------------------------------------------------------


def test_what_is_seen_is_what_numpy_sees():
    seen = measure.statistics(gaussian_run.fetch_from(WHOLE), 300, 100, 256)
    assert seen.index[[0, -1]].tolist() == [0, 299]
    assert len(seen.index) == 100
    taken = WHOLE[seen.index].astype(np.float64)
    np.testing.assert_allclose(seen.mean, taken.mean(axis=0))
    np.testing.assert_allclose(seen.var, taken.var(axis=0), atol=1e-12)
    np.testing.assert_allclose(seen.channel_mean, taken.mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(seen.channel_std, taken.std(axis=(0, 1, 2)))
    assert (seen.minimum, seen.maximum) == (taken.min(), taken.max())
    assert seen.finite
    assert seen.off_grid == 0
    # 4×4 pixels are not pooled.
    np.testing.assert_array_equal(seen.pooled, taken.reshape(100, -1))


@pytest.mark.parametrize("side", [33, 64, 70])
def test_large_images_are_pooled_to_means_of_blocks(side):
    image = np.random.default_rng(0).normal(size=(2, side, side, 1))
    pooled = measure.pool(image)
    assert pooled.shape[1] <= 32 * 32
    edge = {33: 2, 64: 2, 70: 3}[side]
    np.testing.assert_allclose(
        pooled[:, 0], image[:, :edge, :edge].mean(axis=(1, 2, 3)), rtol=1e-5
    )


def test_sound_data_is_well():
    finding = judge(WHOLE)
    assert finding.verdict == findings.OK, finding
    assert "−1 … 1" in finding.said


def nan(images):
    images[3, 1, 1, 0] = np.nan
    return images


def constant(images):
    images[..., 1] = 1.0
    return images


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda x: x + 0.3, "outside −1 … 1"),
        (lambda x: 127.5 * (x + 1), "outside −1 … 1"),
        (lambda x: 0.9 * x, "none of the 256 grey values"),
        (lambda x: (x + 1) / 2, "none of the 256 grey values"),
        (constant, "channel 1 is constant"),
        (nan, "NaN"),
    ],
)
def test_damaged_data_is_found(damage, said):
    finding = judge(damage(WHOLE.copy()))
    assert finding.verdict == findings.PROBLEM
    assert said in finding.said
    assert finding.remedy


def test_dim_and_other_data_are_watched():
    grey = np.round((WHOLE + 1) * 127.5)
    dim = np.round(grey / 2) / 127.5 - 1  # bytes of 0 … 128
    finding = judge(dim.astype(np.float32))
    assert (finding.verdict, "span only −1 … 0" in finding.said) == ("watch", True)
    finding = judge(WHOLE, same=False)
    assert (finding.verdict, "fingerprint" in finding.said) == ("watch", True)


# ---- schedule ------------------------------------------------------------------------


def of_schedule(betas, spec=""):
    whole = process.Schedule.from_betas(betas)
    kept = respacing.respace(whole, spec)
    return inputs.schedule(
        whole.alpha_bar, kept.alpha_bar, np.asarray(kept.timesteps), name="given"
    )


@pytest.mark.parametrize("spec", ["", 50, "ddim50", 1])
@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_published_schedules_are_well(name, spec):
    finding = of_schedule(ref_schedules.BY_NAME[name](1000), spec)
    assert finding.verdict == findings.OK, finding


def test_the_schedule_of_stable_diffusion_is_watched():
    # Lin et al. 2023 state its terminal SNR as 0.004682.
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    finding = of_schedule(betas)
    assert finding.verdict == findings.WATCH
    assert "SNR = 0.0047" in finding.said
    assert "zero_terminal_snr" in finding.remedy


def test_a_schedule_that_keeps_the_image_is_found():
    # β up to 0.02 in 200 steps: ᾱ ≈ exp(−200·0.01) = 0.13
    finding = of_schedule(ref_schedules.linear_fixed(200))
    assert finding.verdict == findings.PROBLEM
    assert "36 % of the image" in finding.reason


def test_a_respacing_that_leaves_out_the_noise_is_named():
    finding = of_schedule(ref_schedules.linear(1000), "1")  # keeps t = 0 alone
    assert finding.verdict == findings.PROBLEM
    assert "sampling.steps=1 instead" in finding.remedy


# ---- sampler -------------------------------------------------------------------------


def recipe(whole, steps, method="ancestral", temperature=1.0):
    return recipe_lib.Recipe(
        schedule=respacing.respace(whole, steps),
        prediction="v",
        variance="learned_range",
        shape=gaussian_run.SHAPE,
        solver=recipe_lib.part(method),
        settings=(naming.Setting("temperature", temperature, 1.0),),
        hooks=(recipe_lib.part("clip", low=-1.0, high=1.0),),
        guidance=(recipe_lib.part("classifier_free", scale=3.0),),
        condition=(("label", (3, 5)),),
    )


def judged(made, whole):
    deviation = measure.exact_chain(made, whole, sharding.make_mesh())
    return inputs.sampler(
        deviation, method=made.solver.name, steps=made.schedule.num_steps
    )


@pytest.mark.parametrize("method", solvers.SOLVERS)
def test_sound_samplers_are_well(method):
    whole = gaussian_run.schedule()
    assert judged(recipe(whole, 20, method=method), whole).verdict == findings.OK


def test_a_temperature_is_known_to_the_law():
    whole = gaussian_run.schedule()
    cold = recipe(whole, 5, method="ddim", temperature=0.5)
    assert judged(cold, whole).verdict == findings.OK


@pytest.mark.parametrize("method", ["ddim", "heun", "dpmpp_2m", "dpmpp_2s"])
def test_a_chain_from_pure_noise_and_rescaled_timesteps_are_well(method):
    betas = ref_schedules.zero_terminal_snr(gaussian_run.betas())
    whole = process.Schedule.from_betas(betas, rescale_timesteps=True)
    assert whole.alpha_bar[-1] == 0
    assert judged(recipe(whole, 20, method=method), whole).verdict == findings.OK


def test_one_sampler_in_the_place_of_another_is_found(monkeypatch):
    monkeypatch.setitem(solvers.SOLVERS, "ddim", solvers.ancestral)
    whole = gaussian_run.schedule()
    finding = judged(recipe(whole, 10, method="ddim"), whole)
    assert finding.verdict == findings.PROBLEM
    assert "--mode=doctor" in finding.remedy


def test_a_solver_without_a_known_law_is_not_checked(monkeypatch):
    monkeypatch.setitem(solvers.SOLVERS, "walk", solvers.ancestral)
    whole = gaussian_run.schedule()
    finding = judged(recipe(whole, 10, method="walk"), whole)
    assert finding.verdict == findings.NOT_CHECKED
    assert "walk" in finding.said


def test_another_schedule_than_that_of_the_chain_is_found():
    whole, other = gaussian_run.schedule(), gaussian_run.schedule("cosine")
    swapped = dataclasses.replace(
        recipe(whole, 20), schedule=respacing.respace(other, 20)
    )
    assert judged(swapped, whole).verdict == findings.PROBLEM


@pytest.mark.parametrize("deviation", [(np.nan, 0.0), (0.0, np.nan), (0.0, np.inf)])
def test_nan_is_no_small_deviation(deviation):
    finding = inputs.sampler(oracle.Deviation(*deviation), method="ddim", steps=5)
    assert finding.verdict == findings.PROBLEM
