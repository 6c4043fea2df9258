"""Advice on sizes and levels: whatever is named, data and network can be built with."""

import re

import numpy as np
import pytest

from ddpm_jax import config as config_lib
from ddpm_jax import main
from ddpm_jax.builders import data as build_data
from ddpm_jax.builders import network as build_network
from ddpm_jax.core import errors


def build(file, *flags):
    config = main.parse(["ddpm-jax", f"--config={file}", *flags]).config
    dataset = build_data.dataset(config, "train", say=lambda line: None)
    return build_network.network(config, build_data.DataInfo.of(dataset))


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("from ddpm_jax.config import base as get_config\n")
    return file


@pytest.mark.parametrize(
    ("source", "own", "fields", "number"),
    [
        ("folder", (28, 28), ["--config.model.attention_resolutions=14,7"], 2),
        ("folder", (30, 44), [], 2),
        ("folder", (6, 6), [], 1),
        ("folder", (100, 100), ["--config.data.image_size=28"], 3),
        ("npz", (28, 28), ["--config.data.crop=none"], 2),
    ],
)
def test_all_that_is_advised_works(tmp_path, file, own, fields, number, source):
    images = np.zeros((20, *own), np.uint8)
    path = tmp_path / "data"
    if source == "npz":
        path = tmp_path / "data.npz"
        np.savez(path, images=images)
    else:
        path.mkdir()
        for i, image in enumerate(images):
            np.save(path / f"{i}.npy", image)
    given = [f"--config.data.name={source}", f"--config.data.path={path}", *fields]
    given += ["--config.model.channels=32", "--config.model.num_res_blocks=1"]
    with pytest.raises(errors.Refusal) as refused:
        build(file, *given)
    sentence = str(refused.value)
    assert "x".join(map(str, own)) in sentence or "28x28" in sentence
    advised = re.split(r", or ", sentence.partition(": give ")[2])
    assert len(advised) == number
    for flags in advised:
        build(file, *given, *flags.split())


def test_data_that_cannot_be_cut_get_no_other_size(file):
    given = ["--config.model.channels=32", "--config.model.channel_mult=1,1,1,1,1"]
    with pytest.raises(errors.Refusal) as refused:
        build(file, *given)
    assert "image_size=" not in str(refused.value)
    flags = str(refused.value).partition(": give ")[2].split()
    build(file, *given, *flags)


def test_where_nothing_fits_the_network_tells(tmp_path):
    facts = build_data.DataInfo((28, 28, 1), 256, 9, None, (), "")
    config = config_lib.base()
    config.model.norm_groups = 7
    with pytest.raises(errors.Refusal, match="not divisible by 8"):
        build_network.network(config, facts)
