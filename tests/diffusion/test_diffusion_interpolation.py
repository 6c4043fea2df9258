"""Mixes of two images' states, against float64 and their laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chains import make_tables, normals

from ddpm_jax.diffusion import interpolation

SHAPE = (8, 8, 3)
SHARES = np.linspace(0, 1, 11)


# ---- in x_t --------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_noisy_states_are_mixed_linearly(share):
    tables = make_tables("linear", 1000)
    x_0, other, noise, other_noise = (normals(4, *SHAPE, seed=s) for s in range(4))
    t = np.array([0, 10, 500, 999], np.int32)
    mixed = interpolation.in_x_t(
        tables, x_0, other, t, share, noise=noise, other_noise=other_noise
    )
    alpha_bar = tables.schedule.alpha_bar[t].reshape(-1, 1, 1, 1)
    first, second = (
        np.sqrt(alpha_bar) * image + np.sqrt(1 - alpha_bar) * draw
        for image, draw in ((x_0, noise), (other, other_noise))
    )
    expected = (1 - share) * first + share * second
    np.testing.assert_allclose(mixed, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("preserves", [False, True])
def test_the_variance_of_the_noise(shared, preserves):
    """Against the law of the mix: q(x_t | mix) with preserves_variance, or shared."""
    tables = make_tables("linear", 1000)
    shape = (400, 10, 10, 1)
    zeros, t = np.zeros(shape, np.float32), np.full(400, 600, np.int32)
    share = np.tile(np.float32([0.5, 0.2]), 200)  # λ of each image
    mixed = interpolation.in_x_t(
        tables,
        zeros + 0.4,
        zeros - 0.8,
        t,
        share,
        noise=normals(*shape),
        other_noise=None if shared else normals(*shape, seed=1),
        preserves_variance=preserves,
    )
    alpha_bar = tables.schedule.alpha_bar[600]
    for k, part in enumerate((0.5, 0.2)):
        factor = 1.0 if shared or preserves else part**2 + (1 - part) ** 2
        var = factor * (1 - alpha_bar)
        mean = np.sqrt(alpha_bar) * ((1 - part) * 0.4 - part * 0.8)
        values = np.float64(mixed[k::2]).ravel()
        assert abs(values.mean() - mean) < 4 * np.sqrt(var / values.size)
        assert abs(values.var() - var) < 4 * var * np.sqrt(2 / values.size)


# ---- spherical -----------------------------------------------------------------------


def spherical_64(a, b, share):
    """DDIM appendix D.5 of the directions, in float64, and lengths evenly."""
    lengths = np.linalg.norm(a), np.linalg.norm(b)
    one, two = a / lengths[0], b / lengths[1]
    angle = np.arccos(np.sum(one * two))
    weights = np.sin((1 - share) * angle), np.sin(share * angle)
    length = (1 - share) * lengths[0] + share * lengths[1]
    return length * (weights[0] * one + weights[1] * two) / np.sin(angle)


def at_angle(angle, length=1.3):
    """Two latents with an angle between them, [1, ...] each, in float64."""
    one, two = np.float64(normals(2, np.prod(SHAPE)))
    one, two = one / np.linalg.norm(one), two - two @ one / (one @ one) * one
    two /= np.linalg.norm(two)
    other = length * (np.cos(angle) * one + np.sin(angle) * two)
    scale = np.sqrt(one.size)
    return (scale * v.reshape(1, *SHAPE) for v in (one, other))


spherical = jax.jit(interpolation.spherical)


def mixes(a, b, shares=SHARES):
    a, b = (np.repeat(np.float32(v), len(shares), axis=0) for v in (a, b))
    return np.asarray(spherical(a, b, np.float32(shares)), np.float64)


@pytest.mark.parametrize("angle", [0.003, 0.01, 0.5, 1.5, 2.5, np.pi - 0.01])
def test_spherical_interpolation(angle):
    a, b = at_angle(angle)
    expected = np.concatenate([spherical_64(a, b, share) for share in SHARES])
    tolerance = 2e-6 / np.sin(angle) + 1e-5
    np.testing.assert_allclose(mixes(a, b), expected, atol=tolerance)


@pytest.mark.parametrize("angle", [0.0, 1e-7, 1e-5, 1e-4, 1e-3, 1.5e-3, 2e-3])
def test_nearly_parallel_latents(angle):
    """The arc in float64 where it is known there, else the chord, which it is."""
    a, b = at_angle(angle)
    expected = np.concatenate([(1 - s) * a + s * b for s in SHARES])
    if angle >= 1e-5:
        expected = np.concatenate([spherical_64(a, b, share) for share in SHARES])
    np.testing.assert_allclose(mixes(a, b), expected, atol=2e-5)


@pytest.mark.parametrize("gap", [0.0, 1e-7, 1e-5, 5e-4, 1e-3, 1.5e-3, 2e-3])
def test_nearly_opposite_latents(gap):
    """The chord, scaled to a length between theirs, and 0 where it is 0."""
    a, b = at_angle(np.pi - gap, length=1.0)
    made = mixes(a, b)
    assert np.all(np.isfinite(made))
    np.testing.assert_allclose(made[0], a[0], atol=1e-6)
    np.testing.assert_allclose(made[-1], b[0], atol=1e-6)
    if gap <= 1e-3:
        lines = np.stack([(1 - s) * a[0] + s * b[0] for s in SHARES if s != 0.5])
        axes = (1, 2, 3)
        length = np.sqrt(np.sum(lines**2, axis=axes, keepdims=True))
        expected = lines * np.linalg.norm(a) / length
        np.testing.assert_allclose(made[SHARES != 0.5], expected, atol=2e-3)
    assert np.sqrt(np.mean(made**2, axis=(1, 2, 3))).max() < 1.0 + 1e-3
    if gap == 0:
        np.testing.assert_allclose(made[5], 0.0, atol=1e-3)


@pytest.mark.parametrize("centre", [0.0, np.pi])
def test_one_form_passes_into_the_other_without_a_jump(centre):
    """A small change of the angle changes the mix little, through all thresholds."""
    angles = centre + np.linspace(0, 4e-3, 161) * (1 if centre == 0 else -1)
    made = np.stack([mixes(*at_angle(angle, length=1.0)) for angle in angles])
    steps = np.sqrt(np.mean(np.diff(made, axis=0) ** 2, axis=(2, 3, 4)))
    assert steps.max() < 0.06
    fine = mixes(*at_angle(np.pi, length=1.0), shares=np.linspace(0.49, 0.51, 1001))
    assert np.sqrt(np.mean(np.diff(fine, axis=0) ** 2, axis=(1, 2, 3))).max() < 0.1


def test_latents_of_one_length_are_mixed_by_ddim_s_formula():
    a, b = at_angle(1.1, length=1.0)
    weights = np.sin([0.7 * 1.1, 0.3 * 1.1]) / np.sin(1.1)
    expected = weights[0] * a + weights[1] * b
    np.testing.assert_allclose(mixes(a, b, [0.3]), expected, atol=1e-5)


def test_ends_are_the_latents():
    a, b = normals(1, *SHAPE), normals(1, *SHAPE, seed=1)
    made = mixes(a, b)
    np.testing.assert_allclose(made[0], a[0], rtol=3e-7)
    np.testing.assert_allclose(made[-1], b[0], rtol=3e-7)


def test_images_do_not_interact_and_zeros_are_no_nan():
    a, b = normals(4, *SHAPE), normals(4, *SHAPE, seed=1)
    a[1], b[2], a[3], b[3] = 0.0, 0.0, 0.0, 0.0
    made = spherical(a, b, 0.3)
    assert np.all(np.isfinite(made))
    alone = spherical(a[:1], b[:1], 0.3)
    np.testing.assert_allclose(made[:1], alone, rtol=1e-6)


# ---- ADM's ---------------------------------------------------------------------------


def test_circular_interpolation():
    a, b = normals(3, *SHAPE), normals(3, *SHAPE, seed=1)
    angle = np.float32([0.0, 0.4, np.pi / 2])
    made = interpolation.circular(a, b, jnp.asarray(angle))
    wide = np.float64(angle).reshape(-1, 1, 1, 1)
    np.testing.assert_allclose(made, np.cos(wide) * a + np.sin(wide) * b, atol=1e-6)
