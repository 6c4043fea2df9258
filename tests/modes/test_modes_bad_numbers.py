"""Steps whose numbers are not finite, from the data to the files of the run."""

import json

import numpy as np
import processes
import pytest
from small_runs import STEPS, TINY, content, metrics, state_of

from ddpm_jax.data import order

IMAGES = 1438  # of the digits' training split
BATCH = 16
LAST = 16


def images_of(*steps):
    """Return one image of the batch of each step; steps count from 1."""
    batches = order.Order(IMAGES, BATCH, 0)
    return [int(batches.indices(step - 1)[step % BATCH]) for step in steps]


def go_on(tell, run, *fields):
    return tell(
        f"--workdir={run}",
        f"--config.train.steps={LAST}",
        "--config.train.checkpoint_every=100",
        "--config.train.log_every=1",
        *fields,
    )


def training(records):
    return {record["step"]: record for record in records if "loss" in record}


def superseded(run):
    lines = (run / "metrics.superseded.jsonl").read_text().splitlines()
    return training(map(json.loads, lines))


def assert_finite(state):
    for path, array in state.items():
        assert np.isfinite(array).all(), path


def test_one_bad_step_is_left_out_and_told_of(trained, tell, monkeypatch):
    (image,) = images_of(8)
    processes.spoil([image], 1, monkeypatch.setattr)
    told = go_on(tell, trained)
    assert told.status == 0, told.err
    assert "step 8 was not finite" in told.out
    assert f"step  8/{LAST}" in told.out
    assert "1 update skipped" in told.out

    records = training(metrics(trained))
    assert list(records)[-LAST + STEPS :] == list(range(STEPS + 1, LAST + 1))
    skipped = {step: record["skipped"] for step, record in records.items()}
    assert {step for step, count in skipped.items() if count} == {8}
    assert records[8]["loss"] is None
    state = state_of(trained)
    assert_finite(state)
    assert (state[".step"], state[".skipped"], state[".draw_epoch"]) == (LAST, 1, 0)

    (path,) = (trained / "crashes").iterdir()
    assert path.name == "step_8.json"
    note = json.loads(path.read_text())
    assert note["step"] == 8
    assert len(note["images"]) == BATCH
    assert note["images"][0]["id"] == image
    assert note["images"][0]["loss"] == "nan"
    assert 0 <= note["images"][0]["t"] < 24
    assert 0 <= note["images"][0]["label"] < 10
    assert all(np.isfinite(row["loss"]) for row in note["images"][1:])
    assert {"conv_in", "conv_out", "time_embedding"} <= note["blocks"].keys()
    for norms in note["blocks"].values():
        assert norms["gradient_norm"] == "nan"
        assert norms["parameter_norm"] >= 0
    assert f"{image} at t {note['images'][0]['t']}" in note["explanation"]


def test_too_many_in_a_row_go_back_once_to_other_draws(trained, tell, monkeypatch):
    processes.spoil(images_of(8, 9, 10), 1, monkeypatch.setattr)
    told = go_on(tell, trained)
    assert told.status == 0, told.err
    after = told.out.partition("rolling back to the last good checkpoint")[2]
    assert f"resumed at step {STEPS}" in after
    assert "later lines moved to metrics.superseded.jsonl" in after

    old, new = superseded(trained), training(metrics(trained))
    assert [step for step, record in old.items() if record["skipped"]] == [8, 9, 10]
    assert sorted(new)[-LAST + STEPS :] == list(range(STEPS + 1, LAST + 1))
    assert sum(record["skipped"] for record in new.values()) == 0
    # The same weights and images at step 7, but another t and other noise.
    assert new[7]["loss"] != old[7]["loss"]
    state = state_of(trained)
    assert_finite(state)
    assert (state[".step"], state[".skipped"], state[".draw_epoch"]) == (LAST, 0, 1)
    notes = sorted(path.name for path in (trained / "crashes").iterdir())
    assert notes == ["step_10.json", "step_8.json", "step_9.json"]

    again = tell(f"--workdir={trained}", f"--config.train.steps={LAST + 2}")
    assert again.status == 0, again.err
    assert f"resumed at step {LAST}" in again.out
    state = state_of(trained)
    assert (state[".step"], state[".draw_epoch"]) == (LAST + 2, 1)


