"""Training from end to end: the run's directory, going on, starting from a run."""

import contextlib
import errno
import importlib.metadata
import json
import re
import shutil
import time

import jax
import numpy as np
import pytest
from small_runs import (
    DIGITS,
    STEPS,
    TINY,
    assert_same_bits,
    checkpoints,
    content,
    grey_levels,
    metrics,
    state_of,
)

import ddpm_jax
from ddpm_jax import main
from ddpm_jax.builders import data as build_data
from ddpm_jax.builders import network as build_network
from ddpm_jax.builders import trained_run
from ddpm_jax.builders import training as build_training
from ddpm_jax.core import errors
from ddpm_jax.data import dataset
from ddpm_jax.report import page, time_spent
from ddpm_jax.runs import checkpoints as checkpoints_lib
from ddpm_jax.runs import directory, goodput
from ddpm_jax.runtime import files
from ddpm_jax.training import progress

# ---- what a finished run leaves ------------------------------------------------------


def test_training_ends_by_saying_how_to_sample(first_run):
    workdir, told = first_run
    assert told.status == 0
    assert told.lines[0].endswith(str(workdir))
    assert str(workdir) in told.lines[-2]
    command = "python -m ddpm_jax.main --mode=sample --workdir="
    assert told.lines[-1].endswith(f"{command}{workdir}")


def test_compiling_is_announced_before_it_happens(first_run):
    lines = first_run[1].lines
    before = next(i for i, line in enumerate(lines) if line.startswith("compiling"))
    after = next(i for i, line in enumerate(lines) if line.startswith("compiled"))
    first_step = next(i for i, line in enumerate(lines) if line.startswith("step "))
    assert before < after < first_step


def test_progress_tells_loss_by_quarter_speed_and_time_left(first_run):
    lines = [line for line in first_run[1].lines if line.startswith("step ")]
    number = r"(\d+\.\d{4}|–)"
    pattern = (
        rf"step (\d)/{STEPS}  loss {number}  .*{number} {number} {number} {number}"
    )
    pattern += r".* (\d+) images/s.*ETA \d+ s"
    steps = [int(re.match(pattern, line)[1]) for line in lines]
    assert steps == [record["step"] for record in losses(first_run[0])]


def test_the_directory_holds_what_the_contract_says(first_run):
    workdir = first_run[0]
    there = {path.name for path in workdir.iterdir() if not path.name.startswith(".")}
    assert {"config.json", "metrics.jsonl", "checkpoints", "samples"} <= there
    steps = ["3", "3.sha256.json", "6", "6.sha256.json"]
    assert checkpoints(workdir) == [*steps, "best.json"]
    assert sorted(path.name for path in (workdir / "samples").glob("*.png")) == [
        "step_3.png",
        "step_6.png",
    ]
    assert not [name for name in content(workdir) if "tmp" in name or "staging" in name]


def test_config_json_holds_config_and_versions(first_run):
    saved = json.loads((first_run[0] / "config.json").read_text())
    assert saved["config"]["model"]["channels"] == 8
    assert saved["config"]["train"]["ema_decay"] == [0.5]
    assert saved["versions"]["ddpm_jax"] == ddpm_jax.__version__
    for package in ("jax", "flax", "optax", "orbax-checkpoint", "numpy"):
        assert saved["versions"][package] == importlib.metadata.version(package)


def losses(workdir):
    """Return the records of training, without those of evaluations."""
    return [record for record in metrics(workdir) if "loss" in record]


def test_metrics_are_one_object_a_line(first_run):
    records = losses(first_run[0])
    steps = [record["step"] for record in records]
    assert steps == sorted(set(steps))
    assert steps[-1] == STEPS
    names = {"step", "loss", "grad_norm", "learning_rate", "images_per_second"}
    names |= {f"loss_q{quarter}" for quarter in range(4)}
    for record in records:
        assert names <= record.keys()
        assert all(value is None or np.isfinite(value) for value in record.values())
        assert record["images_per_second"] > 0
        assert record["grad_norm"] > 0


def test_the_learning_rate_is_the_one_that_was_used(first_run):
    # Two steps of warm-up: the updates used 0, ½, 1, 1, … of 2e-3. A record tells the
    # rate of its last step.
    used = {step: 2e-3 * min((step - 1) / 2, 1) for step in range(1, STEPS + 1)}
    for record in losses(first_run[0]):
        np.testing.assert_allclose(record["learning_rate"], used[record["step"]], 1e-6)


