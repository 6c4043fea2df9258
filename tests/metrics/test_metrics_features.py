"""A pass over images: sums and kept features, whatever the batches and devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.core import errors
from ddpm_jax.metrics import features as features_lib
from ddpm_jax.runtime import sharding

NUM_IMAGES, SHAPE = 45, (4, 3, 3)
IMAGES = np.random.default_rng(0).integers(0, 256, (NUM_IMAGES, *SHAPE), np.uint8)
MATRIX = np.random.default_rng(1).normal(size=(36, 5)).astype(np.float32)


def apply(params, images):
    flat = images.reshape(len(images), -1).astype(jnp.float32) / 255
    return {"pool": flat @ params["matrix"] + 20, "flat": flat}


NETWORK = features_lib.FeatureNetwork("a net", "abc", "", {"matrix": MATRIX}, apply)


def expected_features():
    flat = IMAGES.reshape(NUM_IMAGES, -1).astype(np.float64) / 255
    return flat @ MATRIX.astype(np.float64) + 20


def mesh_of(count):
    return sharding.make_mesh(devices=jax.devices()[:count])


def measure(images=IMAGES, devices=1, batch_size=16, **options):
    return features_lib.measure(
        NETWORK, images, mesh=mesh_of(devices), batch_size=batch_size, **options
    )


@pytest.mark.parametrize(("devices", "batch_size"), [(1, 16), (1, 64), (8, 16)])
def test_sums_are_those_of_the_features(devices, batch_size):
    found = measure(devices=devices, batch_size=batch_size).moments("pool")
    rows = expected_features()
    assert found.count == NUM_IMAGES
    np.testing.assert_allclose(found.mean, rows.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found.covariance, np.cov(rows.T), rtol=1e-5, atol=1e-5)


def test_kept_features_stand_in_order():
    for devices in (1, 8):
        found = measure(devices=devices, summed=(), kept=("pool", "flat"))
        assert found.kept["flat"].shape == (NUM_IMAGES, 36)
        np.testing.assert_allclose(found.kept["pool"], expected_features(), rtol=1e-5)
        assert found.groups == {}


def test_images_may_come_in_parts():
    done = []
    parts = (part for part in np.split(IMAGES, [1, 2, 30]))
    found = measure(parts, kept=("flat",), on_batch=done.append)
    np.testing.assert_array_equal(
        found.kept["flat"], measure(kept=("flat",)).kept["flat"]
    )
    assert done == [16, 32, 45]


def test_groups_are_batches_in_turn():
    found = measure(batch_size=8, groups=4)
    assert [group.count for group in found.groups["pool"]] == [16, 13, 8, 8]
    rows = np.concatenate([expected_features()[8:16], expected_features()[40:]])
    np.testing.assert_allclose(
        found.groups["pool"][1].mean, rows.mean(axis=0), rtol=1e-6
    )
    assert len(measure(batch_size=16, groups=10).groups["pool"]) == 3


def test_what_cannot_be_measured():
    for images, part in (
        ([], "no images"),
        (IMAGES.astype(np.float32), "float32"),
        ([IMAGES, IMAGES[:, :2]], r"\[2, 3, 3\] in one set"),
    ):
        with pytest.raises(errors.Refusal, match=part):
            measure(images)
    with pytest.raises(errors.Refusal, match="cannot be split equally"):
        measure(devices=8, batch_size=12)


@pytest.mark.parametrize("which", ["summed", "kept"])
def test_damaged_weights(which):
    matrix = np.where(MATRIX > 2, np.nan, MATRIX)
    damaged = features_lib.FeatureNetwork("a net", "abc", "", {"matrix": matrix}, apply)
    options = {"summed": (), "kept": (), which: ("pool",)}
    with pytest.raises(errors.Refusal, match="a net are NaN"):
        features_lib.measure(damaged, IMAGES, mesh=mesh_of(1), batch_size=16, **options)


def test_inception_needs_a_rule_that_exists():
    with pytest.raises(errors.Refusal, match="tf-legacy"):
        features_lib.inception_network({}, fingerprint="", mode="bilinear")
