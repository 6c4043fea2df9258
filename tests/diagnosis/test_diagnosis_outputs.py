"""Samples: fresh draws pass; tinted, blurred, noisy and copied ones are found."""

import itertools
import re

import gaussian_run
import numpy as np
import pytest
from reference import oracle as ref_oracle
from reference import process as ref_process

from ddpm_jax.diagnosis import findings, measure, outputs
from ddpm_jax.runtime import sharding
from ddpm_jax.sampling import recipe as recipe_lib

REAL = gaussian_run.images(64, seed=3)
FRESH = gaussian_run.images(64, seed=4)


# ---- colour and detail ---------------------------------------------------------------


def test_fresh_draws_are_well():
    for check in (outputs.colour, outputs.detail):
        finding = check(FRESH, REAL)
        assert finding.verdict == findings.OK, finding


@pytest.mark.parametrize(
    ("shift", "verdict"), [(0.25, findings.WATCH), (0.5, findings.PROBLEM)]
)
@pytest.mark.parametrize(("channel", "name"), [(0, "red"), (2, "blue")])
def test_a_tint_is_found_and_named(shift, verdict, channel, name):
    tinted = FRESH.copy()
    tinted[..., channel] -= shift * REAL[..., channel].std()
    finding = outputs.colour(tinted, REAL)
    assert finding.verdict == verdict
    assert finding.said.startswith(f"{name} is off by −")


def test_the_numbers_are_those_of_numpy():
    ours, theirs = FRESH[..., :1] + 0.4, REAL[..., :1]
    finding = outputs.colour(ours, theirs)
    a, b = ours.mean(axis=(1, 2, 3)), theirs.mean(axis=(1, 2, 3))
    error = np.sqrt(a.var(ddof=1) / 64 + b.var(ddof=1) / 64)
    shift = (a.mean() - b.mean()) / theirs.std()
    size = (a.mean() - b.mean()) / error
    wanted = f"brightness is off by +{shift:.2f} σ of the data, {size:.1f} standard"
    assert finding.said.startswith(wanted)


def test_a_shift_too_small_to_see_is_well():
    finding = outputs.colour(REAL + 0.05 * REAL.std(), REAL)
    assert finding.verdict == findings.OK


def blurred(images):
    across = (images + np.roll(images, 1, axis=1)) / 2
    return (across + np.roll(across, 1, axis=2)) / 2


def test_blur_and_noise_are_told_apart():
    finding = outputs.detail(blurred(FRESH), REAL)
    assert finding.verdict == findings.PROBLEM
    assert "blurred" in finding.remedy
    noise = np.random.default_rng(5).normal(0, 1, FRESH.shape)
    finding = outputs.detail(FRESH + noise, REAL)
    assert finding.verdict == findings.PROBLEM
    assert "noisy" in finding.remedy
    # Squared differences are 2 s² + (those of the mean)²; noise adds 2·0.49 s².
    finding = outputs.detail(FRESH + 0.7 * gaussian_run.STD * noise, REAL)
    assert finding.verdict == findings.WATCH
    steps = [np.diff(gaussian_run.MEAN, axis=axis).reshape(-1) for axis in (0, 1)]
    usual = 2 * gaussian_run.STD**2 + np.mean(np.concatenate(steps) ** 2)
    wanted = 1 + 2 * 0.49 * gaussian_run.STD**2 / usual
    factor = float(re.search(r"differ (\S+) times", finding.said)[1])
    assert factor == pytest.approx(wanted, rel=0.08)


@pytest.mark.parametrize("check", [outputs.colour, outputs.detail])
def test_nan_samples_are_named(check):
    bad = FRESH.copy()
    bad[5, 0, 0, 0] = np.nan
    finding = check(bad, REAL)
    assert finding.verdict == findings.PROBLEM
    assert "NaN" in finding.said


def test_flat_samples_are_found_and_divide_nothing_by_zero():
    grey = np.zeros_like(FRESH)
    assert outputs.detail(grey, REAL).verdict == findings.PROBLEM