def test_what_stays_bad_ends_the_run_with_a_sentence(trained, tell, monkeypatch):
    before = content(trained / "checkpoints")
    processes.spoil(images_of(8, 9, 10), 9, monkeypatch.setattr)
    told = go_on(tell, trained)
    assert told.status == 1
    assert told.out.count("rolling back to the last good checkpoint") == 1
    assert told.err.startswith("error: ")
    assert told.err.count("\n") == 1
    for part in ("step 8, 9, 10", "again", "not finite", "train.learning_rate"):
        assert part in told.err
    assert content(trained / "checkpoints") == before
    assert_finite(state_of(trained))
    assert len(list((trained / "crashes").iterdir())) == 6


@pytest.mark.slow
def test_bad_numbers_between_saves_lose_only_what_came_after(
    trained, tell, monkeypatch
):
    # Step 9 is saved, though bad: its state is that of step 8.
    processes.spoil(images_of(9, 10), 1, monkeypatch.setattr)
    told = go_on(
        tell,
        trained,
        "--config.train.checkpoint_every=3",
        "--config.train.max_bad_steps=2",
    )
    assert told.status == 0, told.err
    after = told.out.partition("rolling back to the last good checkpoint")[2]
    assert "resumed at step 9" in after
    assert "skipped updates 1" in after
    state = state_of(trained)
    assert_finite(state)
    assert (state[".step"], state[".skipped"], state[".draw_epoch"]) == (LAST, 1, 1)


@pytest.mark.slow
def test_before_the_first_checkpoint_it_goes_back_to_the_start(
    tmp_path, tell, monkeypatch
):
    processes.spoil(images_of(2, 3, 4), 1, monkeypatch.setattr)
    run = tmp_path / "run"
    told = tell(
        *TINY,
        f"--workdir={run}",
        "--config.train.steps=8",
        "--config.train.checkpoint_every=100",
        "--config.train.log_every=1",
    )
    assert told.status == 0, told.err
    assert "it starts again at step 0" in told.out
    old, new = superseded(run), training(metrics(run))
    assert list(new) == list(range(1, 9))
    assert new[1]["loss"] != old[1]["loss"]
    state = state_of(run)
    assert_finite(state)
    assert (state[".step"], state[".skipped"], state[".draw_epoch"]) == (8, 0, 1)


@pytest.mark.slow
@pytest.mark.parametrize("passes", [1, 9], ids=["gone", "stays"])
def test_two_processes_go_back_together(passes, tmp_path):
    run = tmp_path / "run"
    first, second = processes.told(
        tmp_path / "said",
        json.dumps(images_of(8, 9, 10)),
        passes,
        *TINY,
        f"--workdir={run}",
        f"--config.train.steps={LAST}",
        "--config.train.checkpoint_every=6",
        "--config.train.log_every=1",
        program=processes.SPOILED,
        count=2,
    )
    after = first.out.partition("rolling back to the last good checkpoint")[2]
    assert "resumed at step 6" in after
    state = state_of(run)
    assert_finite(state)
    if passes == 1:
        assert (first.status, second.status) == (0, 0), first.err + second.err
        assert (state[".step"], state[".draw_epoch"]) == (LAST, 1)
        assert list(training(metrics(run))) == list(range(1, LAST + 1))
    else:
        assert (first.status, second.status) == (1, 1)
        assert "step 8, 9, 10 was again" in first.err
        assert "Traceback" not in first.err + second.err
        assert state[".step"] == 6
    note = json.loads((run / "crashes" / "step_8.json").read_text())
    assert note["images"][0]["id"] == images_of(8)[0]
