"""Opening what people have: whole, damaged, of others, and no checkpoints at all."""

import hashlib
import json
import os
import pathlib
import subprocess
import sys
import zipfile

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from ddpm_jax.convert import open as open_lib
from ddpm_jax.convert import readers
from ddpm_jax.convert.formats import native
from ddpm_jax.core import errors

UNET = {
    "time_embed.0.weight": np.ones((8, 2), np.float32),
    "input_blocks.0.0.weight": np.arange(6, dtype=np.float32).reshape(2, 3, 1, 1),
}


def saved(path, tensors):
    safetensors.numpy.save_file(tensors, path)
    return path


def refused(path, *parts):
    with pytest.raises(errors.Refusal) as caught:
        open_lib.open_source(path)
    message = str(caught.value)
    for part in parts:
        assert part in message, message
    assert "weights_only" not in message
    return message


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


# ---- whole files ---------------------------------------------------------------------


def test_safetensors(tmp_path):
    path = saved(tmp_path / "model.safetensors", UNET)
    source = open_lib.open_source(str(path))
    assert source.format == "openai"
    assert source.shapes["input_blocks.0.0.weight"] == (2, 3, 1, 1)
    assert set(source.dtypes.values()) == {"float32"}
    assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert source.bytes == path.stat().st_size
    assert source.notes == []
    assert len(source.tensors) == 2
    for key, value in UNET.items():
        np.testing.assert_array_equal(source.tensors[key], value)
    assert "2 tensors, 22 numbers" in source.describe()


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_precisions_are_cast_aloud(dtype, tmp_path):
    tensors = {key: value.astype(dtype) for key, value in UNET.items()}
    source = open_lib.open_source(saved(tmp_path / "model.safetensors", tensors))
    assert source.tensors["time_embed.0.weight"].dtype == np.float32
    assert source.notes == [f"2 of 2 tensors are {np.dtype(dtype)}: cast to float32"]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("new", [True, False])
def test_pytorch(dtype, new, tmp_path, torch):
    path = tmp_path / "model.pt"
    tensors = {k: torch.tensor(v).to(getattr(torch, dtype)) for k, v in UNET.items()}
    torch.save(tensors, path, _use_new_zipfile_serialization=new)
    source = open_lib.open_source(path)
    for key, value in UNET.items():
        np.testing.assert_array_equal(source.tensors[key], value)
    assert set(source.dtypes.values()) == {dtype}
    assert len(source.notes) == (dtype != "float32")


def test_a_parallel_wrapper_is_taken_off_aloud(tmp_path):
    wrapped = {f"module.{key}": value for key, value in UNET.items()}
    source = open_lib.open_source(saved(tmp_path / "model.safetensors", wrapped))
    assert source.shapes.keys() == UNET.keys()
    assert "DataParallel" in source.notes[0]


@pytest.mark.parametrize(
    "prefix",
    ["_orig_mod.", "model.", "ema_model.", "module._orig_mod.", "_orig_mod.module."],
)
def test_wrappers_are_taken_off_in_any_order(tmp_path, prefix):
    wrapped = {f"{prefix}{key}": value for key, value in UNET.items()}
    source = open_lib.open_source(saved(tmp_path / "model.safetensors", wrapped))
    assert source.shapes.keys() == UNET.keys()
    for key, value in UNET.items():
        np.testing.assert_array_equal(source.tensors[key], value)
    taken = [part for part in prefix.split(".") if part]
    assert len(source.notes) == len(taken)
    for part, note in zip(taken, source.notes, strict=True):
        assert f"'{part}.'" in note


def test_our_own_files(tmp_path):
    path = tmp_path / "model.safetensors"
    tensors = {"conv_in/kernel": np.ones((3, 3, 1, 2), np.float32)}
    metadata = native.metadata({"model.channels": 2})
    safetensors.numpy.save_file(tensors, path, metadata)
    source = open_lib.open_source(path)
    assert source.format == "ddpm_jax"
    assert native.recognise(source.configs[native.METADATA]) == {"model.channels": 2}


def test_raw_and_averaged_weights_of_one_step(tmp_path, torch):
    tensors = {key: torch.tensor(value) for key, value in UNET.items()}
    for name in ("model500000.pt", "ema_0.9999_500000.pt", "model400000.pt"):
        torch.save(tensors, tmp_path / name)

    def notes(name):
        return open_lib.open_source(tmp_path / name).notes

    assert "raw weights of step 500000" in notes("model500000.pt")[0]
    assert "ema_0.9999_500000.pt" in notes("model500000.pt")[0]
    assert "averaged weights (EMA), not the raw" in notes("ema_0.9999_500000.pt")[0]
    assert notes("model400000.pt") == []
    refused(tmp_path, "model500000.pt", "give one of its files")


# ---- no checkpoints ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><html>", "is a web page"),
        (b"<html><body>404", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
    ],
)
def test_what_downloads_leave(content, said, tmp_path):
    for name in ("model.pt", "model.safetensors"):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, said, name)


def test_a_zip_of_images(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("cat.png", "x")
        archive.writestr("dog.png", "x")
    refused(tmp_path / "model.pt", "zip of 2 files (cat.png", "no checkpoint")


def test_nothing_there(tmp_path):
    refused(tmp_path / "model.pt", "does not exist")
    refused(tmp_path, "holds no diffusers model", "unet/config.json")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    refused(tmp_path / "picture.png", "ends in none of", ".safetensors")


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_truncated_file(kept, tmp_path, torch):
    tensors = {"time_embed.0.weight": torch.ones(300, 300)}
    for name, new in (("model.pt", True), ("old.pt", False)):
        torch.save(tensors, tmp_path / name, _use_new_zipfile_serialization=new)
        cut(tmp_path / name, kept)
        refused(tmp_path / name, "fetch it again", "bytes")
    path = saved(tmp_path / "model.safetensors", UNET)
    cut(path, kept)
    refused(path, "fetch it again", "bytes")


def cut(path, kept):
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])


