"""Measurements in memory: what a run can restore, and what is refused."""

import types

import jax
import numpy as np
import pytest

from ddpm_jax import config as config_lib
from ddpm_jax.core import errors
from ddpm_jax.diffusion import operators
from ddpm_jax.editing import measurements
from ddpm_jax.editing import operators as by_name

SHAPE = (8, 8, 1)
FACTS = types.SimpleNamespace(shape=SHAPE, levels=17, class_names=())
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.uniform(-1, 1, (3, *SHAPE)).astype(np.float32)
SMALL = IMAGES.reshape(3, 4, 2, 4, 2, 1).mean(axis=(2, 4))
WITH_NAN = np.where(np.arange(48).reshape(SMALL.shape) == 5, np.nan, SMALL)
NOISE = RANDOM.normal(size=IMAGES.shape).astype(np.float32)


def given(values, operator, **editing):
    config = config_lib.base()
    config.editing.update(editing)
    return measurements.from_arrays(config, FACTS, values, operator)


def test_one_measurement_or_several():
    assert given(SMALL, "superres:2").values.shape == (3, 4, 4, 1)
    assert given(SMALL[0], "superres:2").values.shape == (1, 4, 4, 1)


@pytest.mark.parametrize(
    "operator",
    [
        lambda x: x.mean(axis=1),
        (lambda x: x.mean(axis=1), lambda y: y[:, None].repeat(8, axis=1) / 8),
        operators.transposed(lambda x: x.mean(axis=1), SHAPE),
        types.SimpleNamespace(
            forward=lambda x: x.mean(axis=1),
            adjoint=lambda y: y[:, None].repeat(8, axis=1) / 8,
        ),
    ],
)
def test_operators_of_users(operator):
    found = given(IMAGES.mean(axis=1), operator)
    turns = found.operator.of(np.arange(3))
    np.testing.assert_allclose(turns.forward(IMAGES), IMAGES.mean(axis=1), atol=1e-6)
    adjoint = np.asarray(turns.adjoint(found.values))
    wanted = np.broadcast_to(found.values[:, None] / 8, IMAGES.shape)
    np.testing.assert_allclose(adjoint, wanted, atol=1e-6)


def test_what_lies_in_a_hole_is_not_read():
    hole = np.zeros((1, *SHAPE), bool)
    hole[0, 2:4] = True
    values = np.where(hole, np.nan, IMAGES)
    found = given(values, operators.Mask(hole))
    np.testing.assert_array_equal(found.values, np.where(hole, 0, IMAGES))


def test_a_measurement_of_our_own_has_the_noise_that_is_asked_for():
    config = config_lib.base()
    config.editing.noise = 0.3
    images = np.repeat(IMAGES, 100, axis=0)
    operator = by_name.of_name("superres:2", by_name.Measured(SHAPE, 300))
    noise = measurements.measured(config, operator, images) - SMALL.repeat(100, axis=0)
    count = noise.size
    assert abs(noise.mean()) < 4 * 0.3 / np.sqrt(count)
    assert noise.std() == pytest.approx(0.3, abs=4 * 0.3 / np.sqrt(2 * count))
    # It is that of its seed and number.
    few = measurements.measured(config, operator, images[:2])
    np.testing.assert_array_equal(few, (noise + SMALL.repeat(100, axis=0))[:2])
    config.sampling.seed = 1
    assert np.any(measurements.measured(config, operator, images[:2]) != few)


def test_missing_pixels_are_those_that_are_nan():
    """Whatever seed and share say."""
    holes = RANDOM.random((3, 8, 8, 1)) < 0.3
    found = given(np.where(holes, np.nan, IMAGES), "missing:0.5")
    np.testing.assert_array_equal(found.operator.hole, holes)
    np.testing.assert_array_equal(found.values, np.where(holes, 0, IMAGES))
    kept = measurements.with_nan(found.operator, found.values)
    np.testing.assert_array_equal(kept, np.where(holes, np.nan, IMAGES))


