"""Chains against float64, where they are known exactly, and their special cases."""

import itertools

import chex
import jax.numpy as jnp
import numpy as np
import pytest
from chains import SHAPE, STEPS, make_denoiser, make_tables, mixing, normals, run
from reference import process as ref_process
from reference import reverse as ref_reverse
from reference import samplers as ref_samplers

from ddpm_jax.diffusion import (
    guidance,
    process,
    reverse,
    samplers,
)

# ---- against float64 with recorded noise ---------------------------------------------


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    ("prediction", "variance"),
    [
        ("noise", "fixed_small"),
        ("x_0", "learned_range"),
        ("x_prev", "learned"),
        ("v", "fixed_large"),
    ],
)
def test_chains_with_recorded_noise(prediction, variance, step):
    tables = make_tables("cosine", 100, "ddim20")
    kept = np.array(tables.schedule.timesteps)
    width = 4 if variance.startswith("learned") else 2
    weight = normals(2, width, seed=5).astype(np.float64)
    hooks = (reverse.clipping(-1, 1),)
    denoise = reverse.denoiser(
        tables, mixing(width), prediction=prediction, variance=variance, x_0_hooks=hooks
    )
    draws = normals(20, *SHAPE, seed=1)
    result = run(tables, denoise, STEPS[step], draws=draws)

    reference = ref_process.Process(tables.schedule.betas)

    def predict(x_t, t):
        output = np.tanh(x_t @ weight + kept[t].reshape(-1, 1, 1) / 1000)
        return ref_reverse.reverse(
            reference,
            output,
            x_t,
            t,
            prediction=prediction,
            variance=variance,
            hook=ref_reverse.clip,
        )

    start, wide = normals(*SHAPE).astype(np.float64), draws.astype(np.float64)
    if step == "ancestral":
        expected = ref_samplers.ancestral(reference, predict, start, wide)
    else:
        expected = ref_samplers.ddim(
            reference, predict, start, wide, eta=float(step.removeprefix("ddim"))
        )
    assert result.x_0.dtype == jnp.float32
    np.testing.assert_allclose(result.x_0, expected, rtol=1e-3, atol=1e-4)


# ---- the perfect denoiser ------------------------------------------------------------


@pytest.mark.parametrize("spec", [1, 2, 7, "ddim50", ""])
@pytest.mark.parametrize("step", STEPS)
def test_the_perfect_denoiser_lands_on_x_0(step, spec):
    tables = make_tables("cosine", 100, spec)
    x_0 = jnp.asarray(normals(*SHAPE, seed=9))
    denoise = make_denoiser(tables, lambda x_t, t_seen: x_0)
    np.testing.assert_array_equal(run(tables, denoise, STEPS[step]).x_0, x_0)


@pytest.mark.parametrize("prediction", ["noise", "v", "x_prev"])
@pytest.mark.parametrize("step", ["ancestral", "ddim0", "ddim1"])
def test_the_perfect_denoiser_in_other_words(prediction, step):
    tables = make_tables("linear", 1000, 30)
    x_0 = jnp.asarray(normals(*SHAPE, seed=9))
    kept = jnp.asarray(tables.schedule.timesteps)

    def network(x_t, t_seen):
        t = jnp.searchsorted(kept, t_seen)
        noise = process.noise_from_x_0(tables, x_t, t, x_0)
        if prediction == "noise":
            return noise
        if prediction == "v":
            return process.v_from_x_0_and_noise(tables, x_0, t, noise)
        return process.q_posterior(tables, x_0, x_t, t)[0]

    denoise = make_denoiser(tables, network, prediction=prediction)
    np.testing.assert_allclose(run(tables, denoise, STEPS[step]).x_0, x_0, atol=2e-4)


@pytest.mark.parametrize("step", STEPS)
def test_the_perfect_denoiser_passes_through_the_marginals(step):
    # With x_0 known, every step carries q(x_t | x_0) to q(x_next | x_0), for any η.
    count, x_0 = 20000, 0.6
    tables = make_tables("linear", 1000, 12)
    alpha_bar = tables.schedule.alpha_bar
    denoise = make_denoiser(tables, lambda x_t, t_seen: jnp.full_like(x_t, x_0))
    start = np.sqrt(alpha_bar[-1]) * x_0 + np.sqrt(1 - alpha_bar[-1]) * normals(
        count, 1
    )
    draws = normals(12, count, 1, seed=3)
    positions = (0, 3, 7, 10)
    result = run(
        tables, denoise, STEPS[step], x_T=start, draws=draws, trajectory=positions
    )
    for position, state in zip(positions, result.trajectory, strict=True):
        t = 11 - position - 1
        values = np.asarray(state, np.float64)
        var = 1 - alpha_bar[t]
        error = abs(values.mean() - np.sqrt(alpha_bar[t]) * x_0)
        assert error < 4.5 * np.sqrt(var / count)
        assert abs(values.var() / var - 1) < 4.5 * np.sqrt(2 / count)


