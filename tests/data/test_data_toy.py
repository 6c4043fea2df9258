"""Toy data: their shapes, their laws, and that nothing else can be asked of them."""

import numpy as np
import pytest

from ddpm_jax.core import errors
from ddpm_jax.data import dead_leaves, sources, toy


def test_heartbeats_have_one_pulse_in_every_five_bins():
    data = sources.load("heartbeat", "train")
    assert (data.shape, data.levels) == ((20, 1), 2)
    bits = data.fetch(np.arange(1000))["image"][..., 0] > 0
    assert (bits.reshape(1000, 4, 5).sum(axis=2) == 1).all()
    phases = bits[:, :5].argmax(axis=1)
    assert (np.bincount(phases) == 200).all()
    assert (bits == np.roll(bits, 5, axis=1)).all()


def test_the_swiss_roll_is_scikit_learns_of_unit_variance():
    from sklearn import datasets

    points, angle = datasets.make_swiss_roll(20_000, random_state=0)
    plane = points[:, [0, 2]]
    ours = toy.roll_at(angle)
    for axis in range(2):
        fit = np.polyfit(plane[:, axis], ours[:, axis], 1)
        np.testing.assert_allclose(np.polyval(fit, plane[:, axis]), ours[:, axis])
    data = sources.load("swissroll", "train")
    made = data.fetch(np.arange(len(data)))["image"]
    error = 4 / np.sqrt(len(data))
    np.testing.assert_allclose(made.mean(axis=0), 0, atol=error)
    np.testing.assert_allclose(made.std(axis=0), 1, atol=error)
    assert data.levels is None


def test_training_and_test_points_differ():
    for name in ("swissroll", "dead_leaves"):
        train, test = (sources.load(name, split) for split in ("train", "test"))
        first = [data.fetch(np.arange(5))["image"] for data in (train, test)]
        assert not np.array_equal(*first)
        assert train.fingerprint() == sources.load(name, "train").fingerprint()


def test_dead_leaves_are_discs_of_uniform_grey():
    side, grey = 16, dead_leaves.pictures(0, 1000, 16)
    assert grey.shape == (1000, side, side)
    values = np.bincount(grey.ravel(), minlength=256) / grey.size
    assert values.max() < 3 / 256
    assert values.min() > 0.3 / 256
    # Two pixels are of one disc more often the closer they are.
    same = [np.mean(grey[:, :, gap:] == grey[:, :, :-gap]) for gap in (1, 2, 4, 8)]
    assert np.all(np.diff(same) < -0.02)
    assert 0.5 < same[0] < 0.9


def test_radii_have_a_density_of_one_over_the_cube():
    """So that r⁻² is uniform between its ends."""
    radius = dead_leaves._radius(np.linspace(0, 1, 11), 2.0, 8.0)
    np.testing.assert_allclose(radius[[0, -1]], [2, 8])
    np.testing.assert_allclose(np.diff(radius**-2.0), -(1 / 4 - 1 / 64) / 10)


@pytest.mark.parametrize(
    ("name", "asked", "match"),
    [
        ("heartbeat", {"path": "x"}, "data.path='x' has no meaning for heartbeat"),
        ("swissroll", {"image_size": (8,)}, r"data.image_size=\(8, 8\) has no meaning"),
        ("swissroll", {"channels": 3}, "data.channels=3 has no meaning for swissroll"),
        ("heartbeat", {"labels": "none"}, "data.labels='none' has no meaning"),
        ("dead_leaves", {"path": "x"}, "data.path='x' has no meaning for dead_leaves"),
        ("dead_leaves", {"image_size": (8, 9)}, "data.image_size=8x9: images of"),
        ("dead_leaves", {"channels": 3}, "data.channels=3, data.crop='center'"),
    ],
)
def test_what_has_no_meaning_is_refused(name, asked, match):
    with pytest.raises(errors.Refusal, match=match):
        sources.load(name, "train", **asked)
