"""Pictures to enlarge: folders, archives, and what is no set of pictures."""

import zipfile

import numpy as np
import pytest
from PIL import Image

from ddpm_jax.core import errors
from ddpm_jax.data import given_images


def save(folder, names, shape=(4, 4, 3), kind="RGB"):
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full(shape, 10 * number, np.uint8)
        Image.fromarray(pixels.squeeze(), kind).save(path)


def read(path):
    return given_images.read(str(path), lambda line: None)


def test_a_folder_in_the_order_of_names(tmp_path):
    save(tmp_path, ["b.png", "a.png"])
    found = read(tmp_path)
    assert found.names == ("a.png", "b.png")
    assert found.images.dtype == np.uint8
    assert found.images[:, 0, 0, 0].tolist() == [10, 0]
    assert found.labels is None


def test_folders_in_it_are_classes(tmp_path):
    save(tmp_path, ["owl/1.png", "cat/1.png", "owl/2.png"])
    found = read(tmp_path)
    assert found.class_names == ("cat", "owl")
    assert found.labels.tolist() == [0, 1, 1]


def test_a_zip_file(tmp_path):
    save(tmp_path / "in", ["a.png", "b.png"])
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path in sorted((tmp_path / "in").iterdir()):
            archive.write(path, path.name)
    np.testing.assert_array_equal(
        read(tmp_path / "a.zip").images, read(tmp_path / "in").images
    )


@pytest.mark.parametrize("name", ["samples.npz", ""])
def test_an_archive_and_the_folder_of_samples_that_holds_it(tmp_path, name):
    images = np.arange(2 * 16).reshape(2, 4, 4, 1).astype(np.uint8)
    np.savez(tmp_path / "samples.npz", images, np.array([3, 1]))
    found = read(tmp_path / name)
    np.testing.assert_array_equal(found.images, images)
    assert found.labels.tolist() == [3, 1]


def test_the_fingerprint_is_of_pictures_and_labels(tmp_path):
    images = np.zeros((2, 4, 4, 1), np.uint8)
    kinds = [
        given_images.GivenImages(images),
        given_images.GivenImages(images + 1),
        given_images.GivenImages(images.reshape(4, 4, 2, 1)),
        given_images.GivenImages(images, labels=np.array([0, 1])),
        given_images.GivenImages(images, labels=np.array([1, 1])),
    ]
    assert len({kind.fingerprint for kind in kinds}) == len(kinds)
    again = given_images.GivenImages(images.copy(), names=("a", "b"))
    assert again.fingerprint == kinds[0].fingerprint


def test_what_is_no_set_of_pictures(tmp_path):
    save(tmp_path / "clear", ["a.png"], (4, 4, 4), "RGBA")
    save(tmp_path / "sizes", ["a.png"])
    save(tmp_path / "sizes", ["b.png"], (4, 5, 3))
    save(tmp_path / "grey", ["a.png"])
    save(tmp_path / "grey", ["b.png"], (4, 4, 1), "L")
    (tmp_path / "none").mkdir()
    np.savez(tmp_path / "labels.npz", np.zeros((2, 4, 4, 1), np.uint8), np.zeros(3))
    np.savez(tmp_path / "else.npz", other=np.zeros(3))
    words = {
        "clear": "a.png has an opacity channel",
        "sizes": "b.png is 4x5 with 3 channels of 8 bits and a.png 4x4",
        "grey": "b.png is 4x4 with 1 channels",
        "none": "holds no images",
        "labels.npz": r"labels of .* are float64 \[3\]: save one integer for each of",
        "else.npz": "holds other: it needs arr_0 or images",
    }
    for name, said in words.items():
        with pytest.raises(errors.Refusal, match=said):
            read(tmp_path / name)


def test_a_run_is_no_set_of_pictures(tmp_path):
    assert given_images.is_archive(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    assert not given_images.is_archive(str(tmp_path))
