"""Reconstruction guidance against finite differences and linear algebra in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chains import make_denoiser, make_tables, normals
from editing_stand_ins import IMAGE, IMAGE_HOLE, image_network, potential_gradient

from ddpm_jax.core import errors
from ddpm_jax.diffusion import (
    inpainting,
    operators,
    process,
    reconstruction,
    reverse,
    schedules,
)

SIZE = 6
KEPT = ~IMAGE_HOLE.ravel()
T = np.array([2, 11, 19, 11, 11, 11, 11], np.int32)


def jacobian(f, x, size=1e-6):
    """∂f_i/∂x_j by central differences in float64."""
    columns = [(f(x + size * e) - f(x - size * e)) / (2 * size) for e in np.eye(x.size)]
    return np.stack(columns, axis=-1)


def given():
    tables = make_tables("cosine", 1000, 20)
    x_t, known = normals(7, *IMAGE), normals(7, *IMAGE, seed=1)
    return tables, x_t, known


def expected_shift(tables, x_t, known, t, likelihood, std, scale):
    """What is added to x̂_0 of one image, for "dps" to the mean of the step."""
    time = tables.schedule.timesteps[t]
    alpha_bar = tables.schedule.alpha_bar[t]
    x, y = (np.float64(v).ravel() for v in (x_t, known))

    def estimate(x):
        return potential_gradient(x, time)

    if likelihood == "dps":

        def length(x):
            return np.linalg.norm((y - estimate(x))[KEPT])[None]

        return -scale * jacobian(length, x)[0]
    derivative, residual = jacobian(estimate, x), (y - estimate(x))[KEPT]
    factor = (1 - alpha_bar) / np.sqrt(alpha_bar)
    spread = {"pigdm": (1 - alpha_bar) * np.eye(SIZE), "exact": factor * derivative}
    matrix = spread[likelihood][np.ix_(KEPT, KEPT)] + std**2 * np.eye(KEPT.sum())
    pull = derivative.T[:, KEPT]
    return scale * factor * pull @ np.linalg.solve(matrix, residual)


@pytest.mark.parametrize("likelihood", reconstruction.LIKELIHOODS)
@pytest.mark.parametrize(("prediction", "std"), [("x_0", 0.3), ("x_prev", 0.0)])
def test_the_shift_is_that_of_finite_differences(prediction, likelihood, std):
    tables, x_t, known = given()

    def network(x, t_seen):
        x_0 = image_network(x, t_seen)
        if prediction == "x_0":
            return x_0
        return process.q_posterior_mean(tables, x_0, x, jnp.asarray(T))

    denoise = make_denoiser(tables, network, prediction=prediction)
    transform = inpainting.reconstruction(
        tables,
        known,
        IMAGE_HOLE,
        likelihood=likelihood,
        scale=0.7,
        measurement_std=std,
    )
    before = denoise(x_t, T)
    after = jax.jit(transform(denoise))(x_t, T)
    of_mean = likelihood == "dps"
    shift = after.mean - before.mean if of_mean else after.x_0 - before.x_0
    for i, t in enumerate(T):
        wanted = expected_shift(tables, x_t[i], known[i], t, likelihood, std, 0.7)
        tolerance = 2e-3 * np.abs(wanted).max() + 1e-5
        np.testing.assert_allclose(np.ravel(shift[i]), wanted, atol=tolerance)
    # the fields agree with each other
    noise = process.noise_from_x_0(tables, x_t, T, after.x_0)
    mean = process.q_posterior_mean(tables, after.x_0, x_t, T)
    np.testing.assert_allclose(after.noise, noise, atol=1e-5)
    np.testing.assert_allclose(after.mean, mean, atol=1e-4)


@pytest.mark.parametrize("likelihood", reconstruction.LIKELIHOODS)
def test_gradients_are_taken_before_clipping(likelihood):
    tables, x_t, known = given()
    denoise = make_denoiser(tables, image_network)
    hooks = (reverse.clipping(-0.01, 0.01),)  # flat nearly everywhere
    clipped = reverse.denoiser(
        tables,
        image_network,
        prediction="x_0",
        variance="fixed_small",
        x_0_hooks=hooks,
    )
    transform = inpainting.reconstruction(
        tables, known, IMAGE_HOLE, likelihood=likelihood
    )
    free, bounded = transform(denoise)(x_t, T), transform(clipped)(x_t, T)
    if likelihood == "dps":  # the shift comes after clipping, and is the same
        shift = free.mean - denoise(x_t, T).mean
        mean = clipped(x_t, T).mean + shift
        np.testing.assert_allclose(bounded.mean, mean, atol=1e-6)
    else:
        np.testing.assert_array_equal(bounded.x_0, np.clip(free.x_0, -0.01, 0.01))
        mean = process.q_posterior_mean(tables, bounded.x_0, x_t, T)
        np.testing.assert_array_equal(bounded.mean, mean)


@pytest.mark.parametrize("prediction", list(reverse.PREDICTIONS))
def test_hooks_after_the_fact_are_the_hooks(prediction):
    """Also of x_prev, whose mean is the network's own and is not clipped."""
    tables, x_t, _ = given()
    denoise = reverse.denoiser(
        tables,
        image_network,
        prediction=prediction,
        variance="fixed_small",
        x_0_hooks=(reverse.clipping(-0.1, 0.1),),
    )
    whole = denoise(x_t, T)
    later = denoise.hooked(denoise.unhooked(x_t, T), x_t, T)
    for field, expected in whole._asdict().items():
        np.testing.assert_array_equal(getattr(later, field), expected)
    assert np.abs(whole.x_0).max() <= 0.1


