"""What guidance samples, against laws that are known exactly.

The data are mixtures of Gaussians or a Gaussian that is observed with noise: score,
posterior and classifier are closed forms, and chains are recursions in float64.
"""

import inspect
import itertools

import chains
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.diffusion import guidance, reverse, samplers, solvers

# ---- a mixture of three Gaussians ----------------------------------------------------

MEANS, STD = np.array([-0.8, 0.1, 0.7]), 0.2
CHOSEN = 2


def lines(tables, mean, var):
    """E[ε | x_t] = intercept + slope · x_t of N(mean, var), [T], float64."""
    schedule = tables.schedule
    signal, spread = np.sqrt(schedule.alpha_bar), np.sqrt(1 - schedule.alpha_bar)
    total = signal**2 * var + spread**2
    return -spread * signal * mean / total, spread / total


def of_class(tables, label):
    intercept, slope = (jnp.float32(v) for v in lines(tables, MEANS[label], STD**2))
    return lambda x, t: intercept[t][:, None] + slope[t][:, None] * x


def log_posterior(tables):
    """(x, k) → log p(class | x_t), [B, 3]; k counts the steps."""
    alpha_bar = tables.schedule.alpha_bar
    total = jnp.float32(alpha_bar * STD**2 + 1 - alpha_bar)
    signal = jnp.float32(np.sqrt(alpha_bar))

    def apply(x, k):
        error = x - signal[k][:, None] * jnp.float32(MEANS)
        return jax.nn.log_softmax(-0.5 * error**2 / total[k][:, None], axis=-1)

    return apply


def of_all(tables):
    posterior = log_posterior(tables)
    each = [of_class(tables, label) for label in range(3)]

    def network(x, t):
        shares = jnp.exp(posterior(x, t))
        values = jnp.concatenate([one(x, t) for one in each], axis=-1)
        return jnp.sum(shares * values, axis=-1, keepdims=True)

    return network


def counted(tables, network):
    """A network of the step's number as one of the original timestep."""
    kept = jnp.asarray(tables.schedule.timesteps)
    return lambda x, seen: network(x, jnp.searchsorted(kept, seen))


def denoiser(tables, network):
    return reverse.denoiser(
        tables, counted(tables, network), prediction="noise", variance="fixed_small"
    )


def classifier(tables, scale, form):
    posterior = log_posterior(tables)
    return guidance.classifier(
        tables,
        counted(tables, lambda x, t: posterior(x, t)[:, CHOSEN]),
        scale,
        form=form,
    )


def run(tables, denoise, step, count, **options):
    x_T = np.random.default_rng(0).normal(size=(count, 1)).astype(np.float32)

    @jax.jit
    def chain(x):
        return samplers.sample(
            tables,
            denoise,
            step=step,
            x_T=x,
            noise_fn=lambda k: jax.random.normal(jax.random.key(k), x.shape),
            **options,
        ).x

    return np.asarray(chain(x_T), np.float64)


def that_read_the_score():
    made = {}
    for name, make in solvers.SOLVERS.items():
        for eta in (0.0, 0.7) if "eta" in inspect.signature(make).parameters else ("",):
            solver = make(eta) if eta != "" else make()
            if solver.reads == "score":
                made[f"{name}{eta}"] = solver
    return made


@pytest.mark.parametrize("num_steps", [10, 50])
@pytest.mark.parametrize("name", that_read_the_score())
def test_an_exact_classifier_of_scale_one_gives_the_conditional_chain(name, num_steps):
    tables = chains.make_tables(spec=num_steps)
    step = that_read_the_score()[name]
    conditional = run(tables, denoiser(tables, of_class(tables, CHOSEN)), step, 64)
    plain = denoiser(tables, of_all(tables))
    transforms = (classifier(tables, 1.0, "score"),)
    guided = run(tables, plain, step, 64, prediction_transforms=transforms)
    np.testing.assert_allclose(guided, conditional, atol=1e-4)
    unguided = run(tables, plain, step, 64)
    assert np.abs(unguided - conditional).max() > 0.5


def mean_form_moments(tables, grid):
    """Mean and deviation of the mean-form chain of the mixture, by densities."""
    schedule = tables.schedule
    alpha_bar = schedule.alpha_bar
    before = np.append(1.0, alpha_bar[:-1])
    beta = 1 - alpha_bar / before
    variance = beta * (1 - before) / (1 - alpha_bar)
    c_0 = beta * np.sqrt(before) / (1 - alpha_bar)
    c_t = np.sqrt(1 - beta) * (1 - before) / (1 - alpha_bar)

    def drift(k):
        signal, total = np.sqrt(alpha_bar[k]), alpha_bar[k] * STD**2 + 1 - alpha_bar[k]
        error = grid[:, None] - signal * MEANS
        logits = -0.5 * error**2 / total
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        x_0 = np.sum(shares * (MEANS + signal * STD**2 / total * error), axis=1)
        scores = -error / total
        gradient = scores[:, CHOSEN] - np.sum(shares * scores, axis=1)
        return c_0[k] * x_0 + c_t[k] * grid + variance[k] * gradient

    density = np.exp(-0.5 * grid**2)
    density /= density.sum()
    for k in range(len(alpha_bar) - 1, 0, -1):
        apart = grid[:, None] - drift(k)[None, :]
        kernel = np.exp(-0.5 * apart**2 / variance[k])
        density = (kernel / kernel.sum(axis=0)) @ density
    end = drift(0)
    mean = np.sum(density * end)
    return mean, np.sqrt(np.sum(density * (end - mean) ** 2))