# ---- steps ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("differences", "taken", "verdict", "advice"),
    [
        ([0.4, 0.2, 0.09], 50, findings.OK, ""),
        ([0.4, 0.3, 0.2], 50, findings.WATCH, "steps=100"),
        ([0.9, 0.8, 0.7], 50, findings.PROBLEM, "steps=100"),
        ([0.9, 0.8, 0.7], 150, findings.PROBLEM, "steps=200"),
        ([0.9, 0.8, 0.7], 200, findings.OK, ""),
        ([0.9, 0.2, 0.05], 25, findings.WATCH, "steps=50"),
        ([np.nan, 0.2, 0.05], 25, findings.NOT_CHECKED, ""),
        ([], 25, findings.NOT_CHECKED, ""),
    ],
)
def test_steps_are_judged_by_doubling_them(differences, taken, verdict, advice):
    counts = [12, 25, 50, 100]
    finding = outputs.steps(counts, differences, taken=taken, whole=200)
    assert finding.verdict == verdict
    assert advice in finding.remedy


@pytest.mark.parametrize("steps", [1, 7, 50])
def test_the_walk_is_ddim(steps):
    whole = gaussian_run.schedule()
    recipe = recipe_lib.Recipe(
        schedule=whole,
        prediction="noise",
        variance="fixed_small",
        shape=gaussian_run.SHAPE,
    )
    walk = measure.make_walk(
        recipe, whole, gaussian_run.network(), sharding.make_mesh()
    )
    made = walk(np.float32(1), {}, 64, steps).astype(np.float64)
    kept = [199] if steps == 1 else np.round(np.linspace(0, 199, steps)).astype(int)
    alpha_bar = np.cumprod(1 - gaussian_run.betas())[kept]
    betas = 1 - alpha_bar / np.append(1.0, alpha_bar[:-1])
    law = ref_oracle.Oracle(
        ref_process.Process(betas), gaussian_run.MEAN.reshape(-1), gaussian_run.STD
    ).ddim_law(0.0)
    mean, var = (np.broadcast_to(v, 48).reshape(gaussian_run.SHAPE) for v in law)
    score = (made - mean) / np.sqrt(var)
    if steps == 1:  # nothing but the mean is left of one step
        np.testing.assert_allclose(made.mean(axis=0), mean, atol=0.01)
        return
    assert abs(score.mean()) < 5 / np.sqrt(score.size)
    assert abs(score.var() - 1) < 5 * np.sqrt(2 / score.size)


# ---- copies --------------------------------------------------------------------------

TRAIN = gaussian_run.images(500, seed=6)
HELD_OUT = gaussian_run.images(256, seed=7)


def relative(images):
    return measure.nearest(measure.pool(images), measure.pool(TRAIN)).relative


def judged(samples):
    return outputs.memorising(relative(samples), relative(HELD_OUT), looked_at=500)


def test_nearest_is_that_of_brute_force():
    found = measure.nearest(measure.pool(FRESH[:5]), measure.pool(TRAIN))
    for row in range(5):
        distance = np.sort(
            np.linalg.norm((TRAIN - FRESH[row]).reshape(500, -1), axis=1)
        )
        wanted = distance[0] / distance[1:11].mean()
        assert found.relative[row] == pytest.approx(wanted, rel=1e-4)
    index = measure.nearest(measure.pool(TRAIN[40:45]), measure.pool(TRAIN)).index
    assert index.tolist() == [40, 41, 42, 43, 44]


def test_new_images_are_no_copies():
    assert judged(FRESH).verdict == findings.OK
    # Blur brings pictures closer to all others, not to one.
    assert judged(blurred(FRESH)).verdict == findings.OK


def test_copies_are_found():
    noise = np.random.default_rng(8).normal(0, 0.05, (64, *gaussian_run.SHAPE))
    finding = judged(TRAIN[::7][:64] + noise)
    assert finding.verdict == findings.PROBLEM
    assert finding.said.startswith("64 of 64 samples")


def test_few_copies_among_new_images_are_watched():
    some = FRESH.copy()
    some[:5] = TRAIN[:5]
    finding = judged(some)
    assert finding.verdict == findings.WATCH
    assert finding.said.startswith("5 of 64")
    some[2:5] = FRESH[2:5]  # two may be chance: (64/320)·(63/319) = 0.04
    assert judged(some).verdict == findings.OK


def test_too_few_held_out_images_tell_nothing():
    finding = outputs.memorising(np.zeros(8), np.ones(15), looked_at=5)
    assert finding.verdict == findings.NOT_CHECKED


@pytest.mark.parametrize(("samples", "held_out"), [(3, 2), (4, 3), (2, 5)])
def test_chance_is_that_of_all_orders(samples, held_out):
    orders = set(itertools.permutations("s" * samples + "h" * held_out))
    for count in range(samples + 1):
        wanted = np.mean([set(order[:count]) <= {"s"} for order in orders])
        assert outputs.chance(count, samples, held_out) == pytest.approx(wanted)
