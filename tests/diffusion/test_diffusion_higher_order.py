"""Solvers of second order against float64 from the papers, and the exact flow."""

import functools

import jax
import jax.numpy as jnp
import mixture
import numpy as np
import pytest
from reference import higher_order as reference

from ddpm_jax.core import errors
from ddpm_jax.diffusion import (
    inversion,
    process,
    respacing,
    reverse,
    samplers,
    schedules,
    solvers,
)

NEW = ("heun", "dpmpp_2m", "dpmpp_2s")
COUNT = 64
FIRST, LAST = 5e-5, 0.9999  # ᾱ at T−1 and at 0, about those of DDPM


def make(name):
    return solvers.SOLVERS[name]()


def exact(tables, prediction="x_0"):
    """The denoiser of the mixture, as a network of one of the parameterisations."""
    kept = jnp.asarray(tables.schedule.timesteps)

    def network(x_t, t_seen):
        t = jnp.searchsorted(kept, t_seen)
        x_0 = mixture.x_0(x_t, process.at(tables.alpha_bar, t, x_t), jnp)
        if prediction == "x_0":
            return x_0
        noise = process.noise_from_x_0(tables, x_t, t, x_0)
        if prediction == "noise":
            return noise
        return process.v_from_x_0_and_noise(tables, x_0, t, noise)

    return reverse.denoiser(
        tables, network, prediction=prediction, variance="fixed_small"
    )


def chain(schedule, solver, x_T, path=None, prediction="x_0", draws=None):
    """Return x at the end of a jitted chain in float32."""
    tables = process.tables(schedule)
    draws = np.zeros((1, *x_T.shape)) if draws is None else draws
    draws = jnp.asarray(draws, jnp.float32)

    @jax.jit
    def run(x):
        return samplers.sample(
            tables,
            exact(tables, prediction),
            step=solver,
            x_T=x,
            noise_fn=lambda k: draws[jnp.minimum(k, len(draws) - 1)],
            path=path,
        ).x

    return np.asarray(run(jnp.asarray(x_T, jnp.float32)))


def whole(name="linear", num_steps=1000, **options):
    return process.Schedule.from_betas(schedules.make_betas(name, num_steps, **options))


def spaced(name, steps, spacing, **options):
    return respacing.respace(whole(name, **options), steps, spacing)


def of_levels(levels):
    """The process whose ᾱ, from the noisiest on, are `levels`."""
    alpha_bar = np.asarray(levels)[::-1]
    return process.Schedule.from_betas(1 - alpha_bar / np.append(1, alpha_bar[:-1]))


def uniform_levels(steps):
    """ᾱ at equal distances in log-SNR: `steps` moves from T−1 to 0."""
    ends = [np.log(a / (1 - a)) for a in (FIRST, LAST)]
    return 1 / (1 + np.exp(-np.linspace(*ends, steps + 1)))


@functools.cache
def exact_flow(first, last, steps):
    """Where the flow takes the starts from ᾱ = first to ᾱ = last."""
    x_T = mixture.starts(COUNT)
    return reference.runge_kutta(first, last, mixture.x_0, x_T, steps)


# ---- order ---------------------------------------------------------------------------

ORDERS = {"ddim": 1, "heun": 2, "dpmpp_2m": 2, "dpmpp_2s": 2}


@pytest.mark.parametrize("name", ORDERS)
def test_the_error_at_t_0_falls_with_the_order(name):
    x_T = mixture.starts(COUNT)
    true = exact_flow(FIRST, LAST, 1000)
    np.testing.assert_allclose(exact_flow(FIRST, LAST, 500), true, atol=1e-7)
    counts = np.array([20, 40, 80, 160])
    found = []
    for steps in counts:
        made = reference.SOLVERS[name](uniform_levels(steps), mixture.x_0, x_T)
        found.append(np.sqrt(np.mean((made - true) ** 2)))
    slope = -np.polyfit(np.log(counts), np.log(found), 1)[0]
    assert abs(slope - ORDERS[name]) < 0.25, (slope, found)


