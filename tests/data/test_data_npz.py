import numpy as np
import pytest

from ddpm_jax.core import errors
from ddpm_jax.data import sources

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 8, 6, 3), dtype=np.uint8)
IDS = np.arange(40) % 4


def load(path, split="train", **options):
    return sources.load("npz", split, path=path, **options)


@pytest.mark.parametrize("keys", [("arr_0", "arr_1"), ("images", "labels")])
def test_openais_samples_are_read_back(tmp_path, keys):
    path = tmp_path / "samples.npz"
    np.savez(path, **dict(zip(keys, (IMAGES, IDS), strict=True)))
    seen = {}
    for split in sources.SPLITS:
        dataset = load(path, split)
        assert dataset.shape == (8, 6, 3)
        assert (dataset.levels, dataset.num_classes) == (256, 4)
        assert dataset.class_names == tuple("0123")
        batch = dataset.fetch(range(len(dataset)))
        grey = np.rint((batch["image"] + 1) * 127.5).astype(np.uint8)
        seen |= {
            image.tobytes(): label
            for image, label in zip(grey, batch["label"], strict=True)
        }
    assert seen == {i.tobytes(): k for i, k in zip(IMAGES, IDS, strict=True)}


def test_arrays_of_other_kinds(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, arr_0=IMAGES[..., 0])
    assert load(path).shape == (8, 6, 1)
    assert load(path).num_classes is None
    np.savez_compressed(path, arr_0=IMAGES.astype(np.uint16) * 257, arr_1=IDS)
    deep = load(path, labels="none", image_size=(4,), crop="random")
    assert (deep.levels, deep.shape) == (65536, (4, 4, 3))
    assert deep.num_classes is None
    draws = np.full((2, 3), 0.5)
    assert deep.fetch([0, 1], draws)["image"].shape == (2, 4, 4, 3)
    assert load(path, channels=1).shape == (8, 6, 1)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_first_is_refused_as_in_npy_files(tmp_path, channels):
    images = np.zeros((40, channels, 16, 16), np.uint8)
    images[:] = np.arange(40)[:, None, None, None]
    path = tmp_path / "a.npz"
    np.savez(path, arr_0=images)
    with pytest.raises(errors.Refusal, match=r"looks like \[C, H, W\]") as refused:
        load(path)
    assert "images.transpose(0, 2, 3, 1)" in str(refused.value)
    np.savez(path, arr_0=images.transpose(0, 2, 3, 1))
    assert load(path).shape == (16, 16, channels)
    (tmp_path / "npy").mkdir()
    for i, image in enumerate(images):
        np.save(tmp_path / f"npy/{i}.npy", image)
    with pytest.raises(errors.Refusal, match=r"looks like \[C, H, W\]"):
        sources.load("folder", "train", path=tmp_path / "npy")


def test_planes_that_are_read_as_channels_are_remarked(tmp_path):
    volumes = np.random.default_rng(0).integers(0, 256, (40, 8, 16, 16), np.uint8)
    path = tmp_path / "a.npz"
    np.savez(path, arr_0=volumes)
    said = []
    assert load(path, say=said.append).shape == (8, 16, 16)
    [told] = said
    assert "read as images of 8x16 with 16 channels" in told
    assert "images.transpose(0, 2, 3, 1)" in told
    assert told.endswith("images.reshape(-1, 16, 16)")
    load(path, "test", say=said.append)
    for other in (volumes.transpose(0, 2, 3, 1), volumes.reshape(-1, 16, 16), IMAGES):
        np.savez(path, arr_0=other)
        load(path, say=said.append)
    assert len(said) == 1
    (tmp_path / "npy").mkdir()
    for i, volume in enumerate(volumes):
        np.save(tmp_path / f"npy/{i}.npy", volume)
    sources.load("folder", "train", path=tmp_path / "npy", say=said.append)
    for part in ("16 channels", "40 images", "[C, H, W]"):
        assert part in said[-1]


def test_the_fingerprint_covers_every_value(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, arr_0=IMAGES)
    before = load(path).fingerprint()
    changed = IMAGES.copy()
    changed[3, 2, 1, 0] ^= 1
    np.savez(path, arr_0=changed)
    assert load(path).fingerprint() != before


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ({"x": IMAGES}, {}, "holds x: it needs arr_0 or images"),
        ({"arr_0": IMAGES[0, 0]}, {}, r"shape \(6, 3\): save \[N, H, W, C\]"),
        (
            {"arr_0": IMAGES[..., None]},
            {},
            r"\(40, 8, 6, 3, 1\), as volumes .*slices.*reshape\(-1, \*images.shape\[2:",
        ),
        ({"arr_0": IMAGES[:, None]}, {}, r"reshape\(-1, \*images.shape\[3:"),
        ({"arr_0": IMAGES / 1.0}, {}, "floats from 0 to 255: scale them"),
        ({"arr_0": IMAGES.astype(int)}, {}, "type int64"),
        ({"arr_0": IMAGES, "arr_1": IDS * 2}, {}, "go up to 6 but leave out 1, 3, 5"),
        ({"arr_0": IMAGES, "arr_1": IDS - 1}, {}, "go up to 2 but hold -1 too"),
        ({"arr_0": IMAGES, "arr_1": IDS[:5]}, {}, r"int64 \(5,\): save one integer"),
        ({"arr_0": IMAGES}, {"image_size": (16,)}, "8x6, smaller than .*16x16"),
        ({"arr_0": IMAGES}, {"image_size": (4,), "crop": "none"}, "crop=center"),
        ({"arr_0": IMAGES}, {"channels": 2}, "have 3 channels"),
        ({"arr_0": IMAGES}, {"labels": "prefix"}, "'prefix': .*use auto or none"),
        ({"arr_0": np.array([{}])}, {}, "cannot be read"),
    ],
)
def test_refusals(tmp_path, arrays, options, message):
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)
    with pytest.raises(errors.Refusal, match=message):
        load(path, **options)


def test_what_is_no_npz_file_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    with pytest.raises(errors.Refusal, match=r"a.npz' is no file: give the .npz file"):
        load(path)
    path.write_text("<html>")
    with pytest.raises(errors.Refusal, match="is an HTML page"):
        load(path)