def test_another_measurement_than_a_mask():
    """Pairs of pixels are measured as their mean, of another shape than images."""
    tables, x_t, _ = given()
    denoise = make_denoiser(tables, image_network)
    operator = operators.Operator(
        lambda x: x.mean(axis=1)[..., 0],
        lambda y: jnp.repeat(y[:, None, :, None] / 2, 2, axis=1),
    )
    measured = normals(7, 3, seed=4)
    transform = reconstruction.reconstruction(
        tables, operator, measured, likelihood="exact"
    )
    made = transform(denoise)(x_t, T)
    factor = (1 - tables.schedule.alpha_bar) / np.sqrt(tables.schedule.alpha_bar)
    rows = np.hstack([np.eye(3), np.eye(3)]) / 2
    for i, t in enumerate(T):
        x, time = np.float64(x_t[i]).ravel(), tables.schedule.timesteps[t]
        derivative = jacobian(lambda x, time=time: potential_gradient(x, time), x)
        spread = factor[t] * derivative
        residual = measured[i] - rows @ potential_gradient(x, time)
        gain = spread @ rows.T @ np.linalg.inv(rows @ spread @ rows.T)
        wanted = potential_gradient(x, time) + gain @ residual
        np.testing.assert_allclose(np.ravel(made.x_0[i]), wanted, rtol=1e-2, atol=5e-3)


def test_conjugate_gradients_solve_each_image_alone():
    bases = np.linalg.qr(np.float64(normals(4, 5, 5, seed=1)))[0]
    eigenvalues = np.geomspace(1, [1, 3, 30, 100], 5).T
    matrices = np.einsum("bij,bj,bkj->bik", bases, eigenvalues, bases)
    right = normals(4, 5, seed=2) * np.array([1e-3, 1, 1e3, 0], np.float32)[:, None]

    def product(v):
        return jnp.einsum("bij,bj->bi", jnp.asarray(matrices, jnp.float32), v)

    solution = reconstruction.conjugate_gradients(product, jnp.asarray(right), 5)
    exact = np.linalg.solve(matrices, np.float64(right)[..., None])[..., 0]
    scale = np.abs(exact).max(axis=1, keepdims=True) + 1e-30
    np.testing.assert_allclose(solution / scale, exact / scale, atol=2e-3)
    more = reconstruction.conjugate_gradients(product, jnp.asarray(right), 50)
    assert np.all(np.isfinite(more))
    np.testing.assert_array_equal(more[3], 0.0)


def test_a_direction_that_is_not_positive_ends_the_search():
    right = jnp.ones((2, 3))
    signs = jnp.array([[-1.0], [2.0]])
    solution = reconstruction.conjugate_gradients(lambda v: signs * v, right, 5)
    np.testing.assert_allclose(solution, [[0.0] * 3, [0.5] * 3])


@pytest.mark.parametrize("likelihood", reconstruction.LIKELIHOODS)
def test_nothing_is_left_to_explain(likelihood):
    """A residual of 0 changes nothing and is not NaN."""
    tables, x_t, _ = given()
    denoise = make_denoiser(tables, lambda x_t, t_seen: 0.5 * x_t)  # exact in binary
    transform = inpainting.reconstruction(
        tables, 0.5 * x_t, IMAGE_HOLE, likelihood=likelihood
    )
    np.testing.assert_array_equal(transform(denoise)(x_t, T).x_0, 0.5 * x_t)


# ---- refusals ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"likelihood": "bayes"}, "'bayes': choose one of dps, exact, pigdm"),
        ({"likelihood": "exact", "iterations": 0}, "0 iterations .* at least 1"),
        ({"likelihood": "pigdm", "measurement_std": -1.0}, "deviation -1.0: give 0"),
        ({"likelihood": "pigdm", "measurement_std": np.nan}, "deviation nan: give 0"),
    ],
)
def test_what_does_not_exist_is_refused(options, message):
    tables, _, known = given()
    with pytest.raises(errors.Refusal, match=message):
        inpainting.reconstruction(tables, known, IMAGE_HOLE, **options)


def test_pure_noise_at_the_last_step_is_refused():
    betas = np.append(schedules.make_betas("cosine", 10)[:-1], 1.0)
    schedule = process.Schedule.from_betas(betas)
    for likelihood in ("pigdm", "exact"):
        with pytest.raises(errors.Refusal, match="keeps some signal"):
            reconstruction.check_reconstruction(schedule, likelihood=likelihood)
    reconstruction.check_reconstruction(schedule, likelihood="dps")


def test_a_denoiser_that_was_transformed_before_is_refused():
    tables, _, known = given()
    transform = inpainting.reconstruction(tables, known, IMAGE_HOLE, likelihood="dps")
    with pytest.raises(errors.Refusal, match="first denoiser transform"):
        transform(lambda x_t, t: None)
