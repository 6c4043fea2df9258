"""Files that go, and disks that err, while their images are read."""

import errno
import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from ddpm_jax.core import errors
from ddpm_jax.data import decoding, disks, files, sources

COUNT = 150  # of which one is less than 1 %


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(disks, "PAUSES", (0.0, 0.0, 0.0))


def folder(root):
    root.mkdir()
    for i in range(COUNT):
        Image.fromarray(np.full((4, 4), i, np.uint8)).save(root / f"{i:03}.png")
    return root


def zipped(root):
    path = root.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(root.iterdir()):
            archive.write(file, file.name)
    return path


def load(root, container="folder", said=None):
    said = [] if said is None else said
    path = root if container == "folder" else zipped(root)
    return sources.load(container, "train", path=path, say=said.append)


def failing(dataset_open, name, number, times):
    """An `open` that fails for one file, some times."""
    left = [times]

    def opened(asked):
        if asked == name and left[0]:
            left[0] -= 1
            raise OSError(number, os.strerror(number))
        return dataset_open(asked)

    return opened


def broken(images, number, times):
    object.__setattr__(images, "open", failing(images.open, "007.png", number, times))
    return images


@pytest.fixture(params=["folder", "zip"])
def images(request, tmp_path):
    root = folder(tmp_path / "data")
    return files.open_images(root if request.param == "folder" else zipped(root))


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
def test_an_error_that_passes_is_tried_again(images, number):
    whole = images.read("007.png")
    assert broken(images, number, 2).read("007.png") == whole
    assert images.use("007.png", decoding.describe).width == 4


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENODEV])
def test_an_error_that_stays_names_the_file(images, number):
    with pytest.raises(OSError, match=os.strerror(number)) as raised:
        broken(images, number, 99).read("007.png")
    assert raised.value.errno == number
    assert raised.value.filename == os.path.join(images.root, "007.png")


@pytest.mark.parametrize("number", disks.OF_THE_FILE)
def test_an_error_of_the_file_alone_leaves_it_out(images, number):
    with pytest.raises(decoding.Unreadable, match=os.strerror(number)):
        broken(images, number, 99).read("007.png")


def test_a_file_that_goes_while_training_is_left_out_and_counted(tmp_path):
    root, said = folder(tmp_path / "data"), []
    dataset = load(root, said=said)
    values = np.rint(
        (dataset.fetch(range(len(dataset)))["image"][:, 0, 0, 0] + 1) * 127.5
    )
    again = load(root, said=said)
    gone = int(values[5])
    (root / f"{gone:03}.png").unlink()
    batch = again.fetch([4, 5, 6])["image"][:, 0, 0, 0]
    np.testing.assert_array_equal(np.rint((batch + 1) * 127.5), values[[4, 6, 6]])
    assert again.count_unreadable() == 1
    assert [line for line in said if f"{gone:03}.png" in line]


def test_too_many_that_go_are_refused(tmp_path):
    root = folder(tmp_path / "data")
    dataset = load(root)
    for path in root.iterdir():
        path.unlink()
    with pytest.raises(errors.Refusal, match=str(root)):
        dataset.fetch(range(8))


def test_a_zip_file_is_opened_again(tmp_path, monkeypatch):
    images = files.open_images(zipped(folder(tmp_path / "data")))
    whole, opened = images.read("007.png"), []
    monkeypatch.setattr(
        files.zip_files,
        "open_zip",
        lambda path: opened.append(path) or zipfile.ZipFile(path),
    )
    assert broken(images, errno.ESTALE, 1).read("007.png") == whole
    assert [str(path) for path in opened] == [images.root]