@pytest.mark.parametrize("num_steps", [50, pytest.param(200, marks=pytest.mark.slow)])
def test_the_mean_form_samples_the_law_of_its_own_chain(num_steps):
    tables = chains.make_tables(spec=num_steps)
    mean, std = mean_form_moments(tables, np.linspace(-5, 5, 1501))
    count = 40_000
    made = run(
        tables,
        denoiser(tables, of_all(tables)),
        samplers.ancestral(),
        count,
        prediction_transforms=(classifier(tables, 1.0, "mean"),),
    )
    assert abs(made.mean() - mean) < 4 * std / np.sqrt(count)
    # The fourth moment of a law near N(0.7, 0.2²) is about that of a Gaussian.
    assert abs(made.std() - std) < 4 * std / np.sqrt(2 * count)
    # It is not yet that of the class: the form is of first order in the steps.
    assert abs(mean - MEANS[CHOSEN]) + abs(std - STD) > 5 * std / np.sqrt(count)


# ---- a Gaussian, observed with noise -------------------------------------------------

PRIOR_VAR, NOISE_VAR, OBSERVED = 1.0, 0.5, 1.0
POSTERIOR_VAR = 1 / (1 / PRIOR_VAR + 1 / NOISE_VAR)
POSTERIOR_MEAN = POSTERIOR_VAR * OBSERVED / NOISE_VAR


def observation(tables):
    """log p(y | x_t) up to a constant: y is Gaussian about E[x_0 | x_t]."""
    alpha_bar = tables.schedule.alpha_bar
    total = alpha_bar * PRIOR_VAR + 1 - alpha_bar
    slope = jnp.float32(np.sqrt(alpha_bar) * PRIOR_VAR / total)
    spread = jnp.float32(PRIOR_VAR * (1 - alpha_bar) / total + NOISE_VAR)

    def log_prob(x, t):
        return -0.5 * (OBSERVED - slope[t] * x[:, 0]) ** 2 / spread[t]

    return log_prob


def of_gaussian(tables, mean, var):
    intercept, slope = (jnp.float32(v) for v in lines(tables, mean, var))
    return lambda x, t: intercept[t][:, None] + slope[t][:, None] * x


def mean_form_law(tables):
    """Mean and variance of the mean-form chain, by its affine recursion."""
    alpha_bar = tables.schedule.alpha_bar
    before = np.append(1.0, alpha_bar[:-1])
    beta = 1 - alpha_bar / before
    variance = beta * (1 - before) / (1 - alpha_bar)
    c_0 = beta * np.sqrt(before) / (1 - alpha_bar)
    c_t = np.sqrt(1 - beta) * (1 - before) / (1 - alpha_bar)
    total = alpha_bar * PRIOR_VAR + 1 - alpha_bar
    slope = np.sqrt(alpha_bar) * PRIOR_VAR / total
    spread = PRIOR_VAR * (1 - alpha_bar) / total + NOISE_VAR
    mean, var = 0.0, 1.0
    for k in range(len(alpha_bar) - 1, -1, -1):
        a = c_0[k] * slope[k] + c_t[k] - variance[k] * slope[k] ** 2 / spread[k]
        b = variance[k] * slope[k] * OBSERVED / spread[k]
        mean, var = a * mean + b, a * a * var + (variance[k] if k else 0.0)
    return mean, var


def test_the_mean_form_comes_nearer_to_the_posterior_with_more_steps():
    distances, count = [], 40_000
    for num_steps in (200, 400, 800):
        tables = chains.make_tables(spec=num_steps)
        log_prob = counted(tables, observation(tables))
        guide = guidance.classifier(tables, log_prob, 1.0, form="mean")
        made = run(
            tables,
            denoiser(tables, of_gaussian(tables, 0.0, PRIOR_VAR)),
            samplers.ancestral(),
            count,
            prediction_transforms=(guide,),
        )
        mean, var = mean_form_law(tables)
        assert abs(made.mean() - mean) < 4 * np.sqrt(var / count)
        assert abs(made.var() - var) < 4 * var * np.sqrt(2 / count)
        distances.append(
            np.hypot(mean - POSTERIOR_MEAN, np.sqrt(var) - np.sqrt(POSTERIOR_VAR))
        )
    for coarse, fine in itertools.pairwise(distances):
        assert 0.75 * 2 < coarse / fine < 1.25 * 2, distances


