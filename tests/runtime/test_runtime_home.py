"""The home folder: known, or refused; no folder is ever called "~"."""

import os

import jax
import pytest

from ddpm_jax import main
from ddpm_jax.config import reading
from ddpm_jax.core import errors
from ddpm_jax.evaluation import image_sets
from ddpm_jax.metrics import statistics
from ddpm_jax.runs import directory
from ddpm_jax.runtime import compilation, home


@pytest.fixture(params=["unset", "empty"])
def homeless(request, monkeypatch, tmp_path):
    """A user whom no table knows, as in a container, in an empty folder."""

    def unknown(user):
        raise KeyError(user)

    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.setattr("pwd.getpwnam", unknown)
    monkeypatch.delenv("HOME")
    if request.param == "empty":
        monkeypatch.setenv("HOME", "")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "use",
    [
        home.expanded,
        directory.RunDir.create,
        directory.RunDir.open_existing,
        directory.RunDir.at,
        statistics.load,
        lambda path: image_sets.of_path(path, "evaluation.samples"),
        lambda path: main.parse(["", "--mode=convert", f"--source={path}"]),
        reading.from_file,
    ],
)
def test_an_unknown_home_is_refused_and_no_folder_is_made(homeless, use):
    for path in ("~/runs/a", "~nobody-here/runs/a"):
        with pytest.raises(errors.Refusal) as refused:
            use(path)
        assert path in str(refused.value)
    assert os.listdir(homeless) == []


@pytest.mark.parametrize("variable", ["HOME", "XDG_CACHE_HOME"])
def test_without_a_home_there_is_no_cache(homeless, monkeypatch, variable):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if variable == "XDG_CACHE_HOME":
        monkeypatch.setenv(variable, "~/cache")
    before, said = jax.config.jax_compilation_cache_dir, []
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        assert compilation.enable_cache(say=said.append) is None
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    assert "HOME" in said[0]
    assert os.listdir(homeless) == []


def test_a_known_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home.expanded("~/runs/a") == tmp_path / "runs" / "a"
    assert home.expanded("a/~/b").as_posix() == "a/~/b"
    assert directory.RunDir.at("~/a").path == tmp_path / "a"


def test_a_folder_whose_name_begins_like_one(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~photos-2020").mkdir()
    assert home.expanded("~photos-2020/a").as_posix() == "~photos-2020/a"