@pytest.mark.parametrize("steps", [20, 160])
@pytest.mark.parametrize("name", NEW)
def test_float32_agrees_with_float64(name, steps):
    levels, x_T = uniform_levels(steps), mixture.starts(COUNT)
    path = make(name).path(steps + 1)[:-1]  # without the last denoising
    made = chain(of_levels(levels), make(name), x_T, path)
    wanted = reference.SOLVERS[name](levels, mixture.x_0, x_T)
    np.testing.assert_allclose(made, wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("schedule", "steps", "spacing", "options", "prediction"),
    [
        ("linear", 20, "logsnr", {}, "noise"),
        ("cosine", 9, "logsnr", {}, "v"),
        ("linear", 12, "even", {"zero_terminal_snr": True}, "v"),
        ("linear", 11, "trailing", {"zero_terminal_snr": True}, "x_0"),
        ("jsd", 10, "quadratic", {"num_steps": 40}, "x_0"),
    ],
)
@pytest.mark.parametrize("name", NEW)
def test_whole_chains_on_kept_timesteps(
    name, schedule, steps, spacing, options, prediction
):
    kept, x_T = spaced(schedule, steps, spacing, **options), mixture.starts(COUNT)
    made = chain(kept, make(name), x_T, prediction=prediction)
    levels = kept.alpha_bar[::-1]
    wanted = reference.SOLVERS[name](levels, mixture.x_0, x_T)
    wanted = mixture.x_0(wanted, levels[-1])
    assert np.isfinite(made).all()
    # Errors of x̂_0 from ε̂ where there is little signal grow by 1/√ᾱ.
    np.testing.assert_allclose(made, wanted, atol=2e-4)


def test_twenty_steps_of_2m_are_nearer_to_the_flow_than_fifty_of_ddim():
    x_T, schedule = mixture.starts(COUNT), whole()
    first, last = schedule.alpha_bar[-1], schedule.alpha_bar[0]
    true = exact_flow(first, last, 1000)
    distances = []
    for name, steps, spacing in (("dpmpp_2m", 20, "logsnr"), ("ddim", 50, "even")):
        kept = respacing.respace(schedule, steps, spacing)
        path = make(name).path(steps)[:-1]
        made = chain(kept, make(name), x_T, path)
        distances.append(np.sqrt(np.mean((made - true) ** 2)))
    assert distances[0] < distances[1], distances


# ---- upward --------------------------------------------------------------------------

ENCODERS = {
    "ddim": "reverse_ddim",
    "heun": "reverse_heun",
    "dpmpp_2m": "reverse_dpmpp_2m",
}


def images(count):
    """States at t = 0, where hardly any noise is left."""
    return np.linspace(-1.1, 1.2, count)[:, None]


def encoder(name):
    return solvers.ENCODERS[solvers.ENCODER_OF[name]]()


@pytest.mark.parametrize("name", ENCODERS)
def test_the_error_of_a_latent_falls_with_the_order(name):
    """The formulas hold from smaller to larger noise too."""
    x, last = images(COUNT), 0.99
    true = reference.runge_kutta(last, FIRST, mixture.x_0, x, 4000)
    counts = np.array([40, 80, 160])
    found = []
    for steps in counts:
        ends = [np.log(a / (1 - a)) for a in (last, FIRST)]
        levels = 1 / (1 + np.exp(-np.linspace(*ends, steps + 1)))
        made = reference.SOLVERS[name](levels, mixture.x_0, x)
        found.append(np.sqrt(np.mean((made - true) ** 2)))
    slope = -np.polyfit(np.log(counts), np.log(found), 1)[0]
    assert abs(slope - ORDERS[name]) < 0.4, (slope, found)


@pytest.mark.parametrize("name", ENCODERS)
def test_upward_float32_agrees_with_float64(name):
    kept, x = spaced("linear", 30, "logsnr"), images(COUNT)
    solver = encoder(name)
    made = chain(kept, solver, x, prediction="noise")
    wanted = reference.SOLVERS[name](kept.alpha_bar, mixture.x_0, x)
    np.testing.assert_allclose(made, wanted, atol=2e-4)


@pytest.mark.parametrize(
    ("name", "least"), [("ddim", 15), ("heun", 40), ("dpmpp_2m", 30)]
)
def test_what_is_encoded_comes_back(name, least):
    kept, x = spaced("linear", 100, "logsnr"), images(COUNT)
    latent = chain(kept, encoder(name), x, prediction="noise")
    path = inversion.decoding_path(100, make(name))
    back = chain(kept, make(name), latent, path, prediction="noise")
    psnr = 10 * np.log10(4 / np.mean((back - x) ** 2))
    assert psnr > least


@pytest.mark.parametrize("name", ENCODERS)
def test_the_path_upward_takes_every_step(name):
    path = encoder(name).path(4)
    ends = [(t, n) for t, n, kind in path if kind != "correct"]
    assert ends == [(0, 1), (1, 2), (2, 3)]
    samplers.check(4, None, encoder(name), path)


