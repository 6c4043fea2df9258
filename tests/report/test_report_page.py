"""report.html: whole, safe, small, and true to the files that it is made of."""

import copy
import json
import os
import re
import time
import urllib.parse

import numpy as np
import pytest
import written_runs as runs

from ddpm_jax.core import errors
from ddpm_jax.report import page

RANDOM = np.random.default_rng(0)


def read(run_dir, **options):
    return runs.Page(page.write(run_dir, **options).read_text())


@pytest.fixture
def full(tmp_path):
    """A run with everything in it."""
    records = [*runs.records(), {"step": 1500, "test_bits_per_dim": 2.75}]
    records += [runs.validation(500, 0.25), runs.validation(1000, 0.125)]
    records += [runs.channels(1000, [0.5, 0.0, 0.1], [0.0, 0.0, 0.1], [0.5, 0.5, 0.5])]
    run_dir = runs.make(tmp_path / "run", records=records)
    for step in (500, 1000):
        small = RANDOM.integers(0, 256, (16, 8, 8, 3), dtype=np.uint8)
        runs.write_pair(run_dir, step, small, 255 - small)
    run_dir.write_json("evaluation/bits_per_dim_6-ema.json", runs.card())
    folder = run_dir.samples / "ddim-50 ema"
    folder.mkdir()
    grid = (run_dir.samples / "step_500.png").read_bytes()
    (folder / "grid.png").write_bytes(grid)
    (folder / "samples.npz").write_bytes(b"")
    run_dir.checkpoints.mkdir()
    (run_dir.checkpoints / "1000.sha256.json").write_text("{}")
    return run_dir


# ---- what it says --------------------------------------------------------------------


def test_every_recorded_name_stands_there_with_the_values_of_the_file(full):
    found = read(full)
    lines = [json.loads(line) for line in full.metrics.read_text().splitlines()]
    names = {name for line in lines for name in line} - {"step"}
    assert len(names) > 20
    for name in names:
        rows = [(line["step"], line[name]) for line in lines if name in line]
        cells = found.row(name)
        if isinstance(rows[-1][1], list):
            assert cells[0][1] == rows[-1][1]
        else:
            values = [value for _, value in rows]
            exact = [cell[1][0] for cell in cells[:3]]
            assert exact == [values[-1], min(values), max(values)]
        assert cells[-1][1] == [rows[-1][0]]


def test_a_name_that_nobody_knows_stands_there_too(tmp_path):
    run_dir = runs.make(tmp_path / "run", records=[{"step": 7, "my_own": 3.25}])
    assert read(run_dir).row("my_own") == [
        ("3.25", [3.25]),
        ("3.25", [3.25]),
        ("3.25", [3.25]),
        ("7", [7.0]),
    ]


def test_the_cards_stand_there(full):
    full.write_json("evaluation/fid.json", {"metric": "fid", "value": 7.5, "unit": ""})
    found = read(full)
    bits, fid = found.row("bits_per_dim"), found.row("fid")
    assert bits[0] == ("2.500 ± 0.012 bits/dim", [2.5, 0.0123])
    assert [bits[1][1], bits[2][0], bits[4][1]] == [[700.0], "ema", [64.0]]
    assert fid[0][1] == [7.5]


def test_an_interval_is_shown(full):
    card = {"metric": "fid", "value": 7.5, "unit": "", "interval": [7.25, 7.75]}
    full.write_json("evaluation/fid.json", card)
    assert read(full).row("fid")[0][1] == [7.5, 7.25, 7.75]


def test_the_newest_card_is_split_by_timestep(full):
    old, new = full.evaluation / "old.json", full.evaluation / "bits_per_dim_6-ema.json"
    old.write_text(json.dumps(runs.card(value=9.75)))
    os.utime(old, (1, 1))
    os.utime(new, (2, 2))
    assert "The newest bits per dimension, 2.500 ± 0.012" in read(full).text
    os.utime(old, (3, 3))
    assert "The newest bits per dimension, 9.750 ± 0.012" in read(full).text


def test_a_file_that_is_no_card_is_named(full):
    (full.evaluation / "half.json").write_text('{"metric": "fi')
    (full.evaluation / "list.json").write_text("[1]")
    assert "No evaluation cards, though they lie there: " in read(full).text
    assert "half.json" in read(full).text
    assert "list.json" in read(full).text


def test_differences_from_the_base_are_marked(tmp_path):
    run_dir = runs.make(tmp_path / "run")
    base = copy.deepcopy(runs.CONFIG)
    base["train"] |= {"steps": 77, "ema_decay": (0.999,)}
    found = read(run_dir, base=base)
    assert "1 of 9 fields differ from the base" in found.text
    bold = found.elements.count(("b", {}))
    assert bold == 2 * 2  # name and value, among the differences and among all
    assert [text for text, _ in found.row("train.steps")] == ["1000", "77"]
    assert "fields differ" not in read(run_dir).text


