"""An exact network passes; untrained, scaled, misled and stale ones are found."""

import gaussian_run
import numpy as np
import pytest
from reference import oracle as ref_oracle
from reference import process as ref_process

from ddpm_jax.diagnosis import findings, measure, predictions

HELD_OUT = gaussian_run.images(gaussian_run.IMAGES, seed=1)
T, U = gaussian_run.timesteps()
ONE, HALF, ZERO = (np.float32(value) for value in (1, 0.5, 0))


@pytest.fixture(scope="module")
def probe():
    return gaussian_run.probe(gaussian_run.network())


@pytest.fixture(scope="module")
def healthy(probe):
    return measure.by_t(probe, ONE, HELD_OUT, {}, T)


# ---- what is measured ----------------------------------------------------------------


def test_errors_are_those_of_the_closed_forms(healthy):
    # E(ε̂ − ε)²: 1 for no noise, u for the mean, u/(1+u) for the best guess; the mean
    # over 64·48 values of squares of normals has the relative standard error √(2/3072).
    best = U / (1 + U)
    wanted = {
        measure.NETWORK: best,
        measure.STRAIGHT: best,
        "no noise": np.ones_like(U),
        "data mean": U,
        # x̂_0 = x_t: ε̂ − ε = (1−√ᾱ)/√(1−ᾱ) · x_t − ε, a sum of image and noise
        "unchanged": unchanged_error(),
    }
    assert healthy.errors.keys() == wanted.keys()
    for name, value in wanted.items():
        found = healthy.errors[name]
        assert found.shape == (16, gaussian_run.IMAGES)
        error = 5 * np.sqrt(2 / HELD_OUT.size)
        # Rounding to grey values adds (2/255)²/12 to the variance of an image.
        np.testing.assert_allclose(found.mean(axis=1), value, rtol=error + 0.02)


def unchanged_error():
    alpha_bar = np.cumprod(1 - gaussian_run.betas())[T]
    signal, rest = np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar)
    second = np.mean(gaussian_run.MEAN**2) + gaussian_run.STD**2
    factor = (1 - signal) / rest
    return (factor * signal) ** 2 * second + (factor * rest - 1) ** 2


def test_the_noise_depends_on_image_and_level_alone(probe):
    index = np.array([3, 3, 7])
    one = probe(ONE, HELD_OUT, {}, index, np.array([5, 50, 5]), np.array([5, 9, 7]))
    other = probe(ONE, HELD_OUT, {}, index[:1], np.array([5]), np.array([5]))
    assert one.errors["no noise"][0] == other.errors["no noise"][0]
    assert len(set(one.errors["no noise"].tolist())) == 3


def test_values_outside_are_counted_beyond_a_margin():
    halves = np.where(np.arange(gaussian_run.MEAN.size) % 4 == 0, 1.4, 0.8)
    image = halves.reshape(1, *gaussian_run.SHAPE).astype(np.float32)

    def perfect(params, x_t, t_seen, condition):
        return x_t  # taken for x̂_0 below

    probe = measure.make_probe(
        gaussian_run.schedule(),
        perfect,
        prediction="x_0",
        variance="fixed_small",
        data=measure.oracle.Gaussian(np.zeros(48), np.ones(48)),
        mesh=measure.sharding.make_mesh(),
        batch_size=8,
    )
    # At t = 0 x_t is the image, but for noise of deviation √β = 0.022.
    zero = np.zeros(1, int)
    found = probe(ONE, image, {}, zero, zero, zero)
    assert found.outside[0] == pytest.approx(0.25)
    np.testing.assert_allclose(found.x_0[0], image[0], atol=0.15)


# ---- denoising -----------------------------------------------------------------------


def test_an_exact_network_is_well(healthy):
    finding = predictions.denoising(T, U, healthy.errors)
    assert finding.verdict == findings.OK, finding
    assert finding.remedy == ""


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.6])
def test_untrained_and_scaled_weights_are_found(probe, scale):
    found = measure.by_t(probe, np.float32(scale), HELD_OUT, {}, T)
    finding = predictions.denoising(T, U, found.errors)
    assert finding.verdict == findings.PROBLEM
    assert "no better than a trivial guess at" in finding.said
    assert "train longer" in finding.remedy