# ---- special cases -------------------------------------------------------------------


def test_eta_zero_is_deterministic():
    tables = make_tables("linear", 1000, 10)
    denoise = make_denoiser(tables)
    one, two = (
        run(tables, denoise, samplers.ddim(eta=0.0), draws=normals(10, *SHAPE, seed=s))
        for s in (1, 2)
    )
    np.testing.assert_array_equal(one.x_0, two.x_0)
    noisy = run(tables, denoise, samplers.ddim(eta=0.1))
    assert np.abs(noisy.x_0 - one.x_0).max() > 1e-3


@pytest.mark.parametrize("prediction", ["noise", "x_0", "v"])
def test_eta_one_is_ancestral_with_the_small_variance(prediction):
    # DDIM section 4.1: σ² = β̃, and then the mean is that of the posterior too.
    tables = make_tables("linear", 1000, 15)
    denoise = make_denoiser(tables, prediction=prediction)
    one = run(tables, denoise, samplers.ddim(eta=1.0)).x_0
    two = run(tables, denoise, samplers.ancestral()).x_0
    np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-3 * np.abs(two).max())


@pytest.mark.parametrize("step", ["ancestral", "ddim0.5"])
def test_respacing_to_all_steps_is_no_respacing(step):
    plain = make_tables("cosine", 30)
    results = [
        run(tables, make_denoiser(tables), STEPS[step]).x_0
        for tables in (
            plain,
            *(make_tables("cosine", 30, spec) for spec in (30, "30")),
        )
    ]
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


def test_ddim_over_kept_steps_equals_the_respaced_process():
    # DDIM may jump along the whole process; respacing renumbers the same steps.
    kept = (0, 13, 40, 77, 99)
    whole = make_tables("linear", 100)
    downward = (*reversed(kept), -1)
    path = tuple((t, n, "step") for t, n in itertools.pairwise(downward))
    jumped = run(whole, make_denoiser(whole), samplers.ddim(eta=0.0), path=path)
    alpha_bar = whole.schedule.alpha_bar[list(kept)]
    betas = 1 - alpha_bar / np.append(1.0, alpha_bar[:-1])
    short = process.tables(
        process.Schedule(betas=tuple(betas), timesteps=kept, original_num_steps=100)
    )
    respaced = run(short, make_denoiser(short), samplers.ddim(eta=0.0))
    np.testing.assert_allclose(jumped.x_0, respaced.x_0, rtol=1e-4, atol=1e-5)


def test_conditional_guidance_of_scale_one_and_zero_is_one_branch():
    tables = make_tables("linear", 1000, 8)
    weight = normals(2, 2, seed=5)

    def network(x_t, t_seen, labels):
        return jnp.tanh(x_t @ weight + labels.reshape(-1, 1, 1) / 4)

    labels, null = jnp.arange(4), jnp.full(4, 10)
    for scale, alone in ((1.0, labels), (0.0, null)):
        guided = guidance.classifier_free(network, labels, null, scale)

        def branch(x_t, t_seen, alone=alone):
            return network(x_t, t_seen, alone)

        results = [
            run(tables, make_denoiser(tables, net), samplers.ancestral()).x_0
            for net in (guided, branch)
        ]
        np.testing.assert_array_equal(*results)


# ---- zero terminal SNR ---------------------------------------------------------------


@pytest.mark.parametrize("step", STEPS)
def test_v_prediction_starts_from_pure_noise(step):
    tables = make_tables("linear", 50, zero_terminal_snr=True)
    x_0 = jnp.asarray(normals(*SHAPE, seed=9))

    def network(x_t, t_seen):
        noise = process.noise_from_x_0(tables, x_t, t_seen, x_0)
        return process.v_from_x_0_and_noise(tables, x_0, t_seen, noise)

    denoise = make_denoiser(tables, network, prediction="v")
    result = run(tables, denoise, STEPS[step], trajectory=(0, 25))
    chex.assert_tree_all_finite(result)
    np.testing.assert_allclose(result.trajectory_x_0[0], x_0, atol=1e-5)
    np.testing.assert_allclose(result.x_0, x_0, atol=1e-4)
