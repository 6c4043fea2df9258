"""A folder with every fault is described as it was made."""

import io

import numpy as np
import pytest
from PIL import Image

from ddpm_jax.data import files, inspection, sources

SIZE = (12, 8)  # width, height


def png(rng, mode="RGB"):
    channels = len(mode)
    pixels = rng.integers(0, 256, (*SIZE[::-1], channels), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze(), mode).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c", "d"):
        (tmp_path / f"{name}.png").write_bytes(png(rng))
    (tmp_path / "again.png").write_bytes((tmp_path / "a.png").read_bytes())
    (tmp_path / "clear.png").write_bytes(png(rng, "RGBA"))
    Image.new("RGB", SIZE, (9, 9, 9)).save(tmp_path / "flat.png")
    (tmp_path / "cut.png").write_bytes(png(rng)[:150])
    (tmp_path / "words.png").write_text("no image at all")
    return tmp_path


def test_every_file_is_accounted_for(folder):
    found = inspection.inspect_files(files.open_images(folder), lambda line: None)
    assert {name for name, _ in found.unreadable} == {"cut.png", "words.png"}
    assert found.duplicates == (("a.png", "again.png"),)
    assert found.constant == ("flat.png",)
    assert dict(found.counts("mode")) == {"RGB": 7, "RGBA": 1}  # headers are readable
    assert found.sizes() == [((8, 12), 8)]


def test_only_a_share_of_many_files_is_decoded(folder, monkeypatch):
    monkeypatch.setattr(inspection, "MAX_DECODED", 3)
    found = inspection.inspect_files(files.open_images(folder), lambda line: None)
    assert found.num_decoded == 3


def test_what_is_seen_is_what_training_sees():
    dataset = sources.load("digits", "train")
    seen = inspection.inspect_dataset(dataset)
    chosen = np.linspace(0, len(dataset) - 1, 1000).astype(int)
    image = dataset.fetch(chosen)["image"]
    np.testing.assert_allclose(seen.mean_image, image.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(seen.channel_std, [image.std()], rtol=1e-5)
    assert (seen.minimum, seen.maximum) == (-1, 1)
    assert len(seen.examples) == 64
    assert sum(seen.class_counts) == seen.num_images == 1000


@pytest.mark.parametrize(
    ("largest", "kind", "factor"),
    [
        (4095, np.uint16, 16),  # 12 bits in 16
        (1023, np.uint16, 64),
        (1, np.uint8, 255),  # masks
        (100, np.uint8, 2),  # per cent
        (255, np.uint8, None),
        (65535, np.uint16, None),
    ],
)
def test_images_that_use_little_of_their_range_are_remarked(
    tmp_path, largest, kind, factor
):
    rng = np.random.default_rng(0)
    for i in range(20):
        array = rng.integers(0, largest, (8, 8), endpoint=True).astype(kind)
        array[0, 0] = largest
        np.save(tmp_path / f"{i}.npy", array)
    dataset = sources.load("folder", "train", path=tmp_path, say=lambda line: None)
    remarks = inspection.remarks(dataset, inspection.inspect_dataset(dataset, 5))
    assert bool(remarks) == bool(factor)
    for told in remarks:
        assert f"{largest:,} of 0 … {np.iinfo(kind).max:,}" in told
        assert f"multiplied by {factor:,}" in told
        assert factor * largest <= np.iinfo(kind).max
