"""Restoration of Gaussian images: chains against the law of their likelihood, and the
true posterior."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from editing_stand_ins import LENGTH, SCHEDULE, respaced, stream
from reference import restoration as ref

from ddpm_jax.diffusion import operators as linear
from ddpm_jax.diffusion import process, reconstruction, reverse, samplers
from ddpm_jax.editing import operators

SHAPE, SIZE = (2, 2, 3), 12
COUNT, STEPS = 5000, 250
NOISE = {"superres:2": 0.0, "blur:0.6": 0.2, "grey": 0.1, "missing:0.5": 0.0}
CASES = [
    ("superres:2", "exact", 25.0),
    ("blur:0.6", "pigdm", 25.0),
    ("grey", "exact", 25.0),
    ("missing:0.5", "exact", 25.0),
    ("missing:0.5", "pigdm", 25.0),
]


def covariance(condition):
    """A covariance with variances from 1 down to 1/condition."""
    random = np.random.default_rng(7).normal(size=(SIZE, SIZE))
    axes = np.linalg.qr(random)[0]
    return axes @ np.diag(np.geomspace(1, 1 / condition, SIZE)) @ axes.T


def operator_of(name):
    return operators.of_name(name, operators.Measured(SHAPE))


def dense(name):
    """A as a matrix, column by column, without rows that measure nothing."""
    basis = np.eye(SIZE, dtype=np.float32).reshape(SIZE, *SHAPE)
    columns = operator_of(name).of(np.zeros(SIZE, int)).forward(basis)
    matrix = np.asarray(columns, np.float64).reshape(SIZE, -1).T
    return matrix, np.any(matrix != 0, axis=1)


@functools.cache
def program(likelihood):
    """One compiled chain of a likelihood: operator, data and noise are given."""

    def chain(tables, matrices, operator, measured, std, iterations, entries, stop):
        def network(x_t, t_seen):
            flat = x_t.reshape(COUNT, SIZE)
            noise = jnp.einsum("ij,bj->bi", matrices[t_seen[0]], flat)
            return noise.reshape(x_t.shape)

        own = operator.of(jnp.zeros(COUNT, jnp.int32))
        guided = reconstruction.reconstruction(
            tables,
            own,
            measured,
            likelihood=likelihood,
            iterations=iterations,
            measurement_std=std,
        )
        denoise = reverse.Denoiser(tables, network, "noise", "fixed_small", ())
        draws = stream(0, (COUNT, *SHAPE))
        loop = samplers.Loop(
            tables,
            guided(denoise),
            samplers.ancestral(),
            draws,
            np.zeros(0, np.int32),
            frozenset((samplers.STEP,)),
        )
        return samplers.run(loop, draws(10**6), entries, stop).x

    return jax.jit(chain)


@functools.cache
def case(name, likelihood, condition):
    """Return samples [COUNT, SIZE], y, A, the covariance of the data and σ_y."""
    data, std = covariance(condition), NOISE[name]
    random = np.random.default_rng(1)
    truth = np.linalg.cholesky(data) @ random.normal(size=SIZE)
    matrix, rows = dense(name)
    y = matrix @ truth + std * random.normal(size=len(matrix)) * rows
    alpha_bar = SCHEDULE.alpha_bar[:, None, None]
    # E[noise | x_t] = √(1−ᾱ) (ᾱ S + (1−ᾱ) I)⁻¹ x_t
    inverse = np.linalg.inv(alpha_bar * data + (1 - alpha_bar) * np.eye(SIZE))
    made = program(likelihood)(
        process.padded_tables(respaced(STEPS), LENGTH),
        np.float32(np.sqrt(1 - alpha_bar) * inverse),
        operator_of(name),
        np.float32(y.reshape(operator_of(name).forward(np.zeros((1, *SHAPE))).shape)),
        np.float32(std),
        np.int32(rows.sum() + 1),
        samplers.entries(samplers.sampling_path(STEPS), LENGTH),
        np.int32(STEPS),
    )
    made = np.asarray(made, np.float64).reshape(COUNT, SIZE)
    return made, y[rows], matrix[rows], data, std


@pytest.mark.parametrize(("name", "likelihood", "condition"), CASES)
def test_samples_have_the_law_of_their_likelihood(name, likelihood, condition):
    made, y, matrix, data, std = case(name, likelihood, condition)
    alpha_bar = respaced(STEPS).alpha_bar
    gain, cov = ref.law(alpha_bar, data, matrix, std, likelihood)
    var, rounding = np.diag(cov), 1e-4
    apart = np.abs(made.mean(axis=0) - gain @ y)
    assert np.all(apart <= 4 * np.sqrt(var / COUNT) + rounding)
    error = np.sqrt((np.outer(var, var) + cov**2) / COUNT)
    assert np.all(np.abs(np.cov(made.T) - cov) <= 4 * error + rounding)


@pytest.mark.parametrize(
    ("name", "likelihood", "condition"), [c for c in CASES if c[1] == "exact"]
)
def test_exact_reaches_the_true_posterior(name, likelihood, condition):
    made, y, matrix, data, std = case(name, likelihood, condition)
    gain, cov = ref.posterior(data, matrix, std)
    error = np.sqrt(np.maximum(np.diag(cov), 0) / COUNT)
    assert np.all(np.abs(made.mean(axis=0) - gain @ y) <= 4 * error + 1e-4)
    off = np.cov(made.T) - cov
    assert np.linalg.norm(off) <= 0.1 * np.linalg.norm(cov)


def test_pigdm_is_another_law_where_data_are_not_white():
    """What the tests above can tell: its mean is off by many standard errors."""
    made, y, matrix, data, std = case("missing:0.5", "pigdm", 25.0)
    gain, cov = ref.posterior(data, matrix, std)
    error = np.sqrt(np.maximum(np.diag(cov), 0) / COUNT)
    assert np.max(np.abs(made.mean(axis=0) - gain @ y) / (error + 1e-4)) > 8


# ---- the last step -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["superres:2", "grey", "missing:0.5"])
def test_the_last_step_leads_to_the_measurement_the_shortest_way(name):
    x = np.random.default_rng(2).normal(size=(3, *SHAPE)).astype(np.float32)
    operator = operator_of(name).of(np.zeros(3, int))
    y = np.asarray(operator.forward(x[::-1].copy()))
    step = linear.projected(operator, y, iterations=3)
    moved = np.asarray(step(x, np.array([4, -1, -1]), None))
    np.testing.assert_array_equal(moved[0], x[0])
    matrix, rows = dense(name)
    way = np.linalg.pinv(matrix[rows])
    for i in (1, 2):
        flat = x[i].ravel().astype(np.float64)
        left = y[i].ravel()[rows] - matrix[rows] @ flat
        np.testing.assert_allclose(moved[i].ravel(), flat + way @ left, atol=1e-5)


def test_a_blur_is_met_to_a_step_of_8_bits_whatever_the_iterations():
    shape, random = (8, 8, 1), np.random.default_rng(3)
    truth = random.uniform(-1, 1, (2, *shape)).astype(np.float32)
    x = random.uniform(-1, 1, (2, *shape)).astype(np.float32)
    blur = operators.of_name("blur:1", operators.Measured(shape))
    y = np.asarray(blur.forward(truth))
    for iterations in (1, 5):
        step = jax.jit(linear.projected(blur, y, iterations=iterations))
        moved = step(x, np.array([-1, -1]), None)
        assert np.sqrt(np.mean((blur.forward(moved) - y) ** 2)) < 1 / 255
        assert np.abs(moved).max() < 3


def test_a_rounded_blur_does_not_break_into_pictures_of_the_rounding():
    """Its matrix keeps 1e-5 of the finest detail: the exact solution is in hundreds."""
    shape, random = (8, 8, 1), np.random.default_rng(3)
    truth = random.uniform(-1, 1, (2, *shape)).astype(np.float32)
    blur = operators.of_name("blur:3", operators.Measured(shape))
    y = np.rint(np.asarray(blur.forward(truth)) * 127.5) / np.float32(127.5)
    step = linear.projected(blur, y, iterations=5)
    moved = np.asarray(step(truth[::-1].copy(), np.array([-1, -1]), None))
    assert np.abs(moved).max() < 3


def test_an_image_that_nothing_was_measured_of_stays():
    operator = linear.Mask(np.ones((1, 1, 1, 1), bool)).of(np.zeros(2, int))
    x = np.ones((2, *SHAPE), np.float32)
    step = linear.projected(operator, np.zeros_like(x), iterations=3)
    np.testing.assert_array_equal(step(x, np.array([-1, -1]), None), x)
