import importlib.util
import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from ddpm_jax.core import errors
from ddpm_jax.data import sources

tfds = pytest.importorskip("tensorflow_datasets")

# The order on the data set's own page, https://www.cs.toronto.edu/~kriz/cifar.html.
CLASS_NAMES = ["airplane", "automobile", "bird", "cat", "deer"]
CLASS_NAMES += ["dog", "frog", "horse", "ship", "truck"]
SIZES = {"train": 23, "test": 7}


def pixels(split):
    rng = np.random.default_rng(SIZES[split])
    images = rng.integers(0, 256, (SIZES[split], 32, 32, 3), dtype=np.uint8)
    images[0, 0, 0] = [0, 1, 255]
    return images


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    file.seek(0)
    return file


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A miniature CIFAR-10, written by TFDS in its own layout."""
    version = tfds.builder_cls("cifar10").VERSION

    with tfds.core.registered.skip_registration():  # the name is taken

        class Cifar10(tfds.core.GeneratorBasedBuilder):
            VERSION = version

            def _info(self):
                features = {
                    "id": tfds.features.Text(),
                    "image": tfds.features.Image(shape=(32, 32, 3)),
                    "label": tfds.features.ClassLabel(names=CLASS_NAMES),
                }
                return tfds.core.DatasetInfo(
                    builder=self, features=tfds.features.FeaturesDict(features)
                )

            def _split_generators(self, dl_manager):
                return {split: self._generate_examples(split) for split in SIZES}

            def _generate_examples(self, split):
                for i, image in enumerate(pixels(split)):
                    # As a file: TFDS needs TensorFlow to encode an array.
                    yield i, {"id": f"{i}", "image": png(image), "label": i % 10}

    path = tmp_path_factory.mktemp("tfds")
    Cifar10(data_dir=path, file_format="array_record").download_and_prepare()
    return path


@pytest.mark.parametrize("split", SIZES)
def test_every_image_and_label_arrives(data_dir, split):
    dataset = sources.load("cifar10", split, path=data_dir)
    assert len(dataset) == SIZES[split]
    batch = dataset.fetch(range(len(dataset)))
    assert batch["image"].dtype == np.float32
    assert batch["label"].dtype == np.int32
    grey = (batch["image"].astype(np.float64) + 1) * 127.5
    np.testing.assert_allclose(grey, np.round(grey), atol=1e-5)
    # TFDS stores the images in an order of its own.
    read = {
        image.tobytes(): label
        for image, label in zip(
            np.round(grey).astype(np.uint8), batch["label"], strict=True
        )
    }
    written = {image.tobytes(): i % 10 for i, image in enumerate(pixels(split))}
    assert read == written


def test_access_is_random_and_buffers_fresh(data_dir):
    dataset = sources.load("cifar10", "train", path=str(data_dir))
    everything = dataset.fetch(range(len(dataset)))
    indices = [5, 0, 22, 5]
    batch = dataset.fetch(indices)
    np.testing.assert_array_equal(batch["image"], everything["image"][indices])
    np.testing.assert_array_equal(batch["label"], everything["label"][indices])
    batch["image"][:] = 9.0
    again = dataset.fetch(indices)["image"]
    np.testing.assert_array_equal(again, everything["image"][indices])


def test_cifar10_describes_itself(data_dir):
    train = sources.load("cifar10", "train", path=data_dir)
    assert (train.name, train.split) == ("cifar10", "train")
    assert train.shape == (32, 32, 3)
    assert (train.levels, train.num_classes) == (256, 10)
    assert list(train.class_names) == CLASS_NAMES
    test = sources.load("cifar10", "test", path=data_dir)
    assert train.fingerprint() != test.fingerprint()


def test_reading_needs_no_tensorflow(data_dir):
    program = (
        "import sys\n"
        "from ddpm_jax.data import sources\n"
        f"sources.load('cifar10', 'test', path={str(data_dir)!r}).fetch([0])\n"
        "print([name for name in ('tensorflow', 'torch') if name in sys.modules])\n"
    )
    output = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert output.stdout.strip() == "[]"


def test_data_that_is_not_there_is_refused_with_the_command(tmp_path):
    with pytest.raises(errors.Refusal) as refused:
        sources.load("cifar10", "train", path=tmp_path)
    message = str(refused.value)
    assert f"cifar10 is not in {tmp_path}/cifar10/" in message
    assert f"set data.path to {tmp_path}: python -m venv" in message
    # The last line is a command whose Python part prepares this very directory.
    program = message.split('-c "')[1].removesuffix('"')
    assert f"tfds.builder('cifar10', data_dir='{tmp_path}', file_format" in program
    compile(program, "command", "exec")


def test_data_without_random_access_is_refused(data_dir, tmp_path):
    (source,) = data_dir.glob("cifar10/*")
    target = tmp_path / "cifar10" / source.name
    target.mkdir(parents=True)
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    info = json.loads((target / "dataset_info.json").read_text())
    info["fileFormat"] = "tfrecord"
    (target / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(errors.Refusal, match="in the format tfrecord") as refused:
        sources.load("cifar10", "train", path=tmp_path)
    # Prepared beside it, as TFDS refuses a second format in the same place.
    assert f"data_dir='{tmp_path}-array_record'" in str(refused.value)


def test_a_misspelt_name_is_refused_with_names_like_it(tmp_path):
    with pytest.raises(errors.Refusal, match=r"no data set 'cifer10' .*cifar10"):
        sources.load("tfds:cifer10", "train", path=tmp_path)


def test_a_missing_tensorflow_datasets_is_refused_with_the_install_line(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(errors.Refusal, match=r"pip install 'ddpm-jax\[tfds\]'"):
        sources.load("cifar10", "train")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A data set of images of many sizes, without labels or a test split."""

    class Photographs(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = tfds.features.FeaturesDict({"image": tfds.features.Image()})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            rng = np.random.default_rng(0)
            for i in range(30):
                shape = (20 + i, 50 - i, 3)
                yield i, {"image": png(rng.integers(0, 256, shape, dtype=np.uint8))}

    path = tmp_path_factory.mktemp("photographs")
    Photographs(data_dir=path, file_format="array_record").download_and_prepare()
    return path


def test_images_of_many_sizes_without_labels_and_test_split(photographs):
    counts = {}
    for split in sources.SPLITS:
        dataset = sources.load(
            "tfds:photographs", split, path=photographs, image_size=(16,)
        )
        batch = dataset.fetch(range(len(dataset)))
        assert batch["image"].shape == (len(dataset), 16, 16, 3)
        assert dataset.num_classes is None
        assert not batch["label"].any()
        counts[split] = len(dataset)
    assert sum(counts.values()) == 30
    assert min(counts.values()) > 0
    grey = sources.load(
        "tfds:photographs", "train", path=photographs, image_size=(8, 16), channels=1
    )
    assert grey.fetch([0, 1])["image"].shape == (2, 8, 16, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "differ in size: set for example --config.data.image_size=64"),
        ({"image_size": (16,), "crop": "none"}, "crop=center"),
        ({"image_size": (16,), "channels": 7}, "have 3, which cannot be converted"),
        ({"image_size": (16,), "labels": "prefix"}, "carries its own"),
    ],
)
def test_what_such_images_cannot_be_is_refused(photographs, options, message):
    with pytest.raises(errors.Refusal, match=message):
        sources.load("tfds:photographs", "train", path=photographs, **options)


def test_images_smaller_than_the_target_are_no_images(photographs):
    dataset = sources.load(
        "tfds:photographs", "train", path=photographs, image_size=(40,), say=str
    )
    with pytest.raises(errors.Refusal, match="smaller than 40x40"):
        dataset.fetch(range(len(dataset)))


def test_a_download_by_hand_is_explained(tmp_path):
    with pytest.raises(errors.Refusal) as refused:
        sources.load("tfds:imagenet2012", "train", path=tmp_path)
    message = str(refused.value)
    assert f"{tmp_path}/downloads/manual" in message
    assert "ILSVRC2012_img_train.tar" in message
    assert "python -m venv" in message
