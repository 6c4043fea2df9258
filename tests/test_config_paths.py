"""Paths in a config: the same from every directory, whichever way they are given."""

import pytest

from ddpm_jax import config as config_lib
from ddpm_jax import main
from ddpm_jax.config import paths, reading
from ddpm_jax.core import errors


def config_of(**fields):
    config = config_lib.base()
    for name, value in fields.items():
        section, field = name.split("__")
        config[section][field] = value
    return config


@pytest.mark.parametrize("field", paths.FIELDS)
@pytest.mark.parametrize("value", ["a/b.csv", "./a/b.csv", "/x/b.csv", "~/b.csv"])
def test_what_is_stored_is_absolute(field, value, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    config = config_of(**{field.replace(".", "__"): value})
    stored = dict(reading.leaves(paths.absolute(config).to_dict()))
    expected = {"/": "/x/b.csv", "~": "/home/me/b.csv"}
    assert stored[field] == expected.get(value[0], str(tmp_path / "a/b.csv"))
    assert dict(reading.leaves(config.to_dict()))[field] == value
    others = {k: v for k, v in stored.items() if k != field}
    usual = dict(reading.leaves(config_lib.base().to_dict()))
    assert others == {k: v for k, v in usual.items() if k != field}


@pytest.mark.parametrize("field", paths.FIELDS)
@pytest.mark.parametrize("value", ["", "gs://bucket/a"])
def test_what_is_no_path_stays(field, value):
    config = config_of(**{field.replace(".", "__"): value})
    assert paths.absolute(config) == config


@pytest.mark.parametrize("word", paths.WORDS["data.labels"])
def test_words_for_labels_stay_and_differ(word):
    config = config_of(data__labels=word)
    assert paths.absolute(config) == config
    other = config_of(data__labels="other.csv")
    with pytest.raises(errors.Refusal, match=r"data\.labels"):
        reading.check_same_run(config, other, workdir="runs/a")


@pytest.mark.parametrize(
    ("saved", "given"),
    [
        ({"train__init_from": "runs/a"}, {"train__init_from": "{cwd}/runs/a"}),
        ({"train__init_from": "{cwd}/runs/a"}, {"train__init_from": "runs/a/"}),
        ({"data__labels": "my.csv"}, {"data__labels": "{cwd}/my.csv"}),
        ({"data__labels": "/old/my.csv"}, {"data__labels": "my.csv"}),
        ({"data__path": "photos"}, {"data__path": "/else/photos"}),
    ],
)
def test_the_same_run_however_its_paths_are_given(saved, given, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    one, two = (
        config_of(**{k: v.format(cwd=tmp_path) for k, v in fields.items()})
        for fields in (saved, given)
    )
    reading.check_same_run(one, two, workdir="runs/a")


def test_another_source_of_weights_is_another_run(monkeypatch, tmp_path):
    one = config_of(train__init_from="runs/a")
    with pytest.raises(errors.Refusal, match=r"train\.init_from"):
        reading.check_same_run(one, config_of(train__init_from="/runs/a"), workdir="b")


def test_the_command_line_knows_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / "c.py"
    file.write_text("from ddpm_jax.config import base as get_config\n")
    given = ["", f"--config={file}", "--config.data.path=~/photos"]
    assert main.parse(given).config.data.path == f"{tmp_path}/photos"
