"""Diagnosing a tiny run: every check speaks, nothing changes, faults are found."""

import dataclasses
import re

import jax
import numpy as np
import pytest
import small_runs

from ddpm_jax.builders import data as build_data
from ddpm_jax.builders import trained_run
from ddpm_jax.core import errors
from ddpm_jax.modes import diagnose

NAMES = [
    "data",
    "schedule",
    "sampler",
    "timesteps",
    "prediction",
    "denoising",
    "weights",
    "clipping",
    "steps",
    "colour",
    "detail",
    "copies",
]
LINE = re.compile(r"  (ok|watch|problem|not checked) +(\w+) +(\S.*)")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Fewer images and steps; their sizes change no code."""
    for name, value in {
        "IMAGES": 16,
        "LEVELS": 8,
        "TOLD_IMAGES": 8,
        "TOLD_LEVELS": 3,
        "WALKED": 8,
        "TRAINING_IMAGES": 200,
        "HELD_OUT": 40,
    }.items():
        monkeypatch.setattr(diagnose, name, value)


@pytest.fixture
def diagnosed(capsys):
    """Return a function: workdir, changes → (name → (verdict, said), last line)."""

    def run(workdir, **sampling):
        config = trained_run.read(workdir).config
        config.sampling.update(sampling)
        capsys.readouterr()
        diagnose.run(config, workdir)
        lines = capsys.readouterr().out.splitlines()
        found = [match.groups() for line in lines if (match := LINE.match(line))]
        return {name: (verdict, said) for verdict, name, said in found}, lines[-1]

    return run


def test_a_run_of_six_steps_is_told_to_train(trained, diagnosed):
    before = small_runs.content(trained)
    found, last = diagnosed(trained)
    assert list(found) == NAMES
    for name in ("data", "schedule", "sampler", "copies"):
        assert found[name][0] == "ok", (name, found[name])
    verdict, said = found["denoising"]
    assert verdict == "problem"
    assert "no better than a trivial guess" in said
    assert last.startswith("look first at denoising: ")
    after = small_runs.content(trained)
    page = after.pop("diagnosis.html").decode()
    assert after == before
    for name in NAMES:
        assert f'<section id="{name}">' in page
    assert page.count("<svg") >= 6
    assert page.count("data:image/") >= 7
    assert "http" not in page.replace("http-equiv", "")
    assert diagnosed(trained) == (found, last)
    again = (trained / "diagnosis.html").read_text()
    assert without_times(again) == without_times(page)


def without_times(page):
    return re.sub("<time.*?</time>", "", page)


def opened_with(monkeypatch, change):
    """Let runs be opened with another state than the one that is saved."""
    opened = trained_run.open_run

    def changed(*args, **kwargs):
        run = opened(*args, **kwargs)
        return dataclasses.replace(run, state=change(run.state))

    monkeypatch.setattr(trained_run, "open_run", changed)


def test_averages_of_initial_weights_are_found_where_they_are_insisted_on(
    trained, diagnosed, monkeypatch
):
    share = {"0.5": np.float32(0.37)}
    opened_with(monkeypatch, lambda state: state.replace(ema_initial_share=share))
    found, _ = diagnosed(trained, weights="ema")
    verdict, said = found["weights"]
    assert verdict == "problem"
    assert said.startswith("EMA 0.5 holds 37 % of the initial weights")
    assert "the EMA weights, which are used" in said


def test_a_respacing_without_the_noisy_steps_comes_first(trained, diagnosed):
    found, last = diagnosed(trained, steps=None, respacing="1")
    assert found["schedule"][0] == "problem"
    assert "1 steps from t = 0" in found["schedule"][1]
    assert last.startswith("look first at schedule: ")


def test_without_data_the_rest_is_checked(trained, diagnosed, monkeypatch):
    def gone(config, split):
        raise errors.Refusal("data.path=/gone does not exist")

    monkeypatch.setattr(build_data, "dataset", gone)
    found, _ = diagnosed(trained)
    assert list(found) == NAMES
    unchecked = [name for name, (verdict, _) in found.items() if "not" in verdict]
    assert unchecked == [n for n in NAMES if n not in ("schedule", "sampler", "steps")]
    assert found["data"][1] == "data.path=/gone does not exist"


def test_weights_that_are_nan_are_found(trained, diagnosed, monkeypatch):
    def broken(state):
        nan = jax.tree.map(lambda leaf: leaf * np.nan, state.params)
        return state.replace(params=nan)

    opened_with(monkeypatch, broken)
    found, last = diagnosed(trained, weights="raw")
    for name in ("denoising", "colour", "detail", "copies"):
        assert found[name][0] == "problem"
        assert "NaN" in found[name][1]
    assert last.startswith("look first at denoising: go back to an earlier checkpoint")


def test_no_run_is_refused(trained, tmp_path):
    config = trained_run.read(trained).config
    with pytest.raises(errors.Refusal, match="no run in"):
        diagnose.run(config, tmp_path / "none")
