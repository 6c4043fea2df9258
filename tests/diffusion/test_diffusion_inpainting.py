"""Inpainting against the laws of its methods, the true conditional, and by itself."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chains import make_denoiser, make_tables, normals
from editing_stand_ins import (
    IMAGE,
    IMAGE_HOLE,
    SCHEDULE,
    image_network,
    respaced,
    samples,
    stream,
)
from reference import inpainting as ref

from ddpm_jax.core import errors
from ddpm_jax.diffusion import inpainting, process, samplers

RHOS = (0.5, 0.8, 0.95)
Y = 1.0

# ---- samples against the recursion of their method -----------------------------------


def assert_law(made, mean, cov, rounding=2e-5):
    """Mean and variance within 4 standard errors, coordinate by coordinate."""
    var, count = np.diag(cov), len(made)
    assert np.all(
        np.abs(made.mean(axis=0) - mean) <= 4 * np.sqrt(var / count) + rounding
    )
    assert np.all(
        np.abs(made.var(axis=0) - var) <= 4 * var * np.sqrt(2 / count) + rounding
    )


def pasted(mean, cov):
    """The law after the known coordinate was put in."""
    return np.array([Y, mean[1]]), np.diag([0.0, cov[1, 1]])


ETAS = [*itertools.product(RHOS, [None]), (0.8, 0.5)]  # None for ancestral steps


@pytest.mark.parametrize(("rho", "eta"), ETAS)
@pytest.mark.parametrize("method", ["replace", "pigdm", "exact"])
def test_samples_have_the_law_of_their_method(method, rho, eta):
    solver = samplers.ancestral() if eta is None else samplers.ddim(eta)
    made = samples(method, rho, Y, num_steps=50, solver=solver)
    law = ref.law(
        respaced(50).alpha_bar, samplers.sampling_path(50), rho, Y, method, eta=eta
    )
    assert_law(made, *pasted(*law))
    np.testing.assert_array_equal(made[:, 0], Y)


@pytest.mark.parametrize(("rho", "eta"), ETAS)
@pytest.mark.parametrize(("resamplings", "jump"), [(4, 1), (3, 7)])
def test_samples_of_repaint_have_its_law(rho, resamplings, jump, eta):
    solver = samplers.ancestral() if eta is None else samplers.ddim(eta)
    path = inpainting.repaint_path(50, resamplings=resamplings, jump=jump)
    made = samples("replace", rho, Y, num_steps=50, path=path, solver=solver)
    law = ref.law(respaced(50).alpha_bar, path, rho, Y, "replace", eta=eta)
    assert_law(made, *law)
    np.testing.assert_array_equal(made[:, 0], Y)


@pytest.mark.parametrize("method", ["pigdm", "exact"])
def test_a_noisy_measurement_is_less_believed(method):
    made = samples(method, 0.8, Y, num_steps=50, measurement_std=0.5)
    law = ref.law(
        respaced(50).alpha_bar,
        samplers.sampling_path(50),
        0.8,
        Y,
        method,
        measurement_std=0.5,
    )
    assert_law(made, *pasted(*law))
    certain = ref.law(
        respaced(50).alpha_bar, samplers.sampling_path(50), 0.8, Y, method
    )
    assert law[0][1] < certain[0][1] - 0.1


def test_dps_takes_the_published_steps():
    """x_{t−1} = μ + σ z − ζ ∇‖y − A x̂_0‖ in float64 with the same noise, ζ = 1."""
    made = samples("dps", 0.8, Y, num_steps=50, count=500)
    alpha_bar, draw = respaced(50).alpha_bar, stream(0, (500, 2))
    x = np.float64(draw(10**6))
    for position, (t, t_next, _) in enumerate(samplers.sampling_path(50)):
        now, then = alpha_bar[t], 1.0 if t_next < 0 else alpha_bar[t_next]
        matrix, _ = ref.estimate(now, 0.8, Y, "dps", 0.0)
        of_x_0, of_x_t, added = ref.move(now, then, None)
        x_0 = x @ matrix.T
        toward = np.sign(Y - x_0[:, :1]) * matrix[0]
        x = of_x_0 * x_0 + of_x_t * x + np.sqrt(added) * np.float64(draw(position))
        x += toward
    near = np.abs(made[:, 1] - x[:, 1]) < 1e-3  # the sign of ±1e-7 is rounding's
    assert near.mean() > 0.98
    assert abs(x[:, 1].mean() - 0.8) > 0.1  # no sampler of p(x | y)


# ---- against the true conditional ----------------------------------------------------


def off(law, rho):
    """Mean error of the hole in true standard deviations, and its relative variance."""
    mean, var = ref.conditional(rho, Y)
    return (law[0][1] - mean) / np.sqrt(var), law[1][1, 1] / var


def repaint_off(num_steps, rho, **options):
    path = inpainting.repaint_path(num_steps, **options)
    return off(ref.law(respaced(num_steps).alpha_bar, path, rho, Y, "replace"), rho)


def test_replace_is_off_by_half_a_deviation():
    made = samples("replace", 0.8, Y, num_steps=250)
    mean, var = ref.conditional(0.8, Y)
    assert (made[:, 1].mean() - mean) / np.sqrt(var) == pytest.approx(-0.5, abs=0.05)


@pytest.mark.parametrize("rho", RHOS)
def test_repaint_comes_nearer_with_resamplings_and_with_steps(rho):
    errors_of = [
        -repaint_off(250, rho, resamplings=n, jump=1)[0] for n in (1, 2, 5, 10)
    ]
    assert all(more < 0.8 * few for few, more in itertools.pairwise(errors_of))
    variances = [repaint_off(n, rho, resamplings=10, jump=1)[1] for n in (100, 250)]
    assert abs(variances[1] - 1) < abs(variances[0] - 1)


@pytest.mark.parametrize("rho", [0.5, 0.8])
def test_exact_guidance_reaches_the_true_conditional(rho):
    made = samples("exact", rho, Y, num_steps=250)
    mean, var = ref.conditional(rho, Y)
    standard_error = np.sqrt(var / len(made))
    assert abs(made[:, 1].mean() - mean) <= 4 * standard_error
    assert made[:, 1].var() == pytest.approx(var, rel=0.1)
    np.testing.assert_array_equal(made[:, 0], Y)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "relative"), [("small", 0.996), ("large", 1.035)])
def test_ten_resamplings_of_a_thousand_steps(size, relative):
    path = inpainting.repaint_path(1000, resamplings=10, jump=1)
    large = size == "large"
    law = ref.law(SCHEDULE.alpha_bar, path, 0.8, Y, "replace", large=large)
    mean, var = off(law, 0.8)
    assert mean == pytest.approx(-0.053, abs=0.002)
    assert var == pytest.approx(relative, abs=0.002)
    variance = f"fixed_{size}"
    made = samples("replace", 0.8, Y, num_steps=1000, path=path, variance=variance)
    assert_law(made, *law)


# ---- the known region ----------------------------------------------------------------


def test_the_known_region_is_a_draw_of_q():
    tables = make_tables("cosine", 100)
    known, x, noise = (normals(7, *IMAGE, seed=seed) for seed in range(3))
    t = np.array([0, 5, 50, 99, -1, -1, 20], np.int32)
    transform = inpainting.known_region(tables, known, IMAGE_HOLE)
    changed = np.asarray(transform(x, jnp.asarray(t), noise))
    alpha_bar = np.append(tables.schedule.alpha_bar, 1.0)[t].reshape(-1, 1, 1, 1)
    expected = np.sqrt(alpha_bar) * known + np.sqrt(1 - alpha_bar) * noise
    hole = np.broadcast_to(IMAGE_HOLE, x.shape)
    np.testing.assert_array_equal(changed[hole], x[hole])
    np.testing.assert_allclose(changed[~hole], expected[~hole], rtol=1e-5, atol=1e-6)
    at_end = ~hole & (t < 0).reshape(-1, 1, 1, 1)
    np.testing.assert_array_equal(changed[at_end], known[at_end])


def test_known_values_are_pasted_at_the_end_alone():
    known, x = normals(*IMAGE, seed=1), normals(2, *IMAGE)
    changed = inpainting.pasted(known, IMAGE_HOLE)(x, np.array([3, -1]), None)
    np.testing.assert_array_equal(changed[0], x[0])
    np.testing.assert_array_equal(changed[1], np.where(IMAGE_HOLE, x[1], known))


# ---- the path of RePaint -------------------------------------------------------------


def published_times(num_steps, resamplings, jump):
    """The states that RePaint's code goes through, one step at a time."""
    jumps = {j: resamplings - 1 for j in range(0, num_steps - jump, jump)}
    t, times = num_steps, []
    while t >= 1:
        t = t - 1
        times.append(t)
        if jumps.get(t, 0) > 0:
            jumps[t] = jumps[t] - 1
            for _ in range(jump):
                t = t + 1
                times.append(t)
    return [*times, -1]


