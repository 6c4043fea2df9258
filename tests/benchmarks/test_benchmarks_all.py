"""python -m benchmarks.all: what fits into the time, the table, refusals.

It is never run here: the one process that starts measures nothing.
"""

import math
import pathlib
import re
import sys
import time

import pytest

from ddpm_jax.core import errors

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # benchmarks/ is no part of the package

from benchmarks import all as every  # noqa: E402
from benchmarks import apart, registry  # noqa: E402


def benchmark(seconds, **options):
    return registry.Benchmark("a thing", list, seconds, **options)


TABLE = {
    "long": benchmark(50),
    "race": benchmark(20, needs_torch=True),
    "short": benchmark(10),
}


def arguments(*flags):
    return every.parser().parse_args(flags)


@pytest.mark.parametrize(
    ("seconds", "has_torch", "running"),
    [
        (80, True, ("long", "race", "short")),
        (79, True, ("long", "race")),
        (69, True, ("long", "short")),
        (30, True, ("race", "short")),
        (80, False, ("long", "short")),
        (9, True, ()),
    ],
)
def test_what_fits_runs_the_first_of_the_table_first(seconds, has_torch, running):
    plan = every.plan(TABLE, seconds, has_torch=has_torch)
    assert plan.running == running
    assert set(plan.left_out) == set(TABLE) - set(running)


def test_why_one_is_left_out():
    plan = every.plan(TABLE, 55, has_torch=False)
    assert "pip install torch" in plan.left_out["race"]
    assert re.search(r"10 s, and 5 s .*--minutes", plan.left_out["short"])


def test_the_table_has_the_spread_of_the_rounds():
    rows = {"race": [registry.Row("over PyTorch", [0.5, 0.75, 2.0, 1.0])]}
    lines = every.table(rows).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    cells = [cell.strip() for cell in lines[-1].strip("|").split("|")]
    assert cells[:2] == ["race", "over PyTorch"]
    assert [float(cell) for cell in cells[2:]] == [0.875, 0.5, 2.0, 4]


@pytest.mark.parametrize(
    ("value", "told"),
    [(0.6724, "0.672"), (3.14159, "3.14"), (42.68, "42.7"), (1234.5, "1,234")],
)
def test_numbers_have_three_digits(value, told):
    assert every.number(value) == told


def test_the_text_has_the_machine_the_table_and_what_is_missing():
    rows = {"short": [registry.Row("a thing", [1.0])]}
    machine, table, reasons = every.text("a CPU", rows, {"long": "why"}).split("\n\n")
    assert machine == "a CPU"
    assert table == every.table(rows)
    assert reasons == "long was left out: why."
    assert every.text("a CPU", {}, {}).startswith("a CPU\n\nNothing")


def test_versions_are_those_that_are_installed():
    import jaxlib

    assert every.versions(("jaxlib", "no_such_package")) == (
        f"jaxlib {jaxlib.__version__}"
    )


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf", "ten"])
def test_no_time_is_refused(minutes):
    with pytest.raises(errors.Refusal, match=rf"{minutes} .*--minutes=10"):
        every.run(arguments(f"--minutes={minutes}"))


def test_an_unknown_benchmark_is_refused():
    with pytest.raises(errors.Refusal, match=r"'trian_step'.* train_step"):
        every.run(arguments("--only=trian_step"))


def test_the_list_names_all(capsys):
    assert every.run(arguments("--list")) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in told] == list(registry.BENCHMARKS)


def test_one_benchmark_is_run_where_one_is_named():
    assert list(registry.chosen("guidance")) == ["guidance"]
    assert registry.chosen("") == registry.BENCHMARKS


def test_ten_minutes_are_enough_for_all():
    plan = every.plan(registry.BENCHMARKS, every.seconds_of("10"), has_torch=True)
    assert not plan.left_out


def test_the_scripts_take_the_flags_that_the_registry_gives(monkeypatch):
    # Nothing is measured: the races answer at once, with 3 rounds of 2 s and of 1 s.
    presets = registry.imported("presets")
    config = type("Config", (), {})()
    config.train, config.model = type("", (), {"batch_size": 8})(), config
    config.dtype = "float32"
    asked = []

    def race(args):
        asked.append(args)
        setting = presets.Setting(args.preset, config, *[None] * 4)
        ours = presets.Result("ddpm_jax", 1.0, [2.0, 2.0, 2.0], None)
        theirs = presets.Result("PyTorch eager", None, [1.0, 2.0, 4.0], None)
        return setting, [ours, theirs], 1.0

    for name in ("train_step", "sample"):
        monkeypatch.setattr(registry.imported(name), "race", race)
    for measure in (registry.train_step, registry.sample, registry.train_step_digits):
        (row,) = measure()
        assert row.values == [0.5, 1.0, 2.0]
        assert row.what.endswith("over PyTorch eager")
    assert [args.preset for args in asked] == ["iddpm_cifar10"] * 2 + ["digits"]
    assert {args.rounds for args in asked} == {registry.ROUNDS}


# ---- a process of its own ------------------------------------------------------------


def test_what_another_process_returns_or_fails_to():
    assert apart.measured(math.hypot, (3.0, 4.0), 60) == apart.Outcome(5.0)
    assert apart.measured(math.sqrt, (-1.0,), 60) == apart.Outcome(None, apart.FAILED)


def test_one_that_takes_too_long_is_ended():
    began = time.monotonic()
    outcome = apart.measured(time.sleep, (60,), 0.5)
    assert outcome == apart.Outcome(None, apart.OVERTIME)
    assert time.monotonic() - began < 30