def test_bits_per_dim_are_scored_while_training(first_run):
    (record,) = [r for r in metrics(first_run[0]) if "test_bits_per_dim" in r]
    assert record["step"] == 6
    # Uniform over 17 levels costs log2(17); an untrained network does not beat it far.
    assert 0.5 * np.log2(17) < record["test_bits_per_dim"] < 10 * np.log2(17)


def test_grids_are_pictures(first_run):
    for step in (3, 6):
        assert grey_levels(first_run[0] / "samples" / f"step_{step}.png") > 16


# ---- the same command again ----------------------------------------------------------


def test_a_finished_run_is_not_trained_again(trained, tell):
    before = content(trained)
    told = tell(*TINY, f"--workdir={trained}", f"--config.train.steps={STEPS}")
    assert told.status == 0
    assert f"{STEPS} steps already" in told.out
    assert told.lines[-1].endswith(f"--mode=sample --workdir={trained}")
    after = content(trained)
    # Intervals and sampling may differ from last time, and are noted.
    assert {n: d for n, d in after.items() if n != "config.json"} == {
        n: d for n, d in before.items() if n != "config.json"
    }


def test_more_steps_go_on_with_a_receipt(trained, tell):
    old = metrics(trained)
    told = tell(f"--workdir={trained}", "--config.train.steps=8")
    assert told.status == 0
    receipt = told.out.partition("compiling")[0]
    for part in ("resumed at step 6", "parameters", "optimizer", "EMA 0.5"):
        assert part in receipt
    for part in ("timestep sampler uniform", "skipped updates 0", "batch 6 of seed 0"):
        assert part in receipt
    assert metrics(trained)[: len(old)] == old
    steps = [record["step"] for record in losses(trained)]
    assert steps == sorted(set(steps))
    assert steps[-1] == 8
    assert "8" in checkpoints(trained)
    saved = json.loads((trained / "config.json").read_text())
    assert saved["config"]["train"]["steps"] == 8


def test_fewer_steps_than_taken_are_refused(trained, tell):
    before = content(trained)
    told = tell(f"--workdir={trained}", "--config.train.steps=4")
    assert told.status == 1
    assert told.err.startswith("error: ")
    assert told.err.count("\n") == 1
    assert "train.steps=4" in told.err
    assert "6 steps" in told.err
    assert content(trained) == before


def test_a_damaged_checkpoint_is_set_aside_and_trained_again(trained, tell):
    before, old = state_of(trained), losses(trained)
    file = max(
        (path for path in (trained / "checkpoints" / "6").rglob("*") if path.is_file()),
        key=lambda path: path.stat().st_size,
    )
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)

    told = tell(f"--workdir={trained}")
    assert told.status == 0
    assert "checkpoint 6 was not used" in told.out
    assert "resumed at step 3" in told.out
    assert (trained / "checkpoints" / "damaged-6").is_dir()
    assert_same_bits(state_of(trained), before)
    # Steps 4 … 6 are in metrics.jsonl once, with the losses of the first time.
    assert [r["step"] for r in losses(trained)] == [r["step"] for r in old]
    assert [r["loss"] for r in losses(trained)] == [r["loss"] for r in old]


def test_no_whole_checkpoint_is_refused_and_nothing_is_overwritten(trained, tell):
    for step in (3, 6):
        (trained / "checkpoints" / f"{step}.sha256.json").write_text("{}\n")
    kept = {n: d for n, d in content(trained).items() if "/d/" in n}
    assert kept
    for mode in ("train", "sample"):
        told = tell(f"--mode={mode}", f"--workdir={trained}", "--config.train.steps=9")
        assert told.status == 1
        assert told.err.count("\n") == 1
        assert "checkpoint" in told.err
    after = list(content(trained).values())
    assert all(data in after for data in kept.values())


# ---- a disk that is full ------------------------------------------------------------


def test_a_full_disk_is_one_sentence_and_costs_no_step(trained, tell, monkeypatch):
    whole = directory.RunDir.append_metrics

    def full(run, record):
        with files.naming(run.metrics):
            if record["step"] >= 8:
                raise OSError(errno.ENOSPC, "No space left on device")
        whole(run, record)

    monkeypatch.setattr(directory.RunDir, "append_metrics", full)
    told = tell(
        f"--workdir={trained}",
        "--config.train.steps=20",
        "--config.train.checkpoint_every=100",
    )
    assert told.status == 1
    path = trained / "metrics.jsonl"
    assert told.err.startswith(f"error: {path}: No space left on device; make room")
    assert told.err.count("\n") == 1
    assert trained_run.open_run(trained).step >= 8