PATHS = [(250, 10, 10), (250, 1, 10), (20, 4, 1), (20, 3, 7), (20, 2, 19), (2, 5, 1)]


@pytest.mark.parametrize(("num_steps", "resamplings", "jump"), PATHS)
def test_the_path_is_the_published_one(num_steps, resamplings, jump):
    path = inpainting.repaint_path(num_steps, resamplings=resamplings, jump=jump)
    times = [num_steps - 1]
    for t, t_next, kind in path:
        times += [t_next] if kind == "step" else range(t + 1, t_next + 1)
    assert times == published_times(num_steps, resamplings, jump)


@pytest.mark.parametrize(("num_steps", "resamplings", "jump"), [*PATHS, (1, 1, 1)])
def test_evaluations_are_counted(num_steps, resamplings, jump):
    options = {"resamplings": resamplings, "jump": jump}
    path = inpainting.repaint_path(num_steps, **options)
    count = sum(kind == "step" for _, _, kind in path)
    assert inpainting.repaint_evaluations(num_steps, **options) == count


def test_one_resampling_is_the_plain_path():
    path = inpainting.repaint_path(30, resamplings=1, jump=4)
    assert path == samplers.sampling_path(30)


def test_a_path_that_is_data_gives_what_a_fixed_one_gives():
    tables = make_tables("cosine", 20)
    denoise = make_denoiser(tables, image_network)
    known, x_T = normals(7, *IMAGE, seed=1), normals(7, *IMAGE)
    path = inpainting.repaint_path(20, resamplings=3, jump=4)
    draws = jnp.asarray(normals(2, len(path) + 1, 7, *IMAGE, seed=2))
    transform = inpainting.known_region(tables, known, IMAGE_HOLE)
    noise_fns = [lambda k, of=of: draws[of, k] for of in range(2)]
    step = samplers.ddim(0.5)
    fixed = samplers.sample(
        tables,
        denoise,
        step=step,
        x_T=x_T,
        noise_fn=noise_fns[0],
        step_transforms=(transform,),
        transform_noise_fn=noise_fns[1],
        path=path,
    )
    loop = samplers.Loop(
        tables,
        denoise,
        step,
        noise_fns[0],
        np.zeros(0, np.int32),
        frozenset(("step", "renoise")),
        step_transforms=(transform,),
        transform_noise_fns=noise_fns[1:],
    )
    padded = samplers.entries(path, 100)
    traced = jax.jit(lambda *given: samplers.run(loop, x_T, *given).x)
    made = traced(padded, np.int32(len(path)))
    np.testing.assert_allclose(made, fixed.x, atol=1e-6)


