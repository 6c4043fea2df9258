"""Which of the files of a folder are taken: averages first, shards as one."""

import json

import numpy as np
import pytest
import safetensors.numpy

from ddpm_jax.convert import open as open_lib
from ddpm_jax.convert import readers
from ddpm_jax.core import errors

STEM = "diffusion_pytorch_model"
NAMES = ("time_embedding.linear_1.weight", "conv_in.weight")


def model(folder, **files):
    """Write a model whose every file holds its own number, and return the folder."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"in_channels": 3, "decay": 0.9}))
    for name, value in files.items():
        write(folder / f"{STEM}{name}", dict.fromkeys(NAMES, value))
    return folder


def write(path, values):
    tensors = {name: np.full((2, 2), value) for name, value in values.items()}
    if path.suffix == ".bin":
        torch = pytest.importorskip("torch")
        torch.save({k: torch.tensor(v) for k, v in tensors.items()}, path)
    else:
        safetensors.numpy.save_file(tensors, path)


def shards(folder, suffix, variant="", late=False):
    """Write the two tensors in a file each, with their index; return its path."""
    where = {}
    for i, name in enumerate(NAMES):
        file = f"{STEM}{variant}-{i + 1:05}-of-00002.{suffix}"
        write(folder / file, {name: 7.0 + i})
        where[name] = file
    index = f"{STEM}{variant}.{suffix}.index.json"
    if late:
        index = f"{STEM}.{suffix}.index{variant}.json"
    (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return folder / index


def taken(source):
    return float(source.tensors[NAMES[0]][0, 0])


@pytest.mark.parametrize(
    ("variants", "winner", "said"),
    [
        ((".safetensors",), 0, ""),
        ((".bf16.safetensors",), 0, ""),
        ((".bin",), 0, ""),
        ((".bin", ".safetensors"), 1, ""),
        ((".fp16.safetensors", ".bin"), 1, ""),
        ((".ema.safetensors", ".non_ema.safetensors"), 0, "took"),
        ((".safetensors", ".ema.safetensors"), 1, "took"),
        ((".safetensors", ".fp16.ema.bin"), 1, "took"),
        ((".non_ema.safetensors", ".safetensors"), 1, ""),
        ((".non_ema.safetensors",), 0, "are raw weights"),
    ],
)
def test_averages_win_among_the_variants(variants, winner, said, tmp_path):
    files = {name: float(i) for i, name in enumerate(variants)}
    source = open_lib.open_source(model(tmp_path / "unet", **files).parent)
    assert taken(source) == winner
    notes = [note for note in source.notes if "cast" not in note]
    assert (said in notes[0]) if said else notes == []


def test_averages_of_accelerate_win_over_the_raw_weights(tmp_path):
    for value, name in enumerate(("unet", "unet_ema")):
        model(tmp_path / name, **{".safetensors": float(value)})
    source = open_lib.open_source(tmp_path)
    assert taken(source) == 1
    assert "took unet_ema/, the average (EMA), rather than unet/" in source.notes[0]
    assert source.configs["config.json"]["in_channels"] == 3
    raw = open_lib.open_source(tmp_path / "unet")
    assert taken(raw) == 0
    assert "their average lies in" in raw.notes[0]


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@pytest.mark.parametrize(
    ("variant", "late"), [("", False), (".bf16", False), (".bf16", True)]
)
def test_shards_are_read_as_one(suffix, variant, late, tmp_path):
    index = shards(model(tmp_path / "unet"), suffix, variant, late)
    part = index.with_name(f"{STEM}{variant}-00002-of-00002.{suffix}")
    for path in (tmp_path, index.parent, index, part):
        source = open_lib.open_source(path)
        assert [source.tensors[name][0, 0] for name in NAMES] == [7, 8]
        assert "in 2 parts" in source.notes
        assert source.bytes > part.stat().st_size
        assert source.configs["config.json"]["in_channels"] == 3


def test_shards_that_are_not_whole_are_refused(tmp_path):
    index = shards(model(tmp_path / "unet"), "safetensors")
    listed = json.loads(index.read_text())["weight_map"]
    first, second = (index.with_name(name) for name in listed.values())

    def refused(path, said):
        with pytest.raises(errors.Refusal, match=said):
            open_lib.open_source(path)

    write(second, {"another": 1.0})
    refused(tmp_path, "lacks the tensor 'conv_in.weight'")
    second.unlink()
    refused(tmp_path, "00002-of-00002.safetensors, which is not beside it")
    for content in ("[", "{}", '{"weight_map": 3}'):
        index.write_text(content)
        refused(tmp_path, "is no index of shards")
    index.write_text(json.dumps({"weight_map": {"a": "../../etc/x.safetensors"}}))
    refused(tmp_path, "lists no files that lie beside it")
    index.unlink()
    refused(first, "is a part of several")


def test_an_index_of_shards_is_hashed_with_them(tmp_path):
    index = shards(model(tmp_path / "unet"), "safetensors")
    assert len(readers.open_sharded(index).files) == 3