def test_data_and_versions_stand_there(full):
    text = read(full).text
    for expected in ("folder", "1,200", "8×8×3", "cat, dog", "0123abcd", "0.10.2"):
        assert expected in text


@pytest.mark.parametrize(
    ("status", "step", "expected"),
    [
        ({"state": "running"}, 400, "Running · step 400 of 1,000"),
        ({"state": "finished"}, 1000, "Finished · step 1,000 of 1,000"),
        (
            {"state": "stopped", "reason": "SIGTERM"},
            400,
            "Stopped (SIGTERM) · step 400 of 1,000",
        ),
        (None, 400, "Unfinished · step 400 of 1,000"),
        (None, 1000, "Finished · step 1,000 of 1,000"),
    ],
)
def test_status(tmp_path, status, step, expected):
    run_dir = runs.make(tmp_path / "run", records=[runs.record(step)])
    found = read(run_dir, status=status)
    assert expected in found.text
    (bar,) = found.all("progress")
    assert (bar["value"], bar["max"]) == (str(step), "1000")
    assert ("done about" in found.text) == (status == {"state": "running"})


def test_commands(full, tmp_path):
    text = read(full).text
    where = f"python -m ddpm_jax.main --workdir={full.path}"
    assert f"{where} --config.train.steps=2000" in text  # finished
    assert f"{where} --mode=sample" in text
    assert f"{where} --mode=evaluate" in text
    assert "Train longer" not in read(full, status={"state": "running"}).text
    started = read(runs.make(tmp_path / "it's new", records=[runs.record(5)])).text
    assert f"# Go on python -m ddpm_jax.main --workdir='{tmp_path}/it'" in started
    assert "--mode=sample" not in started  # there is no checkpoint yet


def test_a_network_of_ones_own_is_used_from_python(tmp_path):
    run_dir = runs.make(tmp_path / "run", network="own")
    text = read(run_dir).text
    assert f"ddpm_jax.train(config, '{run_dir.path}', network=…)" in text
    assert "--workdir" not in text


def test_an_empty_run_says_what_comes(tmp_path):
    run_dir = runs.make(tmp_path / "run")
    found = read(run_dir, status={"state": "running"})
    assert "Nothing is recorded yet: the first line comes after 100 steps" in found.text
    assert "step 0 of 1,000" in found.text
    assert not found.all("svg")


def test_half_a_line_is_left_out(tmp_path):
    run_dir = runs.make(
        tmp_path / "run", records=[runs.record(5)], lines='{"step": 6, "los'
    )
    assert "step 5 of" in read(run_dir).text


def test_values_that_are_not_finite_are_dashes(tmp_path):
    bad = runs.record(300, loss=float("nan"), grad_norm=float("inf"), loss_q2=None)
    run_dir = runs.make(tmp_path / "run", records=[*runs.records(2), bad])
    found = read(run_dir)
    assert found.row("loss")[0] == ("–", [])
    assert "loss was not finite in 1 of 3 records, first at step 300." in found.text
    drawn = [
        " ".join(map(str, attributes.values()))
        for tag, attributes in found.elements
        if tag not in ("meta", "img")
    ]
    words = re.findall(r"\w+", " ".join([found.text, *drawn]))
    assert not {"nan", "NaN", "inf", "Infinity", "None", "null"} & set(words)


def test_records_of_unexpected_forms_do_no_harm(tmp_path):
    odd = [
        {"loss": 1.0},
        {"step": "five", "loss": 2.0},
        {"step": 10, "loss": "high", "loss_q0": [1], "validation_mse_by_t": 3},
        {"step": 11, "sample_channel_mean": [0.1], "data_channel_mean": None},
    ]
    run_dir = runs.make(tmp_path / "run", records=odd)
    run_dir.write_json(
        "evaluation/odd.json", {"metric": "m", "value": {"a": 1}, "by_t": 5}
    )
    assert "step 11 of" in read(run_dir).text


# ---- that it is one safe file --------------------------------------------------------


def test_nothing_is_loaded_from_elsewhere(full):
    found = read(full)
    for tag, attributes in found.elements:
        for name in ("src", "href", "srcset", "action", "poster"):
            target = attributes.get(name, "#")
            if not target.startswith(("#", "data:image/")):
                assert tag == "a"
                assert (full.path / urllib.parse.unquote(target)).is_file()
    assert not found.all("link")
    assert not found.all("iframe")
    source = full.report.read_text()
    assert "://" not in source
    assert "url(" not in source
    assert "@import" not in source
    policy = next(m["content"] for m in found.all("meta") if "http-equiv" in m)
    assert policy.startswith("default-src 'none'")


def test_links_lead_to_the_originals(full):
    targets = [a["href"] for a in read(full).all("a")]
    assert "samples/step_1000.png" in targets
    assert "samples/ddim-50%20ema/samples.npz" in targets
    anchors = {a["id"] for _, a in read(full).elements if "id" in a}
    assert {t[1:] for t in targets if t.startswith("#")} == anchors


