"""Rows of the published tables: what they need, and one that is repeated whole."""

import contextlib
import dataclasses
import io
import json
import os
import signal
import sys
import threading

import pytest

from ddpm_jax import main
from ddpm_jax.config import rules
from ddpm_jax.convert import published, published_rows, recognise
from ddpm_jax.convert.formats import inception
from ddpm_jax.core import errors
from ddpm_jax.modes import reproduce as mode

BITS = published_rows.BITS
WAITS = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(print("saved") or 0))
print("ready", flush=True)
while True: time.sleep(0.02)
"""


def only(monkeypatch, **changed):
    """Let there be one row, "toy/row"."""
    row = published_rows.Row(
        "Toy", ("tiny",), {"method": "ddim", "steps": 3}, {BITS: 1}
    )
    row = row._replace(data="digits")._replace(**changed)
    monkeypatch.setattr(published_rows, "ROWS", {"toy/row": row})
    return row


@pytest.fixture
def weights(trained, tell, tmp_path, monkeypatch):
    """A file of weights that counts as published, by the name "tiny"."""
    path = tmp_path / "tiny.safetensors"
    arguments = [f"--workdir={trained}", "--format=safetensors", f"--output={path}"]
    assert tell("--mode=export", *arguments).status == 0
    entry = published.Published(
        *("tiny", path.name, "native", "", {}, 1000, 10, "", "", ""),
    )
    monkeypatch.setitem(published.PUBLISHED, "tiny", entry)
    known = recognise.recognise

    def as_published(*arguments):
        return dataclasses.replace(known(*arguments), published="tiny")

    monkeypatch.setattr(recognise, "recognise", as_published)
    return path


@pytest.fixture
def called(monkeypatch):
    """Commands run in this process; return them as they come."""
    commands = []

    def call(arguments):
        commands.append([*arguments])
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            assert main.main(["ddpm-jax", *arguments]) == 0, out.getvalue()
        return out.getvalue().splitlines()

    monkeypatch.setattr(mode, "call", call)
    return commands


# ---- the table -----------------------------------------------------------------------


@pytest.mark.parametrize("row", published_rows.ROWS.values(), ids=published_rows.ROWS)
def test_a_row_can_be_repeated(row):
    assert set(row.weights) <= published.PUBLISHED.keys()
    assert rules.metric_names(",".join(row.metrics)) == row.metrics
    schema = mode.evaluation(row, mode.pathlib.Path("x"), 2, "r.npz", "")
    config = main.parse(["ddpm-jax", "--config=published:cifar10", *schema[1:]]).config
    assert {k: config.sampling[k] for k in row.sampling if k != "labels"} == {
        k: v for k, v in row.sampling.items() if k != "labels"
    }
    for metric, value in row.expected.items():
        assert 0 < published_rows.tolerance(metric, value) < value


def test_values_are_those_of_the_papers():
    # Read in the papers, not in the table.
    expected = {
        "ddpm/cifar10": {"fid": 3.17},
        "ddim/cifar10_20_eta0": {"fid": 6.84},
        "iddpm/cifar10_vlb_bits": {BITS: 2.94},
        "adm/256x256_diffusion+classifier_ancestral_1": {
            **{"fid": 4.59, "sfid": 5.25, "precision": 0.82, "recall": 0.52}
        },
    }
    for name, values in expected.items():
        assert published_rows.ROWS[name].expected == values


def test_rows_are_listed_without_weights(tell):
    told = tell("--mode=reproduce")
    assert told.status == 0
    for name in published_rows.ROWS:
        assert f"{name} " in told.out


def test_a_row_says_what_it_needs_and_where_it_lies(tell):
    name = "adm/256x256_diffusion+classifier_ancestral_1"
    told = tell("--mode=reproduce", f"--row={name}")
    assert told.status == 0
    for part in (
        "/diffusion/jul-2021/256x256_diffusion.pt",
        "/diffusion/jul-2021/256x256_classifier.pt",
        "ref_batches/imagenet/256/VIRTUAL_imagenet256_labeled.npz",
        "MiB",
        "50,000 images",
    ):
        assert part in told.out, part


# ---- bad input -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--row=ddpm/cifar"], ["ddpm/cifar'", "ddpm/cifar10"]),
        (["--row=ddpm/cifar10", "--source=f.pt"], ["--workdir"]),
        (["--row=ddpm/cifar10", "--num_samples=1"], ["num_samples=1", "50,000"]),
        (
            ["--row=adm/lsun_cat", "--source=f.pt", "--workdir={}"],
            ["--reference", "VIRTUAL_lsun_cat256.npz"],
        ),
        (
            ["--row=adm/lsun_cat", "--source=f.pt", "--workdir={}", "--reference=/no"],
            ["--reference=/no"],
        ),
        (
            [
                "--row=adm/128x128_diffusion+classifier_ddim_1.25",
                *("--source=f.pt", "--workdir={}"),
            ],
            ["--classifier", "128x128_classifier.pt"],
        ),
        (
            ["--row=ddpm/cifar10", "--source=f.pt", "--workdir={}"],
            ["Inception", "never downloaded"],
        ),
    ],
)
def test_what_is_missing_is_named_before_anything_is_made(
    arguments, named, tell, tmp_path, monkeypatch
):
    monkeypatch.delenv(inception.VARIABLE, raising=False)
    workdir = tmp_path / "made"
    told = tell("--mode=reproduce", *(a.format(workdir) for a in arguments))
    assert told.status == 1
    for part in named:
        assert part in told.err
    assert not workdir.exists()


# ---- a row, whole --------------------------------------------------------------------


def test_a_row_is_converted_scored_and_compared(
    weights, called, tell, tmp_path, monkeypatch
):
    only(monkeypatch)
    command = (
        *("--mode=reproduce", "--row=toy/row", f"--source={weights}"),
        *(f"--workdir={tmp_path / 'made'}", "--num_samples=8"),
    )
    told = tell(*command)
    assert told.status == 0, told.err
    assert [line[0] for line in called] == ["--mode=convert", "--mode=evaluate"]
    (path,) = (tmp_path / "made" / "model" / "evaluation").glob("bits_per_dim*.json")
    measured = json.loads(path.read_text())["value"]
    written = json.loads((tmp_path / "made" / "toy-row.json").read_text())
    assert written["results"][0]["measured"] == measured
    assert not written["results"][0]["agrees"]  # an untrained network has not 1 bit
    assert written["is_trial"]
    assert "a trial with 8 images" in told.out

    # Nothing is made twice, and what was published decides.
    only(monkeypatch, expected={BITS: round(measured, 2)})
    told = tell(*command)
    assert [line[0] for line in called[2:]] == ["--mode=evaluate"]
    written = json.loads((tmp_path / "made" / "toy-row.json").read_text())
    assert written["results"][0]["agrees"]

    # Weights of another name are not those of the row.
    only(monkeypatch, weights=("ddpm_cifar10",))
    told = tell(*command)
    assert told.status == 1
    assert "tiny" in told.err
    assert "ddpm_cifar10" in told.err


@pytest.mark.parametrize(
    ("metric", "published_value", "here", "agrees"),
    [
        ("fid", 3.17, 3.30, True),
        ("fid", 3.17, 3.33, False),  # more than 0.15 apart
        ("fid", 26.21, 26.90, True),  # 3 % are 0.79
        ("precision", 0.82, 0.84, False),
        (BITS, 2.94, 2.955, True),
        (BITS, 2.94, float("nan"), False),
    ],
)
def test_what_agrees(metric, published_value, here, agrees):
    row = published_rows.Row("Toy", ("tiny",), {}, {metric: published_value})
    (result,) = mode.compared(row, [{"metric": metric, "value": here}])
    assert result.agrees == agrees
    with pytest.raises(errors.Refusal, match=metric):
        mode.compared(row, [])


# ---- commands in processes of their own ----------------------------------------------


def test_a_part_that_fails_is_named(capfd):
    assert mode.call(["--version"])[0].startswith("ddpm_jax ")
    with pytest.raises(errors.Refusal, match="nonsense"):
        mode.call(["--mode=nonsense"])
    assert "choose one of" in capfd.readouterr().err


def test_a_request_to_stop_reaches_the_part(monkeypatch, capfd):
    monkeypatch.setattr(mode, "PROGRAM", (sys.executable, "-c", WAITS))
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    with pytest.raises(mode.Stopped):
        mode.call(["--mode=evaluate"])
    timer.join()
    said = capfd.readouterr().out
    assert "ready" in said
    assert "saved" in said
