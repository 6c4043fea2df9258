"""Improved precision and recall against a published evaluator and brute force."""

import pathlib

import jax
import numpy as np
import pytest

from ddpm_jax.core import errors
from ddpm_jax.metrics import precision
from ddpm_jax.runtime import sharding

GOLDEN = np.load(pathlib.Path(__file__).parent.parent / "golden" / "evaluation.npz")
BLOCKS = {"rows": 256, "columns": 300}


def mesh_of(count):
    return sharding.make_mesh(devices=jax.devices()[:count])


def by_brute_force(reference, samples, k):
    """The definition, with every difference formed in float64."""

    def distances(a, b):
        return np.linalg.norm(a[:, None].astype(np.float64) - b, axis=-1)

    def radii(points):
        return np.sort(distances(points, points), axis=1)[:, k]

    table = distances(samples, reference)
    near_reference = (table <= radii(reference)).any(axis=1)
    near_samples = (table <= radii(samples)[:, None]).any(axis=0)
    return near_reference.mean(), near_samples.mean()


@pytest.mark.parametrize("devices", [1, 8])
def test_published_evaluator(devices):
    found = precision.precision_recall(
        GOLDEN["ref"], GOLDEN["smp"], mesh=mesh_of(devices), **BLOCKS
    )
    np.testing.assert_allclose(found.precision, GOLDEN["precision"], rtol=1e-6)
    np.testing.assert_allclose(found.recall, GOLDEN["recall"], rtol=1e-6)
    assert (found.k, found.num_reference, found.num_samples) == (3, 700, 900)


@pytest.mark.parametrize(("k", "offset"), [(1, 300.0), (5, 0.0)])
def test_brute_force(k, offset):
    # Far from the origin, |u|² + |v|² − 2 u·v has no digits left unless centred.
    random = np.random.default_rng(k)
    reference = random.normal(size=(130, 5)).astype(np.float32) + np.float32(offset)
    samples = (0.7 * random.normal(size=(90, 5)) + offset + 0.3).astype(np.float32)
    found = precision.precision_recall(
        reference, samples, mesh=mesh_of(8), k=k, rows=64, columns=50
    )
    expected = by_brute_force(reference, samples, k)
    assert 0.1 < min(expected) < 0.95
    np.testing.assert_allclose(found[:2], expected, rtol=1e-6)


def test_a_set_against_itself_and_against_one_far_away():
    points = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    same = precision.precision_recall(points, points, mesh=mesh_of(1), **BLOCKS)
    assert same[:2] == (1.0, 1.0)
    far = precision.precision_recall(points, points + 100, mesh=mesh_of(1), **BLOCKS)
    assert far[:2] == (0.0, 0.0)


def test_points_on_a_sphere_are_inside():
    # Radii are 1 (k = 1); the sample at 2 lies exactly one from the point at 1.
    reference = np.array([[0.0], [1.0], [10.0], [11.0]], np.float32)
    samples = np.array([[2.0], [2.001], [5.0], [30.0]], np.float32)
    found = precision.precision_recall(
        reference, samples, mesh=mesh_of(1), k=1, **BLOCKS
    )
    assert found.precision == 0.25
    assert found[:2] == by_brute_force(reference, samples, 1)


def test_repeated_images_are_inside_each_other():
    # Five copies: radius 0 exactly, whatever the rounding of |u|² − u·u.
    points = np.random.default_rng(0).normal(size=(20, 512)).astype(np.float32)
    copies = np.repeat(points, 5, axis=0)
    found = precision.precision_recall(copies, copies, mesh=mesh_of(1), **BLOCKS)
    assert found[:2] == (1.0, 1.0)
    near = copies + np.float32(0.05)
    found = precision.precision_recall(copies, near, mesh=mesh_of(1), **BLOCKS)
    assert found[:2] == (0.0, 0.0)


@pytest.mark.parametrize(
    ("reference", "samples", "k", "part"),
    [
        (np.zeros((9, 3)), np.zeros((9, 4)), 3, "same feature network"),
        (np.zeros((9, 3)), np.zeros((3, 3)), 3, "3-th neighbours"),
        (np.zeros((9, 3)), np.zeros((9, 3)), 0, "from 1"),
        (np.zeros((9, 3)), np.full((9, 3), np.nan), 3, "NaN"),
    ],
)
def test_what_has_no_neighbours(reference, samples, k, part):
    with pytest.raises(errors.Refusal, match=part):
        precision.precision_recall(reference, samples, mesh=mesh_of(1), k=k)