def test_nan_is_named_with_its_timesteps(healthy):
    errors = {name: value.copy() for name, value in healthy.errors.items()}
    errors[measure.NETWORK][4, 9] = np.nan
    finding = predictions.denoising(T, U, errors)
    assert finding.verdict == findings.PROBLEM
    assert f"NaN or infinity at t = {T[4]}" in finding.said


def test_a_network_short_of_a_straight_line_is_watched(healthy):
    errors = dict(healthy.errors)
    errors[measure.NETWORK] = 1.2 * errors[measure.STRAIGHT]
    finding = predictions.denoising(T, 0.9 + 0 * U, errors | trivial(2.0))
    assert finding.verdict == findings.WATCH
    assert "straight line" in finding.said


def test_being_worse_where_nearly_all_is_noise_counts_once_it_is_seen(healthy):
    u = np.linspace(1, 0.01, 16)
    near, seen = 0.5 * u, 0.5 * u
    near[-1], seen[-1] = 2 * u[-1] - 0.011, 2 * u[-1]  # the error of the mean is u
    for value, verdict in ((near, findings.OK), (seen, findings.WATCH)):
        errors = {
            measure.NETWORK: value[:, None],
            measure.STRAIGHT: value[:, None],
            "no noise": np.ones((16, 1)),
            "data mean": u[:, None],
            "unchanged": np.full((16, 1), 9.0),
        }
        assert predictions.denoising(T, u, errors).verdict == verdict


def trivial(value):
    return {name: np.full((16, 1), value) for name in measure.TRIVIAL}


# ---- the right t ---------------------------------------------------------------------


def told(apply, name="linear"):
    probe = gaussian_run.probe(apply, name)
    alpha_bar = np.cumprod(1 - gaussian_run.betas(name))[T]
    u = alpha_bar / (1 - alpha_bar) * gaussian_run.STD**2
    levels = T[predictions.in_band(u)][:5]
    errors = measure.by_given_t(probe, ONE, HELD_OUT[:16], {}, levels, T)
    assert errors.shape == (len(levels), len(T))
    return predictions.noise_level(levels, T, errors, 13)


def test_a_network_told_the_truth_is_well():
    finding = told(gaussian_run.network())
    assert finding.verdict == findings.OK, finding


def test_a_network_of_another_schedule_is_found():
    finding = told(gaussian_run.network("cosine"), "linear")
    assert finding.verdict == findings.PROBLEM
    assert "diffusion.schedule" in finding.remedy


