"""Guidance: special cases bit for bit, formulas, and a posterior known exactly."""

import jax.numpy as jnp
import numpy as np
import oracle_network
import pytest
from reference import oracle as ref_oracle

from ddpm_jax.core import errors
from ddpm_jax.diffusion import guidance, process, respacing, reverse, schedules

SHAPE = (3, 4, 2)


def data(seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=SHAPE), jnp.float32)


def wide_network(weight, calls):
    """A network of 2C channels that notes what it was called with."""
    weight = jnp.asarray(np.random.default_rng(weight).normal(size=(2, 4)), jnp.float32)

    def network(x_t, t_seen, labels=None):
        calls.append((x_t, t_seen, labels))
        output = jnp.tanh(x_t @ weight + t_seen.reshape(-1, 1, 1) / 10)
        if labels is not None:
            output = output * (1 + labels.reshape(-1, 1, 1))
        return output

    return network


# ---- output transforms ---------------------------------------------------------------


@pytest.mark.parametrize(("scale", "alone"), [(1, 0), (1.0, 0), (0, 1), (0.0, 1)])
def test_scales_one_and_zero_run_one_network_alone(scale, alone):
    calls = [], []
    networks = [wide_network(seed, calls[seed]) for seed in (0, 1)]
    x_t, t = data(), jnp.array([1, 2, 3])
    expected = networks[alone](x_t, t)
    calls[0].clear()
    calls[1].clear()
    output = guidance.extrapolate(*networks, scale)(x_t, t)
    np.testing.assert_array_equal(output, expected)
    assert len(calls[alone]) == 1
    assert len(calls[1 - alone]) == 0


