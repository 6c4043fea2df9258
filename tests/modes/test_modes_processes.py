"""Two real processes train, sample and score what one process does."""

import json
import re
import shutil
import signal
import time

import numpy as np
import processes
import pytest
from small_runs import STEPS, TINY, assert_same_bits, checkpoints, metrics
from test_modes_sampling import archive

DRAWN = ("x_0", "t", "noise", "label", "dropout")


def commands_of(run, *modes):
    """Return the arguments that train a run, split over all, and what comes after."""
    train = [*TINY, f"--config.train.steps={STEPS}", "--config.mesh.fsdp=2"]
    modes = [[f"--mode={mode}"] for mode in modes]
    return json.dumps([[*mode, f"--workdir={run}"] for mode in [train, *modes]])


@pytest.fixture(scope="module")
def pair(quickly, tmp_path_factory):
    """The folder of a run that two processes trained and used; what they said."""
    folder = tmp_path_factory.mktemp("pair")
    told = processes.told(
        folder,
        folder,
        commands_of(folder / "run", "sample", "evaluate", "animate"),
        program=processes.SEVERAL,
        count=2,
    )
    for one in told:
        assert one.status == 0, one.out + one.err
    return folder, told


@pytest.fixture(scope="module")
def single(quickly, tmp_path_factory):
    """The folder of the same run of one process with two devices."""
    folder = tmp_path_factory.mktemp("single")
    (told,) = processes.told(
        folder,
        folder,
        commands_of(folder / "run"),
        program=processes.SEVERAL,
        devices=2,
    )
    assert told.status == 0, told.out + told.err
    return folder


@pytest.fixture
def run(pair, tmp_path):
    """A copy of what two processes trained, without what they made from it."""
    run = shutil.copytree(pair[0] / "run", tmp_path / "run")
    shutil.rmtree(run / "samples")
    shutil.rmtree(run / "evaluation")
    shutil.rmtree(run / "edits")
    return run


# ---- the same numbers ----------------------------------------------------------------


def test_two_processes_draw_what_one_draws(pair, single):
    expected = processes.records_of(single)
    assert len(expected) == STEPS
    for process in (0, 1):
        found = processes.records_of(pair[0], process)
        assert len(found) == STEPS
        for one, other in zip(expected, found, strict=True):
            for name in DRAWN:
                assert one[name].tobytes() == other[name].tobytes(), name
    drawn = np.concatenate([record["label"] for record in expected])
    assert (drawn == 10).any()  # labels were dropped
    assert len(np.unique(drawn)) > 5
    noises = [np.load(path) for path in pair[0].glob("noise-*.npy")]
    noises.append(np.load(single / "noise-0.npy"))
    assert len(noises) == 3
    assert len({noise.tobytes() for noise in noises}) == 1


def test_gradients_and_parameters_are_those_of_one_process(pair, single):
    (one, *_), (other, *_) = map(processes.records_of, (single, pair[0]))
    largest = one["block_norms"].max()
    np.testing.assert_allclose(
        other["block_norms"], one["block_norms"], rtol=0, atol=1e-5 * largest
    )
    states = [processes.whole_state(f / "run") for f in (single, pair[0])]
    processes.assert_close(*states)