def test_the_page_of_the_data_is_linked(full):
    assert "data.html" not in [a["href"] for a in read(full).all("a")]
    full.data_page.write_text("")
    assert "data.html" in [a["href"] for a in read(full).all("a")]


def test_long_lists_of_a_card_are_counted(full):
    card = {"metric": "fid", "value": 7.5, "seen": list(range(1000)), "few": [1, 2]}
    full.write_json("evaluation/fid.json", card)
    found = read(full)
    assert found.row("seen")[0][0] == "1,000 values"
    assert found.row("few")[0][0] == "1, 2"


def test_everything_from_files_is_escaped(tmp_path):
    evil = '<script>alert("1")</script>'
    run_dir = runs.make(
        tmp_path / "a<b>&amp;",
        records=[
            {"step": 1, evil: 1.0, "loss": evil},
            {"step": 2, f"ema{evil}": [evil]},
        ],
        config={**runs.CONFIG, "data": {"name": evil, evil: evil}},
        data={**runs.DATA, "class_names": [evil, "'&\"<b>"], "fingerprint": evil},
    )
    card = runs.card(metric=evil, unit=evil, extra={evil: evil})
    run_dir.write_json("evaluation/<i>.json", card)
    (run_dir.evaluation / "<u>.json").write_text("no card")
    found = read(run_dir, status={"state": "stopped", "reason": evil}, base={evil: 1})
    assert len(found.all("script")) == 1
    assert not found.all("i")
    assert not found.all("u")
    assert found.text.count(evil) >= 8
    assert "a<b>&amp;" in found.text


def test_it_is_readable_without_a_script(full):
    found = read(full)
    assert [i["alt"] for i in found.all("img")][:4] == [
        "Samples at step 1,000, raw weights",
        "Samples at step 1,000, EMA weights",
        "Samples at step 500, raw weights",
        "Samples at step 500, EMA weights",
    ]
    assert not [a for _, a in found.elements if any(n.startswith("on") for n in a)]
    assert not [a for _, a in found.elements if "hidden" in a]


def test_it_is_accessible(full):
    found = read(full)
    assert found.all("html") == [{"lang": "en"}]
    assert all(image["alt"] for image in found.all("img"))
    charts = found.all("svg")
    assert len(charts) >= 10
    assert all(chart["role"] == "img" for chart in charts)
    assert len(found.all("title")) == len(charts) + 1
    headings = [tag for tag, _ in found.elements if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == "h1"
    assert set(headings[1:]) == {"h2"}
    ids = [a["id"] for _, a in found.elements if "id" in a]
    assert len(ids) == len(set(ids))
    widths = [m["content"] for m in found.all("meta") if m.get("name") == "viewport"]
    assert widths == ["width=device-width, initial-scale=1"]


# ---- writing -------------------------------------------------------------------------


def test_it_is_replaced_as_a_whole(full, monkeypatch):
    first = page.write(full).read_bytes()

    def fail(source, target):
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(os, "replace", fail)
    full.append_metrics(runs.record(5000))
    with pytest.raises(OSError, match="No space left"):
        page.write(full)
    assert full.report.read_bytes() == first
    assert not list(full.path.glob(".report.html*"))


def test_a_directory_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(errors.Refusal, match=r"config\.json cannot be read"):
        page.write(runs.directory.RunDir(tmp_path))


def test_a_long_run_makes_a_small_page_in_little_time(tmp_path):
    """A million steps and a hundred grids of 64×64 noise: < 5 MB, and not for long."""
    run_dir = runs.make(tmp_path / "run")
    with open(run_dir.metrics, "w") as file:
        for step in range(100, 1_000_001, 100):
            loss = float(RANDOM.uniform(0.01, 1))
            file.write(json.dumps(runs.record(step, loss=loss, grad_norm=loss)) + "\n")
    noise = RANDOM.integers(0, 256, (40, 64, 64, 3), dtype=np.uint8)
    source = runs.write_pair(run_dir, 10_000, noise, noise[::-1])
    for step in range(20_000, 1_000_001, 10_000):
        os.link(source, run_dir.samples / f"step_{step}.png")
    before = time.process_time()
    written = page.write(run_dir)
    assert (
        time.process_time() - before < 5
    )  # about 0.8 s; leaves room for a slow machine
    assert written.stat().st_size < 2_500_000
    found = runs.Page(written.read_text())
    steps = [int(item["data-step"]) for item in found.all("li") if "data-step" in item]
    assert steps[0] == 1_000_000
    assert steps[-1] == 10_000
    assert len(steps) == 16
    assert np.ptp(np.diff(steps)) <= 10_000  # evenly spaced
    assert "84 more grids lie in samples/." in found.text
