import errno
import json
import os
import stat
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

import ddpm_jax
from ddpm_jax.core import errors
from ddpm_jax.runs import directory
from ddpm_jax.runtime import files

MINIMAL = {"config": {}, "data": {}}


@pytest.fixture
def run(tmp_path):
    return directory.RunDir.create(tmp_path / "runs" / "digits")


def test_names_of_the_contract(run):
    names = {
        "config.json": run.config,
        "metrics.jsonl": run.metrics,
        "metrics.superseded.jsonl": run.superseded_metrics,
        "checkpoints": run.checkpoints,
        "samples": run.samples,
        "evaluation": run.evaluation,
        "report.html": run.report,
    }
    for name, path in names.items():
        assert path == run.path / name
        assert path.is_absolute()


def test_create_takes_empty_directories_and_runs(run):
    assert directory.RunDir.create(run.path) == run
    assert list(run.path.iterdir()) == []
    run.write_json(run.config, {"seed": 0})
    (run.path / "samples").mkdir()
    assert directory.RunDir.create(run.path) == run
    assert directory.RunDir.open_existing(run.path) == run


def test_create_refuses_a_directory_of_other_things(tmp_path):
    for name in ("thesis.tex", "a.txt", "b.txt", "c.txt"):
        (tmp_path / name).write_text("")
    with pytest.raises(
        errors.Refusal, match=r"a.txt, b.txt, c.txt and 1 more.*--workdir"
    ):
        directory.RunDir.create(tmp_path)


@pytest.mark.parametrize(
    "make", [directory.RunDir.create, directory.RunDir.open_existing]
)
def test_the_address_of_a_bucket_is_not_made_a_directory(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(errors.Refusal, match=r"gs://runs/digits is an address.*mount"):
        make("gs://runs/digits")
    assert list(tmp_path.iterdir()) == []


def test_create_ignores_hidden_files(tmp_path):
    (tmp_path / ".DS_Store").write_text("")
    directory.RunDir.create(tmp_path)


def test_create_refuses_a_file_and_what_lies_below_one(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.Refusal, match=r"is a file.*--workdir"):
        directory.RunDir.create(tmp_path / "file")
    with pytest.raises(errors.Refusal, match=r"Not a directory.*--workdir"):
        directory.RunDir.create(tmp_path / "file" / "run")


def test_create_refuses_a_directory_that_cannot_be_written(tmp_path, monkeypatch):
    def no_permission(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    # root may write anywhere, so the system call has to say no by order.
    monkeypatch.setattr(os, "open", no_permission)
    with pytest.raises(errors.Refusal, match=r"Permission denied.*--workdir"):
        directory.RunDir.create(tmp_path)


def test_open_refuses_where_no_run_is(tmp_path):
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(errors.Refusal, match=f"no run in {path}: train one with"):
            directory.RunDir.open_existing(path)


def test_config_round_trip_and_its_form(run):
    config = {"config": {"steps": 5, "lr": 2e-4}, "data": {"size": [8, 8]}, "n": None}
    run.write_json(run.config, config)
    assert run.read_config() == config
    text = run.config.read_text()
    assert text.index('"config"') < text.index('"data"') < text.index('"n"')
    assert text.count("\n") > 5


def test_files_follow_the_umask(run):
    old = os.umask(0o027)
    try:
        run.write_json(run.config, {})
    finally:
        os.umask(old)
    assert stat.S_IMODE(run.config.stat().st_mode) == 0o640


def test_arrays_become_numbers_and_lists(run):
    run.write_json("card.json", {"a": np.float32(0.5), "b": jnp.arange(2)})
    assert json.loads((run.path / "card.json").read_text()) == {"a": 0.5, "b": [0, 1]}


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), np.array([1, np.nan])])
def test_json_refuses_what_is_not_finite_and_keeps_the_old_file(run, bad):
    run.write_json(run.config, MINIMAL)
    with pytest.raises(errors.Refusal, match=r"config.json.*finite"):
        run.write_json(run.config, {**MINIMAL, "seed": bad})
    assert run.read_config() == MINIMAL


def test_a_write_that_fails_keeps_the_old_file_and_no_scraps(run, monkeypatch):
    run.write_json(run.config, MINIMAL)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left"):
        files.write_bytes(run.config, b"half")
    assert run.read_config() == MINIMAL
    assert [path.name for path in run.path.iterdir()] == ["config.json"]


@pytest.mark.parametrize("text", ['{"seed": ', "", "\ufffd"])
def test_damaged_config_is_refused_by_name(run, text):
    run.config.write_text(text)
    with pytest.raises(errors.Refusal, match=r"config.json is damaged"):
        run.read_config()


@pytest.mark.parametrize("text", ["[1, 2]", '{"model_type": "unet"}'])
def test_a_config_of_something_else_is_refused(run, text):
    run.config.write_text(text)
    with pytest.raises(errors.Refusal, match=r"not the config of a run.*--workdir"):
        run.read_config()