def test_timesteps_in_another_unit_are_found():
    exact = gaussian_run.network()

    def half(params, x, t, condition):
        return exact(params, x, t // 2, condition)

    finding = told(half)
    assert finding.verdict == findings.PROBLEM
    assert "is best when given t =" in finding.said


def test_a_network_that_ignores_t_is_not_misled():
    finding = told(lambda params, x, t, condition: 0 * x)
    assert finding.verdict == findings.OK


# ---- the meaning of the output -------------------------------------------------------


def meaning(probed, name):
    straight = probed.errors[measure.STRAIGHT]
    return predictions.prediction(U, probed.readings, straight, name=name)


def test_every_output_is_read_in_four_ways(healthy):
    assert healthy.readings.keys() == {"noise", "x_0", "x_prev", "v"}
    own = healthy.errors[measure.NETWORK]
    np.testing.assert_array_equal(healthy.readings["noise"], own)


@pytest.mark.parametrize("name", ["x_0", "x_prev", "v"])
def test_another_meaning_is_found(healthy, name):
    finding = meaning(healthy, name)
    assert finding.verdict == findings.PROBLEM
    assert finding.said.startswith("read as noise the output has ")
    assert "diffusion.prediction=noise" in finding.remedy


@pytest.mark.parametrize("name", ["x_0", "x_prev", "v"])
def test_outputs_that_mean_something_else_are_recognised(name):
    reference = ref_process.Process(gaussian_run.betas())
    mean = gaussian_run.MEAN.reshape(-1)
    exact = ref_oracle.Oracle(reference, mean, gaussian_run.STD).optimal(name)
    probe = gaussian_run.probe(gaussian_run.lines(exact))
    probed = measure.by_t(probe, ONE, HELD_OUT, {}, T)
    finding = meaning(probed, "noise")
    assert finding.verdict == findings.PROBLEM
    assert finding.said.startswith(f"read as {name} the output has ")
    assert meaning(probed, name).verdict == findings.OK


@pytest.mark.parametrize("name", ["noise", "x_0", "v"])
def test_an_exact_and_an_untrained_output_mean_nothing_else(probe, healthy, name):
    assert meaning(healthy, "noise").verdict == findings.OK
    untrained = measure.by_t(probe, ZERO, HELD_OUT, {}, T)
    assert meaning(untrained, name).verdict == findings.OK


# ---- raw and averaged weights --------------------------------------------------------


def weights(kind, share, used, other):
    used, other = (np.full((16, 4), value) for value in (used, other))
    return predictions.weights(kind, name="0.99", share=share, used=used, other=other)


def test_an_old_average_that_is_as_good_is_well():
    finding = weights("ema", 0.001, 0.1, 0.1)
    assert finding.verdict == findings.OK
    assert "0.99 holds 0.1 % of the initial weights" in finding.said


def test_an_average_of_the_initial_weights_is_found(probe, healthy):
    # 0.9999^10000 = 0.37; weights that are 0 stand for the start
    stale = measure.by_t(probe, ZERO, HELD_OUT, {}, T)
    used, other = stale.errors[measure.NETWORK], healthy.errors[measure.NETWORK]
    finding = predictions.weights(
        "ema", name="0.9999", share=0.37, used=used, other=other
    )
    assert finding.verdict == findings.PROBLEM
    assert "holds 37 % of the initial weights" in finding.said
    assert "weights=raw" in finding.remedy
    # Whatever the records say, the errors tell.
    finding = predictions.weights(
        "ema", name="0.9999", share=0.0, used=used, other=other
    )
    assert finding.verdict == findings.PROBLEM


@pytest.mark.parametrize(
    ("kind", "share", "used", "verdict", "advice"),
    [
        ("raw", 0.5, 0.1, findings.WATCH, "train longer"),
        ("raw", 0.0, 0.15, findings.WATCH, "weights=ema"),
        ("ema", 0.0, 0.15, findings.WATCH, "weights=raw"),
        ("ema", 0.0, 0.25, findings.PROBLEM, "weights=raw"),
        ("ema", 0.0, np.nan, findings.PROBLEM, "weights=raw"),
        ("ema", 0.0, 0.05, findings.OK, ""),
    ],
)
def test_worse_weights_are_named_with_the_better_ones(
    kind, share, used, verdict, advice
):
    finding = weights(kind, share, used, 0.1)
    assert finding.verdict == verdict
    assert advice in finding.remedy


# ---- clipping ------------------------------------------------------------------------


def test_an_exact_network_stays_in_range(healthy):
    outside = healthy.outside.mean(axis=1)
    assert predictions.clipping(T, U, outside, clip=False).verdict == findings.OK


def test_scaled_weights_leave_the_range(probe):
    outside = measure.by_t(probe, np.float32(20), HELD_OUT, {}, T).outside
    finding = predictions.clipping(T, U, outside.mean(axis=1), clip=True)
    assert finding.verdict != findings.OK


def test_noise_far_outside_asks_for_clipping():
    outside = np.where(U > 1, 0.0, 0.6)
    assert predictions.clipping(T, U, outside, clip=True).verdict == findings.OK
    finding = predictions.clipping(T, U, outside, clip=False)
    assert finding.verdict == findings.PROBLEM
    assert "sampling.clip=True" in finding.remedy


@pytest.mark.parametrize(
    ("largest", "verdict"),
    [(0.0, findings.PROBLEM), (0.01, findings.WATCH), (0.4, findings.OK)],
)
def test_a_network_that_ignores_its_prompt_is_told(largest, verdict):
    by_quarter = {f"sensitivity_q{q}": largest * q / 3 for q in range(4)}
    found = predictions.text({"sensitivity": largest / 2, **by_quarter})
    assert found.verdict == verdict
    assert ("ignores the prompt" in found.said) == (largest == 0)