# ---- no image depends on its neighbours ----------------------------------------------


def edited(method, x_T, known, draws):
    tables = make_tables("cosine", 100, 12)
    denoise = make_denoiser(tables, image_network)
    options = {"resamplings": 3, "jump": 2} if method == "repaint" else None
    path = inpainting.repaint_path(12, **options) if options else None
    redrawn = method in ("replace", "repaint")
    kind = inpainting.known_region if redrawn else None
    step_transform = (
        kind(tables, known, IMAGE_HOLE)
        if redrawn
        else inpainting.pasted(known, IMAGE_HOLE)
    )
    guidance = [] if redrawn else [
        inpainting.reconstruction(tables, known, IMAGE_HOLE, likelihood=method)
    ]  # fmt: skip
    return samplers.sample(
        tables,
        denoise,
        step=samplers.ancestral(),
        x_T=x_T,
        noise_fn=lambda k: draws[0, k],
        denoiser_transforms=guidance,
        step_transforms=(step_transform,),
        transform_noise_fn=lambda k: draws[1, k],
        path=path,
    ).x


@pytest.mark.parametrize("method", ["replace", "repaint", "dps", "pigdm", "exact"])
def test_image_i_alone_is_image_i_of_seven(method):
    x_T, known = normals(7, *IMAGE), normals(7, *IMAGE, seed=1)
    known[:3] *= 30.0  # neighbours with large residuals
    draws = jnp.asarray(normals(2, 60, 7, *IMAGE, seed=2))
    whole = edited(method, x_T, known, draws)
    alone = edited(method, x_T[4:5], known[4:5], draws[:, :, 4:5])
    np.testing.assert_allclose(alone, whole[4:5], atol=1e-4)
    hole = np.broadcast_to(IMAGE_HOLE, whole.shape)
    np.testing.assert_array_equal(np.asarray(whole)[~hole], known[~hole])


# ---- refusals ------------------------------------------------------------------------


class Remembering:
    """A solver with a history."""

    reads = "score"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resamplings": 0, "jump": 1}, "0 resamplings: choose 1"),
        ({"resamplings": 2, "jump": 0}, "jump of 0 .* 20 steps: choose 1 … 19"),
        ({"resamplings": 2, "jump": 20}, "jump of 20 .* choose 1 … 19"),
        (
            {"resamplings": 2, "jump": 1, "solver": Remembering()},
            "'repaint' with the solver Remembering.*choose "
            "sampling.method=ancestral or ddim",
        ),
    ],
)
def test_what_repaint_cannot_do_is_refused(options, message):
    with pytest.raises(errors.Refusal, match=message):
        inpainting.check_repaint(20, **options)


@pytest.mark.parametrize("solver", [samplers.ancestral(), samplers.ddim(0.5)])
def test_solvers_without_memory_fit(solver):
    inpainting.check_repaint(20, resamplings=5, jump=2, solver=solver)
    tables = process.tables(respaced(20))
    path = inpainting.repaint_path(20, resamplings=5, jump=2)
    samplers.check(20, make_denoiser(tables), solver, path)
