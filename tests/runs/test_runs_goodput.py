"""Goodput: what is counted as what, over kills, going back and several starts."""

import json
import time

import pytest

from ddpm_jax.report import time_spent
from ddpm_jax.runs import directory, goodput


@pytest.fixture
def run(tmp_path):
    return directory.RunDir.at(tmp_path)


def part(first, last, seconds, **spent):
    return {
        "first_step": first,
        "step": last,
        "seconds": seconds,
        **dict.fromkeys(goodput.SPENT, 0.0),
        **spent,
    }


def test_the_rest_is_training():
    spent = goodput.account(
        [part(0, 100, 60, starting=10, looking=6, saving=2, data=2)]
    )
    assert spent == {
        "training": 40,
        "starting": 10,
        "looking": 6,
        "saving": 2,
        "data": 2,
        "lost": 0,
    }


def test_steps_that_are_taken_again_are_lost():
    # Killed at 100, the newest checkpoint was that of step 75: a quarter of 40 s.
    parts = [part(0, 100, 50, starting=10), part(75, 200, 60, starting=10)]
    spent = goodput.account(parts)
    assert spent["lost"] == pytest.approx(10)
    assert spent["training"] == pytest.approx(30 + 50)
    assert sum(spent.values()) == pytest.approx(110)


def test_an_older_checkpoint_undoes_two_starts():
    parts = [part(0, 100, 100), part(80, 120, 40), part(50, 200, 150)]
    spent = goodput.account(parts)
    # 50 of the first start stay, none of the second.
    assert spent["lost"] == pytest.approx(50 + 40)
    assert spent["training"] == pytest.approx(50 + 150)


def test_a_start_without_a_step_is_no_training():
    spent = goodput.account([part(0, 0, 12, starting=10), part(0, 10, 20, starting=10)])
    assert spent["lost"] == pytest.approx(2)
    assert spent["training"] == pytest.approx(10)


def test_a_ledger_measures_and_goes_on(run, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def passes(seconds):
        now[0] += seconds

    ledger = goodput.Ledger(run)
    passes(5)
    ledger.begin(0)
    passes(10)
    ledger.note(40, wait_seconds=1.0)
    with ledger.spending(goodput.LOOKING):
        passes(3)
    with ledger.spending(goodput.SAVING):
        passes(1)
    ledger.note(40)
    passes(2)  # the last save is waited for
    ledger.ended(40)
    spent = goodput.account(goodput.read(run))
    assert spent == {
        "starting": 5,
        "training": 9,
        "data": 1,
        "looking": 3,
        "saving": 3,
        "lost": 0,
    }
    # The next start, killed after its first record, went on from step 30.
    passes(1000)
    again = goodput.Ledger(run)
    passes(5)
    again.begin(30)
    passes(5)
    again.note(50, wait_seconds=0.0)
    spent = goodput.account(goodput.read(run))
    assert spent["lost"] == pytest.approx(9 * 10 / 40)
    assert sum(spent.values()) == pytest.approx(21 + 10)
    assert again.sentence().startswith("goodput 38 % (starting 32 %")
    assert again.sentence().endswith("over 2 starts")


def test_going_back_is_a_part_of_the_same_start(run, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    ledger = goodput.Ledger(run)
    now[0] = 4
    ledger.begin(0)
    now[0] = 14
    ledger.note(10, 0.0)
    now[0] = 17  # the checkpoint is read
    ledger.begin(5)
    now[0] = 22
    ledger.note(10, 0.0)
    spent = goodput.account(ledger.parts())
    assert (spent["starting"], spent["lost"], spent["training"]) == (4 + 3, 5, 10)
    assert "over" not in ledger.sentence()


def test_the_page_shows_it(run):
    assert time_spent.element(run) == ""
    parts = [part(0, 100, 50, starting=10), part(75, 200, 60, starting=10)]
    run.goodput.write_text(json.dumps({"parts": parts}))
    shown = str(time_spent.element(run))
    assert "110.0 s of 2 starts." in shown
    assert "72.7 %" in shown  # 80 of 110 s
    assert "9.1 %" in shown
    # A run that is older than its record.
    older = [part(1200, 2000, 50, starting=10)]
    run.goodput.write_text(json.dumps({"parts": older}))
    assert "50.0 s of 1 start since step 1,200." in str(time_spent.element(run))


@pytest.mark.parametrize("text", ["", "[]", '{"parts": [{"step": 1}]}', "{"])
def test_a_damaged_file_is_no_reason_to_stop(run, text):
    run.goodput.write_text(text)
    assert goodput.read(run) == []
    assert goodput.Ledger(run).sentence() == ""


def test_a_renamed_run_is_not_made_anew(run, tmp_path):
    ledger = goodput.Ledger(directory.RunDir.at(tmp_path / "gone"))
    ledger.begin(0)
    assert not (tmp_path / "gone").exists()