def test_data_that_fail_cost_no_step(trained, tell, monkeypatch):
    fetch, calls = dataset.Dataset.fetch, []

    def failing(self, indices, *draws):
        calls.append(len(indices))
        # Batches of 16; four are prepared ahead of the steps that are taken.
        if calls.count(16) > 6:
            raise OSError(errno.EIO, "Input/output error", "images/7.png")
        return fetch(self, indices, *draws)

    monkeypatch.setattr(dataset.Dataset, "fetch", failing)
    told = tell(
        f"--workdir={trained}",
        "--config.train.steps=20",
        "--config.train.checkpoint_every=100",
    )
    assert told.status == 1
    assert "images/7.png: Input/output error" in told.err
    step = trained_run.open_run(trained).step
    assert step == STEPS + 6


def test_a_run_renamed_while_it_trains_is_saved_where_it_is(trained, tell, monkeypatch):
    line, new = progress.line, trained.with_name("renamed")

    def and_rename(*args):
        if trained.exists():
            trained.rename(new)
        return line(*args)

    monkeypatch.setattr(progress, "line", and_rename)
    told = tell(
        f"--workdir={trained}",
        "--config.train.steps=20",
        "--config.train.checkpoint_every=100",
    )
    assert told.status == 1
    assert f"{trained} was renamed to {new}" in told.err
    assert told.err.count("\n") == 1
    assert not trained.exists()
    # The first line comes at a multiple of train.log_every; one more step at most.
    step = trained_run.open_run(new).step
    assert step in (STEPS + 2, STEPS + 3)


def test_a_report_that_cannot_be_written_stops_nothing(trained, tell, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device", "report.html")

    monkeypatch.setattr(page, "write", full)
    told = tell(f"--workdir={trained}", "--config.train.steps=8")
    assert told.status == 0
    assert "report.html cannot be written (No space left on device)" in told.out


def test_the_last_report_counts_the_last_save(trained, tell, monkeypatch):
    close = checkpoints_lib.Checkpoints.close

    def slow(self):
        close(self)
        time.sleep(1.5)  # a disk that takes its time

    monkeypatch.setattr(checkpoints_lib.Checkpoints, "close", slow)
    assert tell(f"--workdir={trained}", "--config.train.steps=8").status == 0
    shown = (trained / "report.html").read_text()
    assert "Finished" in shown
    run_dir = directory.RunDir.at(trained)
    assert goodput.read(run_dir)[-1][goodput.SAVING] > 1.5
    assert str(time_spent.element(run_dir)) in shown


def test_a_run_whose_last_save_fails_is_not_finished(trained, tell, monkeypatch):
    close = checkpoints_lib.Checkpoints.close

    def full(self):
        close(self)
        raise OSError(errno.ENOSPC, "No space left on device", "checkpoints/8")

    monkeypatch.setattr(checkpoints_lib.Checkpoints, "close", full)
    assert tell(f"--workdir={trained}", "--config.train.steps=8").status == 1
    shown = (trained / "report.html").read_text()
    assert re.search(r"Stopped \([^)]*No space left on device", shown)
    assert "Finished" not in shown


@pytest.mark.slow
def test_a_mad_learning_rate_stops_the_run(tmp_path, tell):
    told = tell(
        *TINY,
        f"--workdir={tmp_path / 'run'}",
        "--config.train.steps=50",
        "--config.train.clip_norm=0",
        "--config.train.learning_rate=1e30",
        "--config.train.checkpoint_every=1",
    )
    assert told.status == 1
    assert told.err.startswith("error: ")
    assert told.err.count("\n") == 1
    for array in state_of(tmp_path / "run").values():
        assert np.isfinite(array).all()


# ---- starting from another run -------------------------------------------------------


def test_a_run_starts_from_anothers_weights(first_run, tmp_path, tell):
    told = tell(
        *TINY,
        f"--workdir={tmp_path / 'run'}",
        f"--config.train.init_from={first_run[0]}",
        "--config.train.steps=1",
    )
    assert told.status == 0
    assert f"initial weights of {first_run[0]}, step 6" in told.out
    assert "fresh  0 arrays" in told.out
    # The first update of a warm-up has learning rate 0: the weights are the initial
    # ones, which are the source's average.
    source, taken = state_of(first_run[0]), state_of(tmp_path / "run")
    assert taken[".step"] == 1
    params = [path for path in taken if path.startswith(".params")]
    assert params
    for path in params:
        average = source[path.replace(".params", ".ema['0.5']", 1)]
        np.testing.assert_array_equal(taken[path], average, err_msg=path)
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert saved["config"]["train"]["init_from"] == str(first_run[0])


def test_a_run_goes_on_without_the_run_it_began_from(tell, first_run, tmp_path):
    source, run = tmp_path / "source", tmp_path / "run"
    shutil.copytree(first_run[0], source)
    started = tell(
        *TINY,
        f"--workdir={run}",
        f"--config.train.init_from={source}",
        "--config.train.steps=1",
    )
    assert started.status == 0
    shutil.rmtree(source)
    again = tell(f"--workdir={run}")
    assert again.status == 0, again.err
    assert "resumed at step 1" in again.out


@pytest.mark.parametrize(
    ("conditional", "fresh"),
    [(True, ["label"]), (False, [])],
    ids=["ten classes instead of eleven", "no classes"],
)
def test_weights_that_do_not_fit_start_fresh(conditional, fresh, first_run, capsys):
    config = main.parse(
        [
            "ddpm-jax",
            *TINY,
            f"--config.model.class_conditional={conditional}",
            "--config.train.label_dropout=0",
        ]
    ).config
    facts = build_data.DataInfo.of(build_data.dataset(config, "train"))
    mesh = build_training.mesh(config)
    network = build_network.network(config, facts)
    drawn = build_training.initial_params(config, network, mesh)
    config.train.init_from = str(first_run[0])
    capsys.readouterr()
    params = trained_run.transfer(config, drawn, mesh=mesh)

    leaves = jax.tree_util.tree_leaves_with_path(params)
    listed = capsys.readouterr().out
    assert f"loaded {len(leaves) - len(fresh)} arrays" in listed
    (line,) = [line for line in listed.splitlines() if "fresh" in line]
    assert f"{len(fresh)} arrays" in line
    assert all(name in line for name in fresh)
    source = state_of(first_run[0])
    for (path, leaf), own in zip(leaves, jax.tree.leaves(drawn), strict=True):
        name = jax.tree_util.keystr(path)
        is_fresh = any(part in name for part in fresh)
        expected = own if is_fresh else source[f".ema['0.5']{name}"]
        np.testing.assert_array_equal(leaf, expected)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (
            ("prediction=v", "num_steps=30"),
            ("prediction is 'noise' there and 'v' here", "num_steps is 24 there"),
        ),
        (("schedule=cosine",), ("schedule is 'linear' there and 'cosine' here",)),
        # No part of the process.
        (("timestep_sampler=loss_second_moment",), ()),
    ],
)
def test_what_changes_of_the_process_is_told(changed, named, first_run):
    config = main.parse(
        ["ddpm-jax", *TINY, *(f"--config.diffusion.{field}" for field in changed)]
    ).config
    told = trained_run.process_changes(trained_run.read(first_run[0]).config, config)
    assert bool(told) == bool(named)
    assert all(name in told for name in named)