def test_an_object_that_is_no_pytree_is_two_functions_to_a_program():
    class Own:
        def forward(self, x):
            return x.mean(axis=1)

        def adjoint(self, y):
            return y[:, None].repeat(8, axis=1) / 8

        def of(self, turn):
            return self

    found = given(IMAGES.mean(axis=1), Own())
    made = jax.jit(lambda operator, x: operator.forward(x))(found.operator, IMAGES)
    np.testing.assert_allclose(made, IMAGES.mean(axis=1), atol=1e-6)


def test_a_function_that_is_given_again_compiles_nothing():
    def forward(x):
        return x[:, ::2]

    traced = []

    @jax.jit
    def chain(operator, y):
        traced.append(1)
        return operator.adjoint(y)

    for _ in range(2):
        chain(given(IMAGES[:, ::2], forward).operator, IMAGES[:, ::2])
    assert len(traced) == 1


def test_results_are_measured_again_in_their_turn():
    holes = RANDOM.random((3, *SHAPE)) < 0.5
    found = given(IMAGES, operators.Mask(holes))
    again = found.again(IMAGES.repeat(2, axis=0))
    wanted = np.where(holes, 0, IMAGES).repeat(2, axis=0)
    np.testing.assert_array_equal(again, wanted)


@pytest.mark.parametrize(
    ("values", "operator", "editing", "words"),
    [
        (IMAGES, "superres:2", {}, r"\[3, 8, 8, 1\].*makes \[4, 4, 1\]"),
        (SMALL[:0], "superres:2", {}, r"shape \[0, 4, 4, 1\]"),
        (SMALL[0, 0, 0, 0], "superres:2", {}, r"shape \[1\]"),
        (SMALL.astype(int), "superres:2", {}, "int64.*floats"),
        ([SMALL[0], SMALL[1, :2]], "superres:2", {}, "several shapes"),
        (WITH_NAN, "superres:2", {}, "1 of 16"),
        (np.where(SMALL > 0, np.inf, SMALL), "superres:2", {}, "NaN or infinite"),
        (NOISE, "blur:1.5", {}, "noise=0: blur:1.5 makes it of no image.*--noise"),
        (NOISE[:, 0], lambda x: 0 * x[:, 0], {}, "of no image"),
        (IMAGES, "denoise", {}, "denoise with editing.noise=0"),
        (IMAGES, "mask", {}, "--mask=FILE"),
        (IMAGES, 3, {}, "operator=3: give a name"),
        (IMAGES, "missing:0.5", {}, "--operator=mask --mask="),
        (IMAGES, operators.Mask(np.ones((8, 8, 1), bool)), {}, r"8, 1\].*hole\[None\]"),
        (IMAGES, operators.Mask(np.ones((1, 8, 8, 1))), {}, r"float64.*hole\[None\]"),
        (IMAGES, operators.Mask(np.ones((1, 8, 4, 1), bool)), {}, r"8, 4, 1\].*give"),
        (IMAGES, operators.Mask(np.zeros((2, *SHAPE), bool)), {}, "2 holes for 3"),
        (IMAGES, (lambda x: x, lambda y: 2 * y), {}, "differ by"),
        (SMALL, "superres:2", {"keep_size": True}, "keep_size"),
    ],
)
def test_refusals(values, operator, editing, words):
    with pytest.raises(errors.Refusal, match=words):
        given(values, operator, **editing)


def test_with_noise_any_measurement_is_possible():
    assert given(NOISE, "blur:1.5", noise=0.1).count == 3


def test_exact_measurements_of_all_operators_are_consistent():
    """Rounded to 8 bits too, as pictures are."""
    for name in ("superres:2", "blur:1.5", "missing:0.5"):
        operator = by_name.of_name(name, by_name.Measured(SHAPE, 3))
        exact = np.asarray(operator.of(np.arange(3)).forward(IMAGES))
        exact = measurements.with_nan(operator, exact)
        assert given(exact, name).count == 3
        assert given(np.rint(exact * 127.5) / np.float32(127.5), name).count == 3