def test_files_that_hold_more_than_tensors(tmp_path, torch):
    path = tmp_path / "model.pt"
    torch.save({"net": torch.nn.Linear(2, 2)}, path)
    message = refused(path, "holds more than tensors", "run code", ".safetensors")
    assert "Linear" in message
    torch.save({"state_dict": {"a": torch.ones(1)}, "epoch": 3}, path)
    refused(path, "holds no network that is known here", "called state_dict.a")
    inner = {"model.diffusion_model.a": torch.ones(1)}
    torch.save({"state_dict": inner, "global_step": 3}, path)
    refused(path, "Stable Diffusion")
    path.write_text("hello world " * 50)
    refused(path, "is no PyTorch file", "give a file of weights")
    torch.save([torch.ones(1)], path)
    refused(path, "holds a list", "state_dict()")
    torch.save({}, path)
    refused(path, "holds no tensors")


def test_an_optimizer_file(tmp_path, torch):
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "opt500000.pt")
    refused(tmp_path / "opt500000.pt", "state of an optimizer", "ema_….pt")


@pytest.mark.parametrize(
    ("key", "what"),
    [
        (
            "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q.weight",
            "cross attention",
        ),
        ("model.diffusion_model.time_embed.0.weight", "Stable Diffusion"),
        ("layer1.0.conv1.weight", "a ResNet"),
        ("blocks.input.w_voc", "is one encoder of GLIDE's noised CLIP"),
        ("blocks.0.attn.qkv.weight", "are called blocks.0.attn.qkv.weight"),
    ],
)
def test_checkpoints_of_other_models(key, what, tmp_path):
    tensors = {key: np.ones(2, np.float32)}
    refused(saved(tmp_path / "model.safetensors", tensors), what)


# ---- TensorFlow, and libraries that are missing --------------------------------------


def test_tensorflow_checkpoints_in_parts(tmp_path):
    (tmp_path / "model.ckpt-1.index").write_bytes(b"x")
    refused(tmp_path / "model.ckpt-1", "has no model.ckpt-1.data-")
    (tmp_path / "model.ckpt-2.index").write_bytes(b"x")
    refused(tmp_path, "several TensorFlow checkpoints", "model.ckpt-1, model.ckpt-2")


def test_libraries_that_are_missing(tmp_path, monkeypatch):
    for library in ("torch", "tensorflow", "safetensors"):
        monkeypatch.setitem(sys.modules, library, None)
    (tmp_path / "model.ckpt-1.index").write_bytes(b"x")
    (tmp_path / "model.ckpt-1.data-00000-of-00001").write_bytes(b"x")
    refused(tmp_path / "model.ckpt-1", readers.EXTRA_TENSORFLOW)
    (tmp_path / "model.pt").write_bytes(b"\x80\x02x")
    refused(tmp_path / "model.pt", readers.EXTRA)
    (tmp_path / "model.safetensors").write_bytes(b"x")
    refused(tmp_path / "model.safetensors", readers.EXTRA)


def test_json_that_is_none(tmp_path):
    (tmp_path / "config.json").write_text("{")
    tensors = dict.fromkeys(
        ("time_embedding.linear_1.weight", "conv_in.weight"), np.ones(1, np.float32)
    )
    saved(tmp_path / "diffusion_pytorch_model.safetensors", tensors)
    refused(tmp_path, "config.json is not JSON")
    (tmp_path / "config.json").write_text(json.dumps({"in_channels": 3}))
    assert open_lib.open_source(tmp_path).configs["config.json"] == {"in_channels": 3}


# ---- memory --------------------------------------------------------------------------

# What the process owns; pages of the mapped file are the system's to take back.
PEAK = """
import sys
import jax, torch, safetensors, ml_dtypes
from ddpm_jax.convert import mapping
from ddpm_jax.convert import open as open_lib

def owned():
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * next(int(l.split()[1]) for l in lines if l.startswith("RssAnon"))

jax.block_until_ready(jax.device_put(0.0))
before = owned()
source = open_lib.open_source(sys.argv[1])
params, peak = [], 0
for key in source.tensors:
    array = mapping.to_ours(mapping.Entry(key, (key,), "conv"), source.tensors)
    peak = max(peak, owned())
    params.append(jax.block_until_ready(jax.device_put(array)))
    peak = max(peak, owned())
print((peak - before) / source.bytes)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_an_import_needs_little_more_than_the_parameters(suffix, tmp_path, torch):
    keys = ["time_embed.0.weight", "input_blocks.0.0.weight"]
    keys += [f"block.{i}" for i in range(30)]
    tensors = {key: torch.full((512, 512, 4, 4), 0.5) for key in keys}  # 16 MiB each
    path = tmp_path / f"model.{suffix}"
    if suffix == "pt":
        torch.save(tensors, path)
    else:
        saved(path, {key: value.numpy() for key, value in tensors.items()})
    result = subprocess.run(
        [sys.executable, "-c", PEAK, str(path)],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        cwd=pathlib.Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    path.unlink()
    assert 0.9 < float(result.stdout) < 1.3  # the parameters, and little more