@pytest.mark.parametrize("theirs", ["9.0", "0.10.0", "0.2.1rc1", "0.2.0.1"])
def test_a_run_of_a_newer_version_is_refused(run, theirs, monkeypatch):
    monkeypatch.setattr(ddpm_jax, "__version__", "0.2.0")
    run.write_json(run.config, {**MINIMAL, "versions": {"ddpm_jax": theirs}})
    with pytest.raises(errors.Refusal) as caught:
        run.read_config()
    found, _, remedy = str(caught.value).partition(": ")
    for part in (str(run.config), theirs, "0.2.0"):
        assert part in found
    assert f"ddpm_jax {theirs}" in remedy


@pytest.mark.parametrize(
    "versions",
    [
        *({"ddpm_jax": v} for v in ("0.2.0", "0.2", "0.2.0.0", "0.1.9", "0.0.10", "")),
        *({"ddpm_jax": v} for v in ("unknown", None, 9)),
        {},
        {"jax": "99.0"},
        None,
        "9.0",
    ],
)
def test_a_run_of_this_an_older_or_an_unknown_version_is_read(
    run, versions, monkeypatch
):
    monkeypatch.setattr(ddpm_jax, "__version__", "0.2.0")
    run.write_json(run.config, {**MINIMAL, "versions": versions})
    assert run.read_config() == {**MINIMAL, "versions": versions}


def test_a_run_is_locked_for_one_process(run):
    other = f"""
from ddpm_jax.core import errors
from ddpm_jax.runs import directory
try:
    with directory.RunDir.open_existing({str(run.path)!r}).lock():
        print("taken")
except errors.Refusal as refusal:
    print(refusal)
"""
    run.write_json(run.config, MINIMAL)

    def ask():
        command = [sys.executable, "-c", other]
        return subprocess.run(
            command, capture_output=True, text=True, check=True
        ).stdout

    with run.lock():
        assert "another process trains in" in ask()
    assert ask() == "taken\n"


def test_a_run_that_cannot_be_written_is_refused_before_the_work(run):
    run.write_json(run.config, MINIMAL)
    run.check_writable()
    run.samples.rmdir()
    run.samples.write_text("in the way")
    with pytest.raises(errors.Refusal, match=r"samples cannot be written"):
        run.check_writable()


def test_missing_config_is_refused_by_name(run):
    with pytest.raises(errors.Refusal, match=r"config.json cannot be read \(No such"):
        run.read_config()


def test_metrics_are_lines_that_are_there_at_once(run):
    run.append_metrics({"step": 1, "loss": np.float32(0.5)})
    assert json.loads(run.metrics.read_text()) == {"step": 1, "loss": 0.5}
    run.append_metrics({"step": 2, "loss": float("nan"), "norm": -np.inf})
    lines = run.metrics.read_text().splitlines()
    assert json.loads(lines[1]) == {"step": 2, "loss": None, "norm": None}
    assert len(run.read_metrics()) == 2


def test_a_half_written_line_swallows_no_other(run):
    run.append_metrics({"step": 1})
    with open(run.metrics, "a") as file:
        file.write('{"step": 2, "lo')
    assert run.read_metrics() == [{"step": 1}]
    run.append_metrics({"step": 2})
    assert run.read_metrics() == [{"step": 1}, {"step": 2}]


def test_later_records_move_aside_on_resume(run):
    for step in (10, 20, 30, 40):
        run.append_metrics({"step": step, "loss": step / 10})
    with open(run.metrics, "a") as file:
        file.write('{"step": 50, "lo')
    assert run.truncate_metrics_after(20) == 2
    run.append_metrics({"step": 30, "loss": 9.0})
    assert run.truncate_metrics_after(20) == 1
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert lines == [{"step": 10, "loss": 1.0}, {"step": 20, "loss": 2.0}]
    aside = run.superseded_metrics.read_text().splitlines()
    assert [json.loads(line)["loss"] for line in aside] == [3.0, 4.0, 9.0]


def test_truncating_without_metrics_does_nothing(run):
    assert run.truncate_metrics_after(0) == 0
    assert run.read_metrics() == []
    assert list(run.path.iterdir()) == []


def test_a_kill_while_truncating_loses_no_record(run, monkeypatch):
    run.append_metrics({"step": 1})
    run.append_metrics({"step": 2})

    class Killed(BaseException):
        pass

    def kill(path, data):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_bytes", kill)
        with pytest.raises(Killed):
            run.truncate_metrics_after(1)
    assert run.read_metrics() == [{"step": 1}, {"step": 2}]
    assert run.truncate_metrics_after(1) == 1
    assert run.read_metrics() == [{"step": 1}]
    assert '{"step": 2}' in run.superseded_metrics.read_text()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_disk_without_locks_is_warned_of(run, monkeypatch, capsys, number):
    def flock(file, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(directory.fcntl, "flock", flock)
    with run.lock():
        pass
    said = capsys.readouterr().out
    assert "locks" in said
    assert os.strerror(number) in said