# ---- what a scale above 1 samples ----------------------------------------------------


def ddim_law(tables, networks, weights):
    """Mean and variance of DDIM with a mix of affine noise predictions, float64."""
    alpha_bar = tables.schedule.alpha_bar
    parts = [lines(tables, *network) for network in networks]
    intercept = sum(w * a for w, (a, _) in zip(weights, parts, strict=True))
    slope = sum(w * b for w, (_, b) in zip(weights, parts, strict=True))
    before = np.append(1.0, alpha_bar[:-1])
    mean, var = 0.0, 1.0
    for k in range(len(alpha_bar) - 1, -1, -1):
        ratio = np.sqrt(before[k] / alpha_bar[k])
        factor = np.sqrt(1 - before[k]) - ratio * np.sqrt(1 - alpha_bar[k])
        a, b = ratio + factor * slope[k], factor * intercept[k]
        mean, var = a * mean + b, a * a * var
    return mean, var


def classifier_free(tables, conditional, unconditional, scale):
    def network(x_t, t_seen, condition):
        k = jnp.searchsorted(jnp.asarray(tables.schedule.timesteps), t_seen)
        one, other = (of_gaussian(tables, *law) for law in (conditional, unconditional))
        return jnp.where(condition["label"][:, None] > 0, one(x_t, k), other(x_t, k))

    def guided(x_t, t_seen):
        labels = {"label": jnp.ones(len(x_t), jnp.int32)}
        nothing = {"label": jnp.zeros(len(x_t), jnp.int32)}
        mixed = guidance.classifier_free(network, labels, nothing, jnp.float32(scale))
        return mixed(x_t, t_seen)

    return reverse.denoiser(tables, guided, prediction="noise", variance="fixed_small")


@pytest.mark.parametrize("scale", [0.5, 2.0, 4.0])
def test_between_gaussians_of_one_covariance_the_scale_moves_the_mean(scale):
    tables, count = chains.make_tables(spec=500), 20_000
    conditional, unconditional = (0.3, 0.09), (-0.1, 0.09)
    denoise = classifier_free(tables, conditional, unconditional, scale)
    made = run(tables, denoise, samplers.ddim(0.0), count)
    mean = -0.1 + scale * 0.4
    assert abs(made.mean() - mean) < 4 * 0.3 / np.sqrt(count) + 0.005
    assert abs(made.std() - 0.3) < 4 * 0.3 / np.sqrt(2 * count) + 0.005
    law = ddim_law(tables, (conditional, unconditional), (scale, 1 - scale))
    assert abs(made.mean() - law[0]) < 4 * np.sqrt(law[1] / count)
    assert abs(law[0] - mean) < 0.005


def test_a_scale_above_one_does_not_sample_the_tilted_law():
    tables, count = chains.make_tables(spec=500), 20_000
    conditional, prior = (POSTERIOR_MEAN, POSTERIOR_VAR), (0.0, PRIOR_VAR)
    denoise = classifier_free(tables, conditional, prior, 2.0)
    made = run(tables, denoise, samplers.ddim(0.0), count)
    mean, var = ddim_law(tables, (conditional, prior), (2.0, -1.0))
    assert abs(made.mean() - mean) < 4 * np.sqrt(var / count)
    assert abs(made.var() - var) < 4 * var * np.sqrt(2 / count)
    np.testing.assert_allclose([mean, np.sqrt(var)], [0.98, 0.33], atol=0.02)
    # p(x) p(y|x)² has the precision 1 + 2/½ and the mean 4/5.
    tilted_mean, tilted_std = 0.8, np.sqrt(0.2)
    assert abs(made.mean() - tilted_mean) > 20 * np.sqrt(var / count)
    assert abs(made.std() - tilted_std) > 20 * np.sqrt(var / count)
    # Classifier guidance of that scale is the same chain.
    guide = guidance.classifier(
        tables, counted(tables, observation(tables)), 2.0, form="score"
    )
    plain = denoiser(tables, of_gaussian(tables, *prior))
    other = run(tables, plain, samplers.ddim(0.0), 64, prediction_transforms=(guide,))
    again = run(tables, denoise, samplers.ddim(0.0), 64)
    np.testing.assert_allclose(other, again, atol=1e-4)


# ---- rescaling -----------------------------------------------------------------------


def test_rescaling_brings_the_deviation_back():
    random = np.random.default_rng(3)
    plain, guided = random.normal(size=(2, 5, 4, 4, 2))
    guided = 3 * guided + 0.5
    for share in (0.0, 0.7, 1.0):
        made = guidance.rescaled(
            jnp.float32(guided), jnp.float32(plain), share=jnp.float32(share)
        )
        for i in range(5):
            ratio = plain[i].std() / guided[i].std()
            expected = share * guided[i] * ratio + (1 - share) * guided[i]
            np.testing.assert_allclose(made[i], expected, rtol=1e-4, atol=1e-5)
