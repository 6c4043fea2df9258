import dataclasses
import importlib.machinery
import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from ddpm_jax.core import errors
from ddpm_jax.data import sources


@pytest.fixture(scope="module")
def sklearn_digits():
    from sklearn import datasets

    return datasets.load_digits()


def everything(dataset):
    return dataset.fetch(np.arange(len(dataset)))


def test_digits_are_scikit_learns_split_by_the_fixed_permutation(sklearn_digits):
    order = np.random.default_rng(0).permutation(1797)
    for split, chosen in (("train", order[:1438]), ("test", order[1438:])):
        dataset = sources.load("digits", split)
        assert len(dataset) == len(chosen)
        batch = everything(dataset)
        np.testing.assert_array_equal(batch["label"], sklearn_digits.target[chosen])
        np.testing.assert_array_equal(
            (batch["image"][..., 0] + 1) * 8, sklearn_digits.images[chosen]
        )


def test_a_source_may_give_further_arrays_by_key():
    digits = sources.load("digits", "train")

    def read(indices):
        image, label = digits.read(indices)
        return image, label, {"mass": image.mean(axis=(1, 2, 3))}

    batch = dataclasses.replace(digits, read=read).fetch([4, 2])
    plain = digits.fetch([4, 2])
    assert batch.keys() == {"image", "label", "mass"}
    assert plain.keys() == {"image", "label"}
    np.testing.assert_array_equal(batch["label"], plain["label"])
    np.testing.assert_allclose(batch["mass"], [x.mean() for x in plain["image"]])


def test_digits_describe_themselves():
    dataset = sources.load("digits", "train")
    batch = everything(dataset)
    assert dataset.shape == batch["image"].shape[1:] == (8, 8, 1)
    assert batch["image"].dtype == np.float32
    assert batch["label"].dtype == np.int32
    # All 17 grey levels occur, evenly spaced from -1 to 1.
    np.testing.assert_array_equal(
        np.unique(batch["image"]), np.linspace(-1, 1, dataset.levels)
    )
    assert set(batch["label"]) == set(range(dataset.num_classes))
    assert [int(name) for name in dataset.class_names] == list(range(10))


@pytest.mark.parametrize(("fraction", "num_test"), [(0.2, 359), (0.5, 898), (0.01, 18)])
def test_the_two_splits_share_nothing_and_miss_nothing(
    sklearn_digits, fraction, num_test
):
    train, test = (
        sources.load("digits", split, test_fraction=fraction)
        for split in sources.SPLITS
    )
    assert len(test) == num_test
    images = [everything(split)["image"].reshape(-1, 64) for split in (train, test)]
    together = (np.concatenate(images) + 1) * 8
    # Equal as multisets: sorted rows agree, so no image is in both splits or in none.
    np.testing.assert_array_equal(
        together[np.lexsort(together.T)],
        sklearn_digits.data[np.lexsort(sklearn_digits.data.T)],
    )


def test_digits_without_the_packaged_table_come_from_load_digits(monkeypatch, tmp_path):
    direct = everything(sources.load("digits", "test"))
    spec = importlib.machinery.ModuleSpec("sklearn", None, is_package=True)
    spec.submodule_search_locations.append(str(tmp_path))
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: spec if name == "sklearn" else find_spec(name, *rest),
    )
    fallback = everything(sources.load("digits", "test"))
    np.testing.assert_array_equal(direct["image"], fallback["image"])
    np.testing.assert_array_equal(direct["label"], fallback["label"])


def test_every_fetch_is_a_fresh_buffer():
    dataset = sources.load("digits", "train")
    first = dataset.fetch([3, 3, 5])
    kept = first["image"].copy()
    first["image"][:] = 7.0
    first["label"][:] = 7
    second = dataset.fetch([3, 3, 5])
    np.testing.assert_array_equal(second["image"], kept)
    assert not np.shares_memory(first["image"], second["image"])
    assert not np.shares_memory(first["label"], second["label"])


@pytest.mark.parametrize("index", [-1, 1438])
def test_an_index_outside_is_an_error(index):
    dataset = sources.load("digits", "train")
    with pytest.raises(IndexError, match=f"index {index} is outside digits/train"):
        dataset.fetch([0, index])


def test_fingerprints_tell_data_apart():
    def fingerprint(split, **options):
        return sources.load("digits", split, **options).fingerprint()

    assert fingerprint("train") == fingerprint("train")
    assert fingerprint("train") != fingerprint("test")
    assert fingerprint("train") != fingerprint("train", test_fraction=0.3)
    int(fingerprint("train"), 16)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("digit", "train"), {}, "unknown data source 'digit': .*cifar10, .*digits"),
        (("digits", "validation"), {}, "unknown split 'validation': .*train, test"),
        (("digits", "train"), {"test_fraction": 0.0}, "test_fraction 0.0 is not"),
        (("digits", "train"), {"test_fraction": 1.0}, "test_fraction 1.0 is not"),
        (("digits", "train"), {"test_fraction": -0.2}, "test_fraction -0.2 is not"),
        (("digits", "train"), {"test_fraction": np.nan}, "test_fraction nan is not"),
        (("digits", "train"), {"test_fraction": 1e-4}, "1797 training and 0 test"),
        (("mnist:x", "train"), {}, "'mnist:x': .*digits, folder, .* or tfds:<name>"),
        (("digits", "train"), {"image_size": (16,)}, "image_size=16x16: .* are 8x8"),
        (("digits", "train"), {"channels": 3}, "channels=3: .* have 1"),
        (("digits", "train"), {"crop": "random"}, "crop='random': .* are not cut"),
        (("digits", "train"), {"labels": "none"}, "labels='none' has no meaning"),
        (("digits", "train"), {"path": "/data"}, "'/data' has no meaning for digits"),
    ],
)
def test_refusals(arguments, options, message):
    with pytest.raises(errors.Refusal, match=message):
        sources.load(*arguments, **options)


def test_digits_without_scikit_learn_are_refused_with_the_install_line(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(errors.Refusal, match="pip install scikit-learn"):
        sources.load("digits", "train")


def test_importing_and_loading_digits_pulls_in_nothing_heavy():
    program = (
        "import sys\n"
        "from ddpm_jax.data import images, order, pipeline, sources, transforms\n"
        "sources.load('digits', 'train').fetch([0])\n"
        "order.Order(10, 2, 0)\n"
        "heavy = 'tensorflow torch tensorflow_datasets sklearn grain jax'.split()\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    output = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert output.stdout.strip() == "[]"