@pytest.mark.parametrize("scale", [3.0, 0.5, -1.0])
def test_extrapolation_mixes_the_mean_half_only(scale):
    networks = [wide_network(seed, []) for seed in (0, 1)]
    x_t, t = data(), jnp.array([1, 2, 3])
    main, other = (np.asarray(network(x_t, t), np.float64) for network in networks)
    output = guidance.extrapolate(*networks, scale)(x_t, t)
    mean = scale * main[..., :2] + (1 - scale) * other[..., :2]
    np.testing.assert_allclose(output[..., :2], mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(output[..., 2:], main[..., 2:].astype(np.float32))


@pytest.mark.parametrize(("scale", "label"), [(1.0, "real"), (0.0, "null")])
def test_classifier_free_special_cases(scale, label):
    labels = {"real": jnp.array([1, 2, 3]), "null": jnp.array([7, 7, 7])}
    calls = []
    network = wide_network(0, calls)
    x_t, t = data(), jnp.array([1, 2, 3])
    expected = network(x_t, t, labels[label])
    calls.clear()
    guided = guidance.classifier_free(network, labels["real"], labels["null"], scale)
    np.testing.assert_array_equal(guided(x_t, t), expected)
    assert len(calls) == 1
    assert calls[0][0].shape == SHAPE


@pytest.mark.parametrize("scale", [4.0, 0.3])
def test_classifier_free_is_one_batch_of_both(scale):
    labels, null = jnp.array([1, 2, 3]), jnp.array([7, 7, 7])
    calls = []
    network = wide_network(0, calls)
    x_t, t = data(), jnp.array([1, 2, 3])
    conditional = np.asarray(network(x_t, t, labels), np.float64)
    unconditional = np.asarray(network(x_t, t, null), np.float64)
    calls.clear()
    output = guidance.classifier_free(network, labels, null, scale)(x_t, t)
    assert len(calls) == 1
    both_x, both_t, both_labels = calls[0]
    assert both_x.shape == (6, *SHAPE[1:])
    assert sorted(np.asarray(both_labels).tolist()) == [1, 2, 3, 7, 7, 7]
    is_null = np.asarray(both_labels) == 7
    np.testing.assert_array_equal(both_x[is_null], x_t)
    np.testing.assert_array_equal(both_x[~is_null], x_t)
    np.testing.assert_array_equal(both_t[is_null], t)
    np.testing.assert_array_equal(both_t[~is_null], t)
    # GLIDE eq. 8: ε_∅ + s (ε_c − ε_∅)
    mean = unconditional + scale * (conditional - unconditional)
    np.testing.assert_allclose(output[..., :2], mean[..., :2], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(output[..., 2:], conditional[..., 2:], rtol=1e-6)


# ---- classifier guidance -------------------------------------------------------------


def respaced(name="linear", spec="ddim10", rescale=False):
    schedule = process.Schedule.from_betas(
        schedules.make_betas(name, 1000), rescale_timesteps=rescale
    )
    return process.tables(respacing.respace(schedule, spec))


def log_prob(x_t, t_seen):
    """Gradient −(x − 0.5) (1 + t_seen / 1000)."""
    time = 1 + t_seen / 1000
    return -0.5 * jnp.sum((x_t - 0.5) ** 2, axis=(1, 2)) * time


def guide(form, scale=2.5, **options):
    tables = respaced(**options)
    x_t, t = 3 * data(1), jnp.array([0, 4, 9])
    output = data(2)
    plain = reverse.denoiser(
        tables,
        lambda x, _: output,
        prediction="x_0",
        variance="fixed_small",
        x_0_hooks=(reverse.clipping(-1, 1),),
    )(x_t, t)
    transform = guidance.classifier(tables, log_prob, scale, form=form)
    seen = np.array([0, 400, 900]).reshape(-1, 1, 1)
    gradient = -scale * (np.asarray(x_t, np.float64) - 0.5) * (1 + seen / 1000)
    return tables, x_t, t, plain, transform(x_t, t, plain), gradient


@pytest.mark.parametrize("rescale", [False, True])
def test_mean_form(rescale):
    *_, plain, guided, gradient = guide("mean", rescale=rescale)
    mean = np.asarray(plain.mean) + np.asarray(plain.variance) * gradient
    np.testing.assert_allclose(guided.mean, mean, rtol=1e-5, atol=1e-6)
    for field in ("x_0", "noise", "variance", "log_var"):
        np.testing.assert_array_equal(getattr(guided, field), getattr(plain, field))


def test_score_form():
    tables, x_t, t, plain, guided, gradient = guide("score")
    alpha_bar = tables.schedule.alpha_bar[np.asarray(t)].reshape(-1, 1, 1)
    noise = np.asarray(plain.noise) - np.sqrt(1 - alpha_bar) * gradient
    np.testing.assert_allclose(guided.noise, noise, rtol=1e-4, atol=1e-5)
    # x_0 follows from the shifted noise and is not clipped again.
    x_0 = (np.asarray(x_t) - np.sqrt(1 - alpha_bar) * noise) / np.sqrt(alpha_bar)
    np.testing.assert_allclose(guided.x_0, x_0, rtol=1e-4, atol=1e-4)
    assert np.abs(x_0).max() > 1.5
    mean, _ = process.q_posterior(tables, guided.x_0, x_t, t)
    np.testing.assert_allclose(guided.mean, mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(guided.variance, plain.variance)


def test_the_score_form_turns_a_prior_into_a_posterior():
    # x_0 ~ N(m, s²) is observed as y = x_0 + τ ε. The classifier p(y | x_t) is Gaussian
    # and the score of p(x_t | y) is a sum, so the guided estimate must be that of the
    # Gaussian posterior of x_0 given y, at every t.
    tables, oracle = oracle_network.build("linear", 1000, 20)
    tau, observed = 0.4, np.array([0.7, -0.1, -0.5, 0.3])
    line = oracle.optimal("x_0")
    intercept, slope = (jnp.asarray(v, jnp.float32) for v in line)
    spread = jnp.asarray(oracle.residual_var + tau**2, jnp.float32)
    kept = jnp.asarray(tables.schedule.timesteps)

    def observation(x_t, t_seen):
        k = jnp.searchsorted(kept, t_seen)
        error = jnp.asarray(observed, jnp.float32) - (intercept[k] + slope[k] * x_t)
        return jnp.sum(-0.5 * error**2 / spread[k], axis=1)

    t = jnp.arange(20)
    x_t = jnp.asarray(np.random.default_rng(0).normal(size=(20, 4)), jnp.float32)
    plain = reverse.denoiser(
        tables,
        oracle_network.network(tables, oracle, "noise"),
        prediction="noise",
        variance="fixed_small",
    )(x_t, t)
    transform = guidance.classifier(tables, observation, 1.0, form="score")
    guided = transform(x_t, t, plain)

    precision = 1 / oracle.data_var + 1 / tau**2
    mean = (oracle.mean / oracle.data_var + observed / tau**2) / precision
    posterior = ref_oracle.Oracle(oracle.process, mean, np.sqrt(1 / precision))
    for field, prediction in (("noise", "noise"), ("x_0", "x_0"), ("mean", "x_prev")):
        best = posterior.optimal(prediction)
        np.testing.assert_allclose(
            getattr(guided, field),
            best.intercept + best.slope * np.asarray(x_t),
            rtol=2e-4,
            atol=2e-4,
            err_msg=field,
        )


def test_scale_zero_changes_nothing_that_matters():
    for form in ("mean", "score"):
        *_, plain, guided, _ = guide(form, scale=0.0)
        for field in plain._fields:
            np.testing.assert_allclose(
                getattr(guided, field), getattr(plain, field), rtol=1e-4, atol=1e-5
            )


def test_an_unknown_form_is_refused():
    with pytest.raises(errors.Refusal) as caught:
        guidance.classifier(respaced(), log_prob, 1.0, form="noise")
    for part in ("noise", "mean", "score"):
        assert part in str(caught.value)


def test_score_form_without_signal_is_refused():
    tables = respaced("jsd", "")
    with pytest.raises(errors.Refusal, match="score"):
        guidance.classifier(tables, log_prob, 1.0, form="score")
    guidance.classifier(tables, log_prob, 1.0, form="mean")
