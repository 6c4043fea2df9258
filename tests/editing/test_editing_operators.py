"""Measurements by name, against SciPy, Pillow's luminance and plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from ddpm_jax.core import errors
from ddpm_jax.data import decoding
from ddpm_jax.diffusion import operators as linear
from ddpm_jax.editing import operators

SHAPE = (8, 12, 3)
IMAGES = np.random.default_rng(3).normal(size=(2, *SHAPE)).astype(np.float32)
HOLES = np.random.default_rng(4).random((2, *SHAPE[:2])) < 0.5
NAMES = ("superres:2", "superres:4", "blur:1.5", "grey", "missing:0.3", "mask")


def made(name, count=2, seed=0, shape=SHAPE):
    holes = HOLES if name == "mask" else None
    return operators.of_name(name, operators.Measured(shape, count, seed, holes))


def measured(name, images=IMAGES):
    operator = made(name).of(np.arange(len(images)))
    return np.asarray(operator.forward(images))


def test_superres_is_the_mean_of_blocks():
    found = measured("superres:4")
    assert found.shape == (2, 2, 3, 3)
    for row in range(2):
        for column in range(3):
            block = IMAGES[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            wanted = block.mean(axis=(1, 2))
            np.testing.assert_allclose(found[:, row, column], wanted, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.4, 1.5, 5.0])
def test_blur_is_that_of_scipy(sigma):
    wanted = ndimage.gaussian_filter(
        IMAGES.astype(np.float64), (0, sigma, sigma, 0), mode="reflect"
    )
    np.testing.assert_allclose(measured(f"blur:{sigma}"), wanted, atol=1e-6)


def test_grey_is_the_luminance_that_pictures_get():
    colours = np.random.default_rng(5).integers(0, 256, (1, *SHAPE)).astype(np.uint8)
    grey = decoding.convert(colours[0], 1, alpha=False).astype(np.float64)
    found = measured("grey", colours.astype(np.float32))
    assert np.abs(found[0] - grey).max() <= 0.51  # the picture is rounded


def test_missing_pixels_are_a_share_drawn_from_seed_and_image():
    hole = np.asarray(made("missing:0.3", count=3).hole)
    assert hole.shape == (3, 8, 12, 1)
    assert np.all(hole.sum(axis=(1, 2, 3)) == round(0.3 * 96))
    assert np.any(hole[0] != hole[1])
    np.testing.assert_array_equal(made("missing:0.3", count=1).hole, hole[:1])
    assert np.any(np.asarray(made("missing:0.3", seed=1).hole)[0] != hole[0])
    kept = measured("missing:0.3")
    hole = np.broadcast_to(hole[:2], kept.shape)
    np.testing.assert_array_equal(kept[hole], 0)
    np.testing.assert_array_equal(kept[~hole], IMAGES[~hole])


def test_a_mask_is_white_where_nothing_is_known():
    hole = np.broadcast_to(HOLES[..., None], IMAGES.shape)
    np.testing.assert_array_equal(measured("mask"), np.where(hole, 0, IMAGES))


@pytest.mark.parametrize("name", NAMES)
def test_dot_products_agree_in_float64(name):
    operator = made(name).of(np.arange(2))
    with jax.enable_x64(True):
        x = np.random.default_rng(1).normal(size=(2, *SHAPE))
        forward = np.asarray(operator.forward(x))
        y = np.random.default_rng(2).normal(size=forward.shape)
        back = np.asarray(operator.adjoint(y))
    for i in range(2):
        there, here = np.vdot(forward[i], y[i]), np.vdot(x[i], back[i])
        assert there == pytest.approx(here, rel=1e-5)
    linear.check_adjoint(made(name).of(np.zeros(linear.TRIALS, int)), SHAPE)


def mean_of_rows(x):
    return x.mean(axis=1)


PADS = ((0, 0), (0, 1), (0, 0), (0, 0))  # at the other end
WRONG = {
    "a factor is missing": (mean_of_rows, lambda y: y[:, None].repeat(8, axis=1)),
    "another sign": (lambda x: -x, lambda y: y),
    "not linear": linear.transposed(lambda x: x**3 + x, SHAPE),
    "an offset": linear.transposed(lambda x: x + 1, SHAPE),
    "images are mixed": (lambda x: x - x.mean(axis=0), lambda y: y),
    "shifted": (lambda x: x[:, 1:], lambda y: jnp.pad(y, PADS)),
}


@pytest.mark.parametrize("which", WRONG)
def test_another_adjoint_is_refused_with_the_error(which):
    wrong = WRONG[which]
    operator = linear.Operator(*wrong) if isinstance(wrong, tuple) else wrong
    with pytest.raises(errors.Refusal, match=r"differ by \d.* of their size"):
        linear.check_adjoint(operator, SHAPE)


@pytest.mark.parametrize(
    "forward", [mean_of_rows, lambda x: x[:, ::2, 1:] - x[:, 1::2, :-1]]
)
def test_the_adjoint_of_a_linear_function_is_found(forward):
    operator = linear.transposed(forward, SHAPE)
    linear.check_adjoint(operator, SHAPE)
    matrix = np.asarray(forward(np.eye(288, dtype=np.float32).reshape(-1, *SHAPE)))
    matrix = matrix.reshape(288, -1)
    y = np.random.default_rng(2).normal(size=(1, *forward(IMAGES).shape[1:]))
    back = np.asarray(operator.adjoint(y.astype(np.float32)))
    np.testing.assert_allclose(back.ravel(), matrix @ y.ravel(), atol=1e-5)


@pytest.mark.parametrize(
    ("operator", "words"),
    [
        (linear.Operator(lambda x: x.sum(), lambda y: y), "each image alone"),
        (linear.Operator(lambda x: x[:, :2], lambda y: y), "leads back"),
        (linear.Operator(lambda x: x @ np.ones((5, 5)), lambda y: y), "forward.*fails"),
        (linear.Operator(ndimage.sobel, lambda y: y), "JAX arrays"),
    ],
)
def test_functions_that_measure_nothing_are_refused(operator, words):
    with pytest.raises(errors.Refusal, match=words):
        linear.check_adjoint(operator, SHAPE)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "--operator=superres:2"),
        ("sharpen", "unknown operator 'sharpen'.*blur.*superres"),
        ("superres", "superres takes a factor.*superres:2"),
        ("superres:", "takes a factor"),
        ("superres:1", "'1'.*superres:2"),
        ("superres:two", "'two'"),
        ("superres:5", "8x12 have no blocks of 5x5"),
        ("blur:-1", "'-1'.*blur:1.5"),
        ("blur:nan", "'nan'"),
        ("blur:99", "'99'"),
        ("grey:1", "grey takes no value"),
        ("missing:1.5", "'1.5'.*between 0 and 1"),
        ("missing:0.001", "0 of 96 pixels"),
        ("missing:0.999", "96 of 96 pixels"),
    ],
)
def test_other_names_and_values_are_refused(name, words):
    with pytest.raises(errors.Refusal, match=words):
        made(name)


def test_what_the_images_do_not_permit_is_refused():
    with pytest.raises(errors.Refusal, match=r"1 channels.*luminance"):
        made("grey", shape=(8, 8, 1))
    with pytest.raises(errors.Refusal, match="--mask=FILE"):
        operators.of_name("mask", operators.Measured(SHAPE))
