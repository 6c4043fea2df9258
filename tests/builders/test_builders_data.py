"""What a run keeps of its data: of any shape, and as older runs wrote it."""

import dataclasses
import json

import numpy as np
import pytest

from ddpm_jax import config as schema
from ddpm_jax.builders import data as build_data
from ddpm_jax.builders import network as build_network
from ddpm_jax.core import errors
from ddpm_jax.data import sources
from ddpm_jax.evaluation import likelihood, monitor
from ddpm_jax.models import functional
from ddpm_jax.modes import data as data_mode

# "data" of the config.json of a run of version 1, and the data's fingerprint there.
OLDER = """{"class_names": ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
"fingerprint": "0bd82be6212a977cb1fd97334218f0f3f39f3341f123a6c7b81aa32d43237572",
"image_shape": [8, 8, 1], "levels": 17, "num_classes": 10, "num_examples": 1438}"""
POINTS = np.random.default_rng(0).standard_normal((30, 2), np.float32)


def points(split, request, shape=(2,), levels=None):
    """A source of continuous points, or of anything of another shape."""
    values = np.resize(POINTS, (30, *shape)).astype(np.float32)
    return sources.Dataset(
        name="points",
        split=split,
        shape=shape,
        levels=levels,
        num_classes=None,
        class_names=(),
        num_examples=len(values),
        read=lambda i: (values[i], np.zeros(len(i), np.int32)),
    )


@pytest.fixture
def config(monkeypatch):
    monkeypatch.setitem(sources.SOURCES, "points", points)
    made = schema.base()
    made.data.name = "points"
    return made


def test_an_older_run_on_the_digits_has_the_same_data():
    """Were they unlike, the run would refuse to go on."""
    older = build_data.DataInfo.from_dict(json.loads(OLDER))
    config = schema.base()
    config.data.name = "digits"
    assert older == build_data.DataInfo.of(build_data.dataset(config, "train"))


def test_points_are_kept_in_a_run(config):
    made = build_data.DataInfo.of(build_data.dataset(config, "train"))
    assert (made.shape, made.levels, made.size) == ((2,), None, "2, continuous")
    stored = json.loads(json.dumps(dataclasses.asdict(made)))
    assert stored["shape"] == [2]
    assert "image_shape" not in stored
    assert build_data.DataInfo.from_dict(stored) == made


# ---- refusals ------------------------------------------------------------------------


def facts_of(**changes):
    older = build_data.DataInfo.from_dict(json.loads(OLDER))
    return dataclasses.replace(older, **changes)


def test_what_needs_grey_levels_or_images_says_so():
    grey = facts_of(shape=(20, 1), levels=2)
    build_data.check_grey(grey, "x", "y")
    build_data.check_pictures(facts_of(), "x", "y")
    with pytest.raises(errors.Refusal, match=r"^fid: .* is \[20, 1\], no image .*; y$"):
        build_data.check_pictures(grey, "fid", "y")
    for check in (build_data.check_grey, build_data.check_pictures):
        with pytest.raises(
            errors.Refusal, match=r"^fid: the data is continuous .*; y$"
        ):
            check(facts_of(levels=None), "fid", "y")


def test_mirrors_are_for_images(config):
    config.data.flip = True
    with pytest.raises(errors.Refusal, match=r"flip=True .* is \[2\]: set data.flip=F"):
        build_data.dataset(config, "train")


def test_the_u_net_is_for_images(config):
    with pytest.raises(errors.Refusal, match=r"model.kind='unet' takes images .*\[2\]"):
        build_network.network(config, facts_of(shape=(2,)))


def test_other_data_than_the_network_takes(config):
    found = points("train", None)
    build_data.check_images(found, facts_of(shape=(2,), num_classes=None))
    with pytest.raises(errors.Refusal, match=r"'points' is \[2\] .* takes \[8, 8, 1\]"):
        build_data.check_images(found, facts_of())


def test_bits_per_dimension_and_scores_are_refused_before_training(config):
    facts = facts_of(shape=(2,), levels=None, num_classes=None)
    data, network = points("train", None), functional.Network({}, None, None)
    monitor.check(config, facts, network, data)
    config.train.evaluate_every = 10
    for metric, told in {
        "bits_per_dim": "bits_per_dim: the data is continuous",
        "proxy_fd_random": r"proxy_fd_random: one example of the data is \[2\]",
    }.items():
        config.evaluation.in_training = metric
        with pytest.raises(errors.Refusal, match=told):
            monitor.check(config, facts, network, data)
    with pytest.raises(errors.Refusal, match="leave it out, and compare validation"):
        likelihood.prepare(config, facts)


def test_the_page_of_the_data_tells_why_there_is_nothing_to_see(config, tmp_path):
    with pytest.raises(errors.Refusal, match=r"--mode=data: one example .* is \[2\]"):
        data_mode.run(config, tmp_path / "run")
    assert "no image" in (tmp_path / "run" / "data.html").read_text()
