"""Reference statistics: written, read, told from others' files, refused."""

import json

import numpy as np
import pytest

from ddpm_jax.core import errors
from ddpm_jax.metrics import features as features_lib
from ddpm_jax.metrics import frechet, statistics


def gaussian(dimension, seed=0):
    rows = np.random.default_rng(seed).normal(size=(50, dimension))
    return rows.mean(axis=0), np.cov(rows.T)


def network(**changes):
    values = {"name": "inception-2015", "fingerprint": "ab12", "resize": "tf-legacy"}
    return features_lib.FeatureNetwork(**values | changes, params={}, apply=None)


def measured(rows):
    groups = tuple(frechet.moments(part) for part in np.split(rows, [20]))
    return features_lib.Measured(len(rows), {"pool": groups}, {})


def test_what_is_measured_is_saved_and_read(tmp_path):
    rows = np.random.default_rng(0).normal(size=(45, 6))
    made = statistics.of_measured(
        measured(rows), network(), {"data": "digits", "split": "test"}
    )
    statistics.save(tmp_path / "deep" / "reference.npz", made)
    found = statistics.load(tmp_path / "deep" / "reference.npz")
    mean, cov = found.gaussians["pool"]
    np.testing.assert_allclose(mean, rows.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(cov, np.cov(rows.T), rtol=1e-10)
    assert (found.num_images, found.network) == (45, "inception-2015")
    assert (found.fingerprint, found.resize) == ("ab12", "tf-legacy")
    assert found.provenance == {"data": "digits", "split": "test"}
    assert found.notes == []
    statistics.check_comparable(found, network())


def test_other_evaluators_can_read_ours(tmp_path):
    rows = np.random.default_rng(0).normal(size=(45, 6))
    made = statistics.of_measured(measured(rows), network(), {})
    statistics.save(tmp_path / "reference.npz", made)
    with np.load(tmp_path / "reference.npz", allow_pickle=False) as archive:
        np.testing.assert_allclose(archive["mu"][:], rows.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(archive["sigma"][:], np.cov(rows.T), rtol=1e-10)


def test_few_images_are_noted():
    rows = np.random.default_rng(0).normal(size=(30, 40))
    made = statistics.of_measured(measured(rows), network(), {})
    assert "30 images for 40 features" in made.notes[0]


def test_adm_reference_batch(tmp_path):
    path = tmp_path / "VIRTUAL_imagenet256_labeled.npz"
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3)).astype(np.uint8)
    (mu, sigma), (mu_s, sigma_s) = gaussian(6), gaussian(4, seed=1)
    np.savez(path, arr_0=images, mu=mu, sigma=sigma, mu_s=mu_s, sigma_s=sigma_s)
    found = statistics.load(path)
    np.testing.assert_array_equal(found.gaussians["pool"][1], sigma)
    np.testing.assert_array_equal(found.gaussians["spatial"][0], mu_s)
    assert (found.resize, found.num_images) == ("tf-legacy", None)
    assert "assumed" in found.provenance
    statistics.check_comparable(found, network(), ("pool", "spatial"))


def test_pytorch_fid_file(tmp_path):
    path = tmp_path / "cifar10.npz"
    np.savez(path, **dict(zip(("mu", "sigma"), gaussian(6), strict=True)))
    found = statistics.load(path)
    assert found.resize == "pytorch-fid"
    statistics.check_comparable(found, network(resize="pytorch-fid"))
    assert statistics.load(path, assumed_resize="clean").resize == "clean"
    with pytest.raises(errors.Refusal, match="spatial statistics"):
        statistics.check_comparable(
            found, network(resize="pytorch-fid"), ("pool", "spatial")
        )
    with pytest.raises(errors.Refusal, match="'lanczos'"):
        statistics.load(path, assumed_resize="lanczos")


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"resize": "clean"}, "'tf-legacy' for both"),
        ({"name": "proxy_fd"}, "'proxy_fd'"),
        ({"fingerprint": "cd34"}, "cd34"),
    ],
)
def test_other_numbers_are_not_compared(changes, part):
    rows = np.random.default_rng(0).normal(size=(45, 6))
    made = statistics.of_measured(measured(rows), network(), {})
    with pytest.raises(errors.Refusal, match=part):
        statistics.check_comparable(made, network(**changes))


MU, SIGMA = gaussian(4)


@pytest.mark.parametrize(
    ("arrays", "part"),
    [
        ({"mu": MU * np.nan, "sigma": SIGMA}, "NaN"),
        ({"mu": MU, "sigma": SIGMA[:3]}, "no mean"),
        ({"mu": MU, "sigma": np.triu(SIGMA)}, "not symmetric"),
        ({"mu": np.array(["a"] * 4), "sigma": SIGMA}, "no mean"),
        ({"mu": np.array([None] * 4), "sigma": SIGMA}, "mu cannot be read"),
        ({"arr_0": np.zeros((2, 4, 4, 3), np.uint8)}, "measure its images"),
        ({"features": MU}, "features and no reference"),
        ({"mu": MU, "sigma": SIGMA, "record": np.array("{")}, "no JSON"),
        ({"mu": MU, "sigma": SIGMA, "record": np.array("{}")}, "does not hold"),
    ],
)
def test_files_that_are_no_reference(arrays, part, tmp_path):
    np.savez(tmp_path / "reference.npz", **arrays)
    with pytest.raises(errors.Refusal, match=part):
        statistics.load(tmp_path / "reference.npz")


def test_files_that_are_no_archive(tmp_path):
    path = tmp_path / "reference.npz"
    with pytest.raises(errors.Refusal, match="does not exist"):
        statistics.load(path)
    np.savez(path, mu=MU, sigma=SIGMA)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(errors.Refusal, match="cut short after 300 bytes"):
        statistics.load(path)


def test_a_record_is_not_overruled(tmp_path):
    rows = np.random.default_rng(0).normal(size=(45, 6))
    path = tmp_path / "reference.npz"
    statistics.save(path, statistics.of_measured(measured(rows), network(), {}))
    with np.load(path) as archive:
        assert json.loads(str(archive["record"]))["resize"] == "tf-legacy"
    assert statistics.load(path, assumed_resize="tf-legacy").num_images == 45
    with pytest.raises(errors.Refusal, match="'tf-legacy', not 'clean'"):
        statistics.load(path, assumed_resize="clean")
