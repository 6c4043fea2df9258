"""Training losses, their gradients and weights against the float64 reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import likelihood as ref_likelihood
from reference import losses as ref_losses
from reference import process as ref_process

from ddpm_jax.core import errors
from ddpm_jax.diffusion import losses, process, respacing, schedules

PREDICTIONS = ("noise", "x_0", "x_prev", "v")
FIXED_LOSSES = ("simple", "kl", "rescaled_kl")
LEARNED_LOSSES = ("kl", "rescaled_kl", "hybrid", "rescaled_hybrid")
LOSSES_OF = {
    "fixed_small": FIXED_LOSSES,
    "fixed_large": FIXED_LOSSES,
    "learned": LEARNED_LOSSES,
    "learned_range": LEARNED_LOSSES,
}
LEVELS = 256
T = np.array([0, 0, 1, 20, 120, 249], np.int32)


def pair(spec=250, **options):
    """A respaced process: the factors T′ of the losses must be its own, 250."""
    schedule = process.Schedule.from_betas(
        schedules.make_betas("linear", 2000, **options)
    )
    schedule = respacing.respace(schedule, spec)
    return process.tables(schedule), ref_process.Process(schedule.betas)


def case(reference, prediction, variance, seed=0):
    """Data on the grid and an output a little off its target, as after training."""
    rng = np.random.default_rng(seed)
    x_0 = (rng.integers(0, LEVELS, (len(T), 3, 2, 2)) / 127.5 - 1).astype(np.float32)
    noise = rng.normal(size=x_0.shape).astype(np.float32)
    target = reference.target(
        prediction, x_0.astype(np.float64), T, noise.astype(np.float64)
    )
    output = target + 0.01 * rng.normal(size=x_0.shape)
    if variance.startswith("learned"):
        half = 0.5 * rng.normal(size=x_0.shape)
        if variance == "learned":
            half += reference.posterior_log_var[T].reshape(-1, 1, 1, 1)
        output = np.concatenate([output, half], axis=-1)
    return x_0, noise, output.astype(np.float32)


def close(value, expected, name, scale=1.0):
    # The reference's own float32 inputs: their rounding, 6e-8 of numbers near 1,
    # stands squared over a variance of 1e-4 in the bound.
    np.testing.assert_allclose(
        value, expected, rtol=2e-4, atol=2e-5 * scale, err_msg=name
    )


@pytest.mark.parametrize("variance", LOSSES_OF)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_every_loss(prediction, variance):
    tables, reference = pair()
    x_0, noise, output = case(reference, prediction, variance)
    names = LOSSES_OF[variance]

    @jax.jit
    def compute(output):
        return {
            loss: losses.training_losses(
                tables,
                lambda x_t, t_seen: output,
                x_0,
                T,
                noise,
                prediction=prediction,
                variance=variance,
                loss=loss,
                levels=LEVELS,
            )
            for loss in names
        }

    values = compute(output)
    wide = {
        "x_0": x_0.astype(np.float64),
        "noise": noise.astype(np.float64),
        "t": T,
        "prediction": prediction,
        "variance": variance,
        "levels": LEVELS,
    }
    exact = output.astype(np.float64)
    for loss in names:
        terms = values[loss]
        assert set(terms) >= {"loss", "mse", "vb"}
        for value in terms.values():
            assert value.shape == (len(T),)
            assert value.dtype == jnp.float32
        scale = reference.num_steps if loss == "rescaled_kl" else 1
        expected = ref_losses.per_example(reference, exact, loss=loss, **wide)
        close(terms["loss"], expected, loss, scale)
        error = ref_losses.per_example(reference, exact, loss="simple", **wide)
        close(terms["mse"], error, "mse")
        bound = ref_losses.per_example(reference, exact, loss="kl", **wide)
        close(terms["vb"], bound, "vb")


def package_gradient(tables, x_0, noise, output, **kinds):
    def total(output):
        terms = losses.training_losses(
            tables, lambda x_t, t_seen: output, x_0, T, noise, **kinds
        )
        return jnp.sum(terms["loss"])

    return np.asarray(jax.jit(jax.grad(total))(output), np.float64)


@pytest.mark.parametrize(
    ("prediction", "variance", "loss"),
    [
        *[(prediction, "learned_range", "hybrid") for prediction in PREDICTIONS],
        ("noise", "learned", "rescaled_hybrid"),
        ("x_prev", "learned", "hybrid"),
        ("noise", "learned_range", "kl"),
        ("x_0", "learned", "rescaled_kl"),
        ("v", "fixed_large", "kl"),
        ("noise", "fixed_small", "simple"),
    ],
)
def test_gradients(prediction, variance, loss):
    tables, reference = pair()
    x_0, noise, output = case(reference, prediction, variance)
    kinds = {"prediction": prediction, "variance": variance, "loss": loss}
    gradient = package_gradient(tables, x_0, noise, output, **kinds)
    expected = ref_losses.gradient(
        reference,
        output.astype(np.float64),
        x_0=x_0.astype(np.float64),
        noise=noise.astype(np.float64),
        t=T,
        levels=LEVELS,
        **kinds,
    )
    assert gradient.shape == output.shape
    for half in (slice(0, 2), slice(2, 4)):
        if half.start >= output.shape[-1]:
            continue
        for example in range(len(T)):
            value, truth = gradient[example, ..., half], expected[example, ..., half]
            # Where the bound hardly depends on the output, float32 sees rounding.
            limit = 2e-3 * np.abs(truth).max() + 1e-7 * np.abs(expected).max()
            np.testing.assert_allclose(
                value, truth, atol=limit, rtol=0, err_msg=f"t = {T[example]}"
            )


@pytest.mark.parametrize(
    ("prediction", "loss"),
    [
        *[(prediction, "hybrid") for prediction in PREDICTIONS],
        ("noise", "rescaled_hybrid"),
    ],
)
def test_the_hybrid_stops_exactly_the_mean_half(prediction, loss):
    tables, reference = pair()
    x_0, noise, output = case(reference, prediction, "learned_range")
    kinds = {"prediction": prediction, "variance": "learned_range"}
    gradient = package_gradient(tables, x_0, noise, output, loss=loss, **kinds)
    # Mean half: the squared error alone, 2 (o − target) / number of elements.
    target = reference.target(
        prediction, x_0.astype(np.float64), T, noise.astype(np.float64)
    )
    by_hand = 2 * (output[..., :2].astype(np.float64) - target) / x_0[0].size
    np.testing.assert_allclose(gradient[..., :2], by_hand, rtol=2e-3, atol=1e-7)
    # Variance half: that of the bound alone, with the loss's factor.
    bound = package_gradient(tables, x_0, noise, output, loss="kl", **kinds)
    factor = 250 / 1000 if loss == "rescaled_hybrid" else 1
    np.testing.assert_allclose(
        gradient[..., 2:], factor * bound[..., 2:], rtol=1e-5, atol=1e-8
    )
    assert np.abs(bound[..., 2:]).min(axis=(1, 2, 3)).max() > 0
    assert np.abs(bound[..., :2]).max() > 0


def test_the_gradient_reaches_a_network_through_both_halves():
    # A network of one scale a for the mean and one b for the variance: the hybrid's
    # derivative by a is that of the squared error, by b that of the bound.
    tables, reference = pair()
    x_0, noise, _ = case(reference, "noise", "learned_range")

    def total(scales, loss):
        def network(x_t, t_seen):
            return jnp.concatenate([scales[0] * x_t, scales[1] * x_t], axis=-1)

        return jnp.sum(
            losses.training_losses(
                tables,
                network,
                x_0,
                T,
                noise,
                prediction="noise",
                variance="learned_range",
                loss=loss,
            )["loss"]
        )

    scales = jnp.array([0.3, 0.2])
    gradient = jax.jit(jax.grad(total), static_argnums=1)
    hybrid = gradient(scales, "hybrid")
    x_t = reference.q_sample(x_0.astype(np.float64), T, noise.astype(np.float64))
    error = 2 * (0.3 * x_t - noise) * x_t
    by_mean = ref_likelihood.mean_flat(error).sum()
    assert float(hybrid[0]) == pytest.approx(by_mean, rel=1e-4)
    bound = gradient(scales, "kl")
    assert float(hybrid[1]) == pytest.approx(float(bound[1]), rel=1e-4)
    assert abs(float(bound[0])) > 0


def test_the_network_is_evaluated_once_at_the_original_timesteps():
    tables, reference = pair()
    x_0, noise, output = case(reference, "noise", "learned_range")
    calls = []

    def network(x_t, t_seen):
        calls.append((np.asarray(x_t), np.asarray(t_seen)))
        return jnp.asarray(output)

    losses.training_losses(
        tables,
        network,
        x_0,
        T,
        noise,
        prediction="noise",
        variance="learned_range",
        loss="hybrid",
    )
    ((x_t, t_seen),) = calls
    np.testing.assert_array_equal(t_seen, np.array(tables.schedule.timesteps)[T])
    expected = reference.q_sample(x_0.astype(np.float64), T, noise)
    np.testing.assert_allclose(x_t, expected, rtol=1e-5, atol=1e-6)


# ---- weights -------------------------------------------------------------------------


def weighted(tables, reference, prediction, *, loss="simple", **weighting):
    variance = "fixed_large" if loss == "simple" else "learned_range"
    x_0, noise, output = case(reference, prediction, variance)
    return losses.training_losses(
        tables,
        lambda x_t, t_seen: output,
        x_0,
        T,
        noise,
        prediction=prediction,
        variance=variance,
        loss=loss,
        **weighting,
    )


@pytest.mark.parametrize(
    "weighting",
    [
        {"weighting": "none"},
        {"weighting": "min_snr", "gamma": 5.0},
        {"weighting": "min_snr", "gamma": 1.5},
        {"weighting": "p2", "gamma": 1.0, "k": 1.0},
        {"weighting": "p2", "gamma": 0.5, "k": 2.0},
    ],
)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_weights_of_the_squared_error(prediction, weighting):
    tables, reference = pair()
    terms = weighted(tables, reference, prediction, **weighting)
    expected = np.ones(len(T))
    if weighting["weighting"] != "none":
        expected = ref_losses.weight(reference, T, prediction=prediction, **weighting)
    ratio = np.asarray(terms["loss"]) / np.asarray(terms["mse"])
    np.testing.assert_allclose(ratio, expected, rtol=1e-5)


def test_weights_as_the_papers_print_them():
    tables, reference = pair()
    snr = reference.alpha_bar[T] / reference.noise_var[T]
    printed = {
        ("min_snr", "noise"): np.minimum(snr, 5) / snr,
        ("min_snr", "x_0"): np.minimum(snr, 5),
        ("min_snr", "v"): np.minimum(snr, 5) / (snr + 1),
        ("p2", "noise"): 1 / (1 + snr),
    }
    for (weighting, prediction), expected in printed.items():
        terms = weighted(tables, reference, prediction, weighting=weighting)
        ratio = np.asarray(terms["loss"]) / np.asarray(terms["mse"])
        np.testing.assert_allclose(ratio, expected, rtol=1e-5)


def test_the_hybrids_weight_the_squared_error_only():
    tables, reference = pair()
    terms = weighted(tables, reference, "noise", loss="hybrid", weighting="min_snr")
    weight = ref_losses.weight(
        reference, T, prediction="noise", weighting="min_snr", gamma=5.0
    )
    np.testing.assert_allclose(
        terms["loss"], weight * terms["mse"] + terms["vb"], rtol=1e-5
    )


@pytest.mark.parametrize("weighting", ["none", "min_snr", "p2"])
@pytest.mark.parametrize("prediction", ["v", "x_0"])
def test_weights_are_finite_without_signal(prediction, weighting):
    tables, reference = pair(zero_terminal_snr=True)
    terms = weighted(tables, reference, prediction, weighting=weighting)
    for value in terms.values():
        assert np.isfinite(value).all()


def test_quarters_of_t():
    t = np.array([0, 1, 2, 3, 4, 9, 9, 5], np.int32)
    values = np.arange(1.0, 9.0, dtype=np.float32)
    # ⌊4t/10⌋: 0 0 0 1 1 3 3 2
    sums, counts = losses.quarter_sums(jnp.asarray(values), jnp.asarray(t), 10)
    np.testing.assert_array_equal(sums, [6, 9, 8, 13])
    np.testing.assert_array_equal(counts, [3, 2, 1, 2])


# ---- refusals ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prediction", "variance", "loss", "weighting", "parts"),
    [
        ("noise", "learned", "simple", "none", ["simple", "learned", "hybrid"]),
        ("noise", "learned_range", "simple", "none", ["simple", "hybrid"]),
        ("noise", "fixed_small", "hybrid", "none", ["hybrid", "fixed_small", "simple"]),
        ("v", "fixed_large", "rescaled_hybrid", "none", ["rescaled_hybrid"]),
        ("noise", "fixed_small", "mse", "none", ["mse", "simple", "rescaled_kl"]),
        ("noise", "fixed_small", "simple", "snr", ["snr", "min_snr", "p2"]),
        ("eps", "fixed_small", "simple", "none", ["eps", "noise"]),
        ("noise", "small", "simple", "none", ["small", "fixed_small"]),
        ("noise", "learned", "kl", "min_snr", ["min_snr", "kl"]),
    ],
)
def test_contradictions_are_refused(prediction, variance, loss, weighting, parts):
    tables, _ = pair()
    with pytest.raises(errors.Refusal) as caught:
        losses.training_losses(
            tables,
            lambda x_t, t_seen: x_t,
            jnp.zeros((1, 2)),
            jnp.zeros(1, jnp.int32),
            jnp.zeros((1, 2)),
            prediction=prediction,
            variance=variance,
            loss=loss,
            weighting=weighting,
        )
    for part in parts:
        assert part in str(caught.value)


def test_noise_prediction_without_signal_is_refused():
    tables, _ = pair(zero_terminal_snr=True)
    with pytest.raises(errors.Refusal, match="noise"):
        losses.training_losses(
            tables,
            lambda x_t, t_seen: x_t,
            jnp.zeros((1, 2)),
            jnp.zeros(1, jnp.int32),
            jnp.zeros((1, 2)),
            prediction="noise",
            variance="fixed_small",
            loss="simple",
        )