# ---- halves, history, paths ----------------------------------------------------------


@pytest.mark.parametrize("name", NEW)
def test_moves_of_first_order_are_those_of_ddim_to_the_bit(name):
    kept, x_T = spaced("linear", 8, "even"), mixture.starts(COUNT)
    ends = chain(kept, make(name), x_T, ((7, 6, "step"),))
    np.testing.assert_array_equal(
        ends, chain(kept, solvers.ddim(0.0), x_T, ((7, 6, "step"),))
    )
    if name == "dpmpp_2m":
        return  # its second move has a history
    path = samplers.sampling_path(8)
    np.testing.assert_array_equal(
        chain(kept, make(name), x_T, path), chain(kept, solvers.ddim(0.0), x_T, path)
    )


def test_2m_forgets_what_was_before_noise_was_added():
    kept, x_T = spaced("linear", 8, "even"), mixture.starts(COUNT)
    draws = np.random.default_rng(0).normal(size=(8, *x_T.shape))
    path = ((7, 5, "step"), (5, 3, "step"), (3, 4, "renoise"), (4, 2, "step"))
    made = chain(kept, make("dpmpp_2m"), x_T, path, draws=draws)
    start = chain(kept, make("dpmpp_2m"), x_T, path[:-1], draws=draws)
    wanted = chain(kept, solvers.ddim(0.0), start, path[-1:])
    np.testing.assert_allclose(made, wanted, atol=1e-6)


@pytest.mark.parametrize("name", NEW)
def test_a_path_as_data_changes_no_bit(name):
    kept, x_T = spaced("linear", 8, "even"), mixture.starts(COUNT)
    tables, path = process.tables(kept), make(name).path(8)

    @jax.jit
    def run(x, entries, count):
        loop = samplers.Loop(
            tables,
            exact(tables),
            make(name),
            lambda k: jnp.zeros(x.shape),
            np.zeros(0, np.int32),
            frozenset(kind for _, _, kind in path),
        )
        return samplers.run(loop, x, entries, count).x

    padded = samplers.entries(path, 50)
    made = run(jnp.asarray(x_T, jnp.float32), padded, np.int32(len(path)))
    np.testing.assert_array_equal(made, chain(kept, make(name), x_T))


@pytest.mark.parametrize(
    ("name", "steps", "evaluations"),
    [("heun", 2, 3), ("heun", 7, 13), ("dpmpp_2m", 7, 7), ("dpmpp_2s", 6, 6)],
)
def test_evaluations_are_entries_of_the_path(name, steps, evaluations):
    path = make(name).path(steps)
    assert len(path) == evaluations
    assert path[0][0] == steps - 1
    assert path[-1] == (0, -1, "step")
    samplers.check(steps, None, make(name), path)


@pytest.mark.parametrize(("name", "steps"), [("heun", 1), ("dpmpp_2m", 2)])
def test_too_few_steps_are_refused(name, steps):
    with pytest.raises(errors.Refusal, match=f"{name} with {steps} steps.*'ddim'"):
        make(name).path(steps)


@pytest.mark.parametrize("name", ["heun", "dpmpp_2m"])
def test_encoders_do_not_go_down(name):
    with pytest.raises(errors.Refusal, match="encodes, from t = 3 down to 2"):
        samplers.check(5, None, encoder(name), make(name).path(4)[:2])


@pytest.mark.parametrize(
    ("name", "path", "said"),
    [
        ("heun", ((3, 2, "predict"), (2, 1, "step")), "'predict' and then 'step'"),
        ("heun", ((3, 2, "predict"),), "'predict' and then"),
        ("heun", ((3, 3, "correct"),), "and then 'correct'"),
        ("heun", ((3, 2, "predict"), (2, 1, "correct")), "stays at the timestep"),
        ("dpmpp_2s", ((3, 2, "predict"), (2, 2, "correct")), "goes on downward"),
        ("dpmpp_2s", ((3, 2, "predict"), (2, -1, "correct")), "goes on downward"),
        ("dpmpp_2m", ((2, 3, "step"),), "downward only"),
        ("dpmpp_2m", ((2, 1, "predict"),), "'predict' entry"),
    ],
)
def test_paths_that_are_none_are_refused(name, path, said):
    with pytest.raises(errors.Refusal, match=said):
        samplers.check(5, None, make(name), path)
