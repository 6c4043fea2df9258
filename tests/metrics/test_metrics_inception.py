"""The Inception network of FID against PyTorch's port of it, and its weights."""

import hashlib
import importlib.util
import pathlib
import shutil
import subprocess
import sys
import zipfile

import jax
import numpy as np
import pytest

from ddpm_jax.convert.formats import inception as inception_lib
from ddpm_jax.core import errors
from ddpm_jax.metrics import features as features_lib
from ddpm_jax.metrics import resize
from ddpm_jax.models import functional, inception

PROGRAM = pathlib.Path(__file__).with_name("torch_inception.py")
SHAPES = inception.build().shapes


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder with images.npy, weights.pth and expected.npz from PyTorch."""
    pytest.importorskip("torch")
    if importlib.util.find_spec("torch_fidelity") is None:
        pytest.skip("torch-fidelity is not installed (pip install --no-deps)")
    folder = tmp_path_factory.mktemp("inception")
    images = np.random.default_rng(0).integers(0, 256, (2, 20, 31, 3)).astype(np.uint8)
    np.save(folder / "images.npy", images)
    subprocess.run([sys.executable, PROGRAM, folder], check=True)
    return folder


@pytest.fixture(scope="module")
def tensors(published):
    import torch

    state = torch.load(published / "weights.pth", weights_only=True)
    return {name: tensor.numpy() for name, tensor in state.items()}


# ---- the network ---------------------------------------------------------------------


def test_every_head_is_that_of_pytorch(published):
    weights = inception_lib.load(published / "weights.pth", SHAPES)
    net = features_lib.inception_network(
        weights.params, fingerprint=weights.fingerprint, mode="tf-legacy"
    )
    images, expected = (
        np.load(published / name) for name in ("images.npy", "expected.npz")
    )
    found = jax.jit(net.apply)(net.params, images)
    assert {name: value.shape for name, value in found.items()} == {
        "pool": (2, 2048),
        "spatial": (2, 2023),
        "logits": (2, 1008),
    }
    for name, value in found.items():
        # The two images differ by far more than this, so that a swap would be seen.
        np.testing.assert_allclose(value, expected[name], rtol=1e-3, atol=1e-4)
        assert np.abs(expected[name][0] - expected[name][1]).max() > 0.1
    assert np.abs(expected["biased"] - expected["logits"]).max() > 1e-3


def test_the_legacy_resize_is_that_of_the_original_graph(published):
    images, expected = (
        np.load(published / name) for name in ("images.npy", "expected.npz")
    )
    prepared = resize.prepare(images, "tf-legacy")
    np.testing.assert_allclose(prepared, expected["prepared"], atol=1e-4)


def test_the_network_needs_its_own_parameters():
    params = {"fc": {"kernel": np.zeros((2048, 1008), np.float32)}}
    with pytest.raises(ValueError, match="another network"):
        inception.apply(params, np.zeros((1, 299, 299, 3), np.float32))


def test_the_published_number_of_weights():
    # torchvision's 27,161,264 without the auxiliary head (3,326,696), with 8 classes
    # more (8·2049), two numbers per channel for norms where ours has one bias, no bias
    # of the classes.
    channels = sum(
        leaf.shape[0]
        for path, leaf in functional.by_path(SHAPES).items()
        if path.endswith("/bias")
    )
    published = 27_161_264 - 3_326_696 + 8 * 2049
    assert functional.num_parameters(SHAPES) == published - channels - 1008


# ---- the weights ---------------------------------------------------------------------


def test_other_kinds_of_file_hold_the_same(published, tensors, tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    np.savez(tmp_path / "weights.npz", **tensors)
    safetensors.save_file(tensors, tmp_path / "weights.safetensors")
    loaded = [
        inception_lib.load(path, SHAPES)
        for path in (
            published / "weights.pth",
            tmp_path / "weights.npz",
            tmp_path / "weights.safetensors",
        )
    ]
    assert len({weights.fingerprint for weights in loaded}) == 1
    for weights in loaded[1:]:
        jax.tree.map(np.testing.assert_array_equal, weights.params, loaded[0].params)
    assert not loaded[0].published
    assert "not the published file" in loaded[0].notes[0]


def test_the_fingerprint_sees_one_changed_number(tensors, tmp_path):
    np.savez(tmp_path / "a.npz", **tensors)
    changed = dict(tensors)
    changed["fc.bias"] = tensors["fc.bias"] + np.eye(1, 1008, dtype=np.float32)[0]
    np.savez(tmp_path / "b.npz", **changed)
    first, second = (
        inception_lib.load(tmp_path / name, SHAPES).fingerprint
        for name in ("a.npz", "b.npz")
    )
    assert first != second


def refusal(function, *args):
    with pytest.raises(errors.Refusal) as caught:
        function(*args)
    return str(caught.value)


def test_no_weights(monkeypatch, tmp_path):
    monkeypatch.delenv(inception_lib.VARIABLE, raising=False)
    text = refusal(inception_lib.find)
    for part in ("never downloaded", "pytorch-fid", "91 MiB", "6726825d"):
        assert part in text
    assert inception_lib.VARIABLE in text
    monkeypatch.setenv(inception_lib.VARIABLE, str(tmp_path / "none.pth"))
    assert "none.pth" in refusal(inception_lib.find)


def test_weights_by_path_and_by_environment(monkeypatch, tmp_path):
    for name in ("a.pth", "b.pth"):
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.setenv(inception_lib.VARIABLE, str(tmp_path / "a.pth"))
    assert inception_lib.find() == tmp_path / "a.pth"
    assert inception_lib.find(tmp_path / "b.pth") == tmp_path / "b.pth"


def test_a_damaged_download_is_told_by_its_hash(published, tmp_path):
    path = tmp_path / inception_lib.PUBLISHED
    shutil.copy(published / "weights.pth", path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    text = refusal(inception_lib.load, path, SHAPES)
    assert digest[:8] in text
    assert "6726825d" in text


def test_other_networks_are_refused(tensors, tmp_path):
    path = tmp_path / "weights.npz"
    torchvision = tensors | {
        "fc.weight": np.zeros((1000, 2048), np.float32),
        "fc.bias": np.zeros(1000, np.float32),
        "AuxLogits.fc.bias": np.zeros(1000, np.float32),
    }
    np.savez(path, **torchvision)
    text = refusal(inception_lib.load, path, SHAPES)
    for part in ("torchvision", "AuxLogits", "1000", "1008"):
        assert part in text

    np.savez(path, **{k: v for k, v in tensors.items() if "Mixed_7c" not in k})
    assert "Mixed_7c" in refusal(inception_lib.load, path, SHAPES)

    broken = tensors | {"fc.bias": np.full(1008, np.nan, np.float32)}
    np.savez(path, **broken)
    assert "NaN" in refusal(inception_lib.load, path, SHAPES)


def test_without_pytorch_the_sentence_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    with zipfile.ZipFile(tmp_path / "weights.pth", "w") as archive:
        archive.writestr("weights/data.pkl", b"")
    text = refusal(inception_lib.load, tmp_path / "weights.pth", SHAPES)
    assert "pip install" in text


def test_a_file_that_is_no_archive(tmp_path):
    path = tmp_path / "weights.npz"
    path.write_bytes(b"no archive")
    assert "cannot be read" in refusal(inception_lib.load, path, SHAPES)