@pytest.mark.slow
def test_one_process_goes_on_with_what_two_began(pair, run, tell):
    shutil.rmtree(run / "checkpoints" / "6")
    (run / "checkpoints" / "6.sha256.json").unlink()
    before = metrics(run)
    told = tell(f"--workdir={run}", "--config.mesh.fsdp=1")
    assert told.status == 0
    assert "resumed at step 3" in told.out
    # Eight devices of one process instead of one of each, and whole copies on each.
    states = [processes.whole_state(w) for w in (pair[0] / "run", run)]
    processes.assert_close(*states)
    losses = [
        {r["step"]: r["loss"] for r in records if "loss" in r}
        for records in (before, metrics(run))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_two_processes_make_the_images_of_one(pair, run, tell):
    told = tell("--mode=sample", f"--workdir={run}", "--config.mesh.fsdp=1")
    assert told.status == 0, told.err
    (mine, own), (theirs, other) = archive(run), archive(pair[0] / "run")
    difference = mine["arr_0"].astype(int) - theirs["arr_0"].astype(int)
    assert len(np.unique(mine["arr_0"])) > 16
    assert np.abs(difference).max() <= 1
    assert mine["arr_1"].tolist() == theirs["arr_1"].tolist()
    requests = [json.loads((f / "request.json").read_text()) for f in (own, other)]
    assert requests[0] == requests[1]


def test_two_processes_make_the_frames_of_one(pair, run, tell):
    told = tell("--mode=animate", f"--workdir={run}", "--config.mesh.fsdp=1")
    assert told.status == 0, told.err
    found = [next(w.glob("edits/*/samples.npz")) for w in (run, pair[0] / "run")]
    assert found[0].parent.name == found[1].parent.name
    mine, theirs = (np.load(path)["arr_0"].astype(int) for path in found)
    assert np.abs(mine - theirs).max() <= 1


def test_two_processes_score_like_one(pair, run, tell):
    told = tell("--mode=evaluate", f"--workdir={run}", "--config.mesh.fsdp=1")
    assert told.status == 0, told.err
    cards = [
        {p.name: json.loads(p.read_text()) for p in (w / "evaluation").glob("*.json")}
        for w in (pair[0] / "run", run)
    ]
    assert cards[0].keys() == cards[1].keys() != set()
    for name, card in cards[0].items():
        assert card["value"] == pytest.approx(cards[1][name]["value"], rel=1e-5)


def test_process_0_alone_writes_and_speaks(pair):
    folder, (first, second) = pair
    assert "in 2 processes" in first.out
    assert [line for line in second.lines if not line.startswith("[Gloo]")] == []
    run = folder / "run"
    steps = [record["step"] for record in metrics(run) if "loss" in record]
    assert steps == sorted(set(steps))
    # What process 1 writes nobody else may read: it is its share of the arrays alone.
    private = [
        path.relative_to(run).parts
        for path in run.rglob("*")
        if path.is_file() and not path.stat().st_mode & 0o044
    ]
    assert private
    assert {(p[0], p[2]) for p in private} == {("checkpoints", "ocdbt.process_1")}


# ---- what they have to agree on ------------------------------------------------------


def test_a_field_that_differs_is_refused_by_all(tmp_path):
    told = processes.told(
        tmp_path / "said",
        *TINY,
        f"--workdir={tmp_path / 'run'}",
        count=2,
        own=[(1, "--config.train.learning_rate=3e-3")],
    )
    for one in told:
        assert one.status == 1
        assert "train.learning_rate" in one.err
        assert "0.003" in one.err
        assert "0.002" in one.err
        assert "Traceback" not in one.err
    assert not (tmp_path / "run").exists()


def test_a_request_to_one_process_stops_all(tmp_path):
    arguments = [*TINY, f"--workdir={tmp_path / 'run'}"]
    arguments += ["--config.train.steps=100000", "--config.train.log_every=1"]
    with processes.started(tmp_path / "said", *arguments, count=2) as group:
        group[0].wait_for_line("\nstep ")
        group[1].running.send_signal(signal.SIGTERM)
        first, second = [process.finish() for process in group]
    assert (first.status, second.status) == (0, 0), first.err + second.err
    stopped = int(re.search(r"stopped by SIGTERM at step (\d+)", first.out)[1])
    assert "everything is saved" in first.out
    assert first.lines[-1].endswith(f"ddpm_jax.main --workdir={tmp_path}/run")
    assert "SIGTERM" not in second.out
    assert "process 1: SIGTERM: stopping after saving" in second.err
    assert processes.published(tmp_path / "run")[-1] == stopped
    assert not [n for n in checkpoints(tmp_path / "run") if "staging" in n]


# ---- the same at more length ---------------------------------------------------------


@pytest.mark.slow
def test_a_stopped_pair_goes_on_to_the_same_bits(tmp_path):
    arguments = [*TINY, "--config.train.log_every=1"]
    run = f"--workdir={tmp_path / 'run'}"
    endless = "--config.train.steps=100000"
    with processes.started(
        tmp_path / "said", *arguments, run, endless, count=2
    ) as group:
        assert group[0].wait_for(lambda: group[0].step >= 4)
        group[1].running.send_signal(signal.SIGTERM)
        assert [process.finish().status for process in group] == [0, 0]
    steps = f"--config.train.steps={processes.published(tmp_path / 'run')[-1] + 3}"
    again = processes.told(tmp_path / "said", run, steps, count=2)
    assert [one.status for one in again] == [0, 0], again
    assert "resumed at step" in again[0].out

    whole = f"--workdir={tmp_path / 'whole'}"
    never = processes.told(tmp_path / "said", *arguments, whole, steps, count=2)
    assert [one.status for one in never] == [0, 0], never
    states = [processes.whole_state(tmp_path / name) for name in ("run", "whole")]
    assert_same_bits(*states)


@pytest.mark.slow
def test_two_processes_go_on_with_what_one_began(single, tmp_path):
    run = shutil.copytree(single / "run", tmp_path / "run")
    shutil.rmtree(run / "checkpoints" / "6")
    (run / "checkpoints" / "6.sha256.json").unlink()
    told = processes.told(tmp_path / "said", f"--workdir={run}", count=2)
    assert [one.status for one in told] == [0, 0], told
    assert "resumed at step 3" in told[0].out
    states = [processes.whole_state(w) for w in (single / "run", run)]
    processes.assert_close(*states)


@pytest.mark.slow
def test_a_request_to_one_process_stops_the_sampling_of_all(pair, run, tmp_path):
    sample = ["--mode=sample", f"--workdir={run}", "--config.sampling.num_samples=480"]
    with processes.started(tmp_path / "said", *sample, count=2) as group:
        group[0].wait_for_line("16/480 images")
        group[1].running.send_signal(signal.SIGTERM)
        first, second = [process.finish() for process in group]
    assert (first.status, second.status) == (0, 0), first.err + second.err
    made = int(re.search(r"stopped by SIGTERM after (\d+) of 480", first.out)[1])
    assert 16 <= made < 480
    assert not list(run.rglob("samples.npz"))

    again = processes.told(tmp_path / "said", *sample, count=2)
    assert [one.status for one in again] == [0, 0], again
    assert f"after {made} of 480" in again[0].out
    found, expected = archive(run)[0], archive(pair[0] / "run")[0]
    assert found["arr_0"].shape == (480, 8, 8, 1)
    np.testing.assert_array_equal(found["arr_0"][:16], expected["arr_0"])


@pytest.mark.slow
def test_the_loss_of_a_process_is_one_sentence_and_loses_no_checkpoint(tmp_path):
    run = tmp_path / "run"
    arguments = [*TINY, f"--workdir={run}", "--config.train.steps=100000"]
    with processes.started(tmp_path / "said", *arguments, count=2) as group:
        group[0].wait_for(lambda: processes.published(run)[2:])
        group[1].running.kill()
        killed = time.monotonic()
        first = group[0].finish()
        seconds = time.monotonic() - killed
    assert first.status == 1
    assert seconds < 30  # JAX's own heartbeat takes longer
    assert "Traceback" not in first.err
    assert "process 1 (" in first.err
    assert "has ended without finishing" in first.err
    newest = processes.published(run)[-1]
    steps = f"--config.train.steps={newest + 2}"
    again = processes.told(tmp_path / "said", f"--workdir={run}", steps, count=2)
    assert [one.status for one in again] == [0, 0], again
    assert f"resumed at step {newest}" in again[0].out