@pytest.mark.parametrize(
    ("share", "refused"), [("", True), ("0.1", True), ("0", False), ("0.01", False)]
)
def test_few_arrays_that_fit_are_refused_unless_told(share, refused, first_run):
    config = main.parse(
        [
            "ddpm-jax",
            *TINY,
            "--config.model.channels=12",
            "--config.model.class_conditional=False",
            "--config.train.label_dropout=0",
            f"--config.train.init_from={first_run[0]}",
            *([f"--config.train.init_min_share={share}"] if share else []),
        ]
    ).config
    facts = build_data.DataInfo.of(build_data.dataset(config, "train"))
    network = build_network.network(config, facts)
    expected = contextlib.nullcontext()
    if refused:
        # Only the bias of the output, which has a channel of the image each, fits.
        words = "(?s)1 of .*channels is 8 there and 12 here.*train.init_min_share=0 "
        expected = pytest.raises(errors.Refusal, match=words)
    with expected:
        trained_run.check_transfer(config, network, facts)


def test_a_run_of_another_network_has_nothing_to_give(first_run, tmp_path, tell):
    told = tell(
        DIGITS,
        f"--workdir={tmp_path / 'run'}",
        f"--config.train.init_from={first_run[0]}",
        "--config.model.channels=12",
        "--config.model.norm_groups=6",
        "--config.model.num_res_blocks=1",
        "--config.diffusion.variance=fixed_large",
        "--config.diffusion.loss=simple",
    )
    assert told.status == 1
    assert told.err.startswith("error: ")
    assert "init_from" in told.err
    assert not (tmp_path / "run" / "config.json").exists()
