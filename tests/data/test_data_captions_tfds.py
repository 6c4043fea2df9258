"""Captions of data sets that TensorFlow Datasets has prepared."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from ddpm_jax.core import errors
from ddpm_jax.data import sources

tfds = pytest.importorskip("tensorflow_datasets")

SIZES = {"train": 13, "validation": 5}


def png(value):
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(file, "PNG")
    file.seek(0)
    return file


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Image i has i % 3 + 1 texts in "captions", and perhaps none in "notes"."""

    class Captioned(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            text = tfds.features.Text()
            features = {
                "id": text,
                "image": tfds.features.Image(shape=(8, 8, 3)),
                "label": tfds.features.ClassLabel(names=["cat", "dog"]),
                "captions": tfds.features.Sequence({"id": np.int64, "text": text}),
                "notes": tfds.features.Sequence(text),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in SIZES}

        def _generate_examples(self, split):
            for i in range(SIZES[split]):
                texts = [f"{split} é {i} {k}" for k in range(i % 3 + 1)]
                yield (
                    i,
                    {
                        "id": f"name {i}",
                        "image": png(i),
                        "label": i % 2,
                        "captions": [{"id": 0, "text": text} for text in texts],
                        "notes": ["a note"] * (i != 4),
                    },
                )

    path = tmp_path_factory.mktemp("tfds")
    builder = Captioned(data_dir=path, file_format="array_record")
    builder.download_and_prepare()
    return path


def load(data_dir, split="train", how="auto"):
    return sources.load(
        "tfds:captioned", split, path=data_dir, captions=how, say=lambda line: None
    )


@pytest.mark.parametrize(("split", "own"), [("train", "train"), ("test", "validation")])
def test_every_image_has_its_captions(data_dir, split, own):
    dataset = load(data_dir, split)
    everything = np.arange(len(dataset))
    image = dataset.fetch(everything)["image"]
    numbers = np.rint((image[:, 0, 0, 0] + 1) * 127.5).astype(int)
    assert sorted(numbers) == list(range(SIZES[own]))
    assert dataset.captions(everything) == [f"{own} é {i} 0" for i in numbers]
    last = dataset.captions(everything, 0.999)
    assert last == [f"{own} é {i} {i % 3}" for i in numbers]
    assert set(dataset.all_captions()) == {
        f"{split} é {i} {k}"
        for split, size in SIZES.items()
        for i in range(size)
        for k in range(i % 3 + 1)
    }


def test_another_feature(data_dir):
    dataset = load(data_dir, how="feature:id")
    assert set(dataset.all_captions()) == {f"name {i}" for i in range(13)}
    assert load(data_dir, how="none").read_captions is None
    assert dataset.fingerprint() != load(data_dir, how="none").fingerprint()


@pytest.mark.parametrize("looked", [False, True])
def test_names_of_classes(data_dir, looked):
    dataset = load(data_dir, "test", "classes")
    everything = np.arange(len(dataset))
    early = None if looked else dataset.captions(everything)
    label = dataset.fetch(everything)["label"]
    wanted = [f"a photo of a {('cat', 'dog')[one]}" for one in label]
    assert set(label.tolist()) == {0, 1}
    assert wanted == (dataset.captions(everything) if looked else early)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("feature:notes", "1 of 13 images of .* have no caption"),
        ("feature:label", "'feature:label': .* choose feature:id, feature:captions"),
        ("feature:other", "has no feature of text that is called so"),
        ("files", "choose auto, none, feature:NAME, classes"),
    ],
)
def test_what_cannot_be_read_is_refused(data_dir, how, told):
    with pytest.raises(errors.Refusal, match=told):
        load(data_dir, how=how)


def test_no_tensorflow(data_dir):
    load(data_dir).fetch([0])
    assert "tensorflow" not in sys.modules
