"""A weight format is its record: one entry makes it open, convert and export."""

import numpy as np
import pytest
import safetensors.numpy

from ddpm_jax.convert import certificate, mapping, recognise
from ddpm_jax.convert import format as format_lib
from ddpm_jax.convert import open as open_lib
from ddpm_jax.convert.export import writing
from ddpm_jax.convert.formats import EXPORTS, FORMATS
from ddpm_jax.core import errors

SHAPES = {"stem/kernel": (3, 3, 1, 4), "head/bias": (4,)}
NEEDED = {"diffusion.num_steps": "100 (toys)"}
GIVEN = {"data.image_size": (8, 8), "diffusion.num_steps": 100}


def entries(our_shapes, fields):
    del fields
    return [
        mapping.Entry(path, (path.replace("/", ":"),), "copy") for path in our_shapes
    ]


def save(path, content):
    safetensors.numpy.save_file(content.tensors, path)
    return ("for toys",)


TOY = format_lib.Format(
    name="toy",
    about="weights of toys",
    marks=(frozenset({"stem:kernel", "head:bias"}),),
    present_name=lambda name: name.replace("trunk:", "stem:"),
    recognise=lambda shapes: {
        "model.kind": "unet",
        "model.channels": shapes["stem:kernel"][-1],
    },
    code="the toy code",
    dialect={"model.num_heads": 1},
    entries=entries,
    needed=NEEDED,
    export=format_lib.Export("toy", ".safetensors", save),
)


@pytest.fixture(autouse=True)
def entry(monkeypatch):
    """All that a new format needs beside its file."""
    monkeypatch.setitem(FORMATS, "toy", TOY)
    monkeypatch.setitem(EXPORTS, "toy", TOY)


def test_a_new_format_is_exported_known_and_read_back(tmp_path):
    random = np.random.default_rng(0)
    params = {p: np.float32(random.normal(size=s)) for p, s in SHAPES.items()}
    fields = {"model.kind": "unet"}
    output = tmp_path / "toy.safetensors"
    written = writing.write(
        "toy",
        output,
        params=params,
        fields=fields,
        image_shape=(8, 8, 1),
        provenance={},
    )
    assert written.sentences == ("for toys",)
    source = open_lib.open_source(output)
    assert source.format == "toy"
    assert "weights of toys" in source.describe()
    assert set(source.shapes) == {"stem:kernel", "head:bias"}
    writing.reload_and_compare("toy", output, params, fields)


def test_a_new_format_says_what_its_files_are(tmp_path):
    tensors = {
        "trunk:kernel": np.zeros((3, 3, 1, 4), np.float32),
        "head:bias": np.zeros(4, np.float32),
    }
    safetensors.numpy.save_file(tensors, tmp_path / "old.safetensors")
    source = open_lib.open_source(tmp_path / "old.safetensors")
    assert source.format == "toy"
    assert any("old toy names" in note for note in source.notes)
    found = recognise.recognise(source, {**GIVEN, "model.num_heads": 2})
    assert found.fields["model.channels"] == 4
    assert found.origin["model.channels"] == recognise.SHAPES
    assert found.fields["model.num_heads"] == 2  # the dialect is a preference
    assert any("the toy code" in sentence for sentence in found.assumed)
    with pytest.raises(errors.Refusal) as refusal:
        recognise.recognise(source, {"data.image_size": (8, 8)})
    assert "--config.diffusion.num_steps=…  100 (toys)" in str(refusal.value)
    made = certificate.certify(source, found.fields, None, {})
    assert made.acceptable
    assert "toy" in made.reason
