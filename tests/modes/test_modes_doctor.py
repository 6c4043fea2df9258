"""The doctor: a sound machine passes, every kind of fault is found and named."""

import dataclasses
import re

import numpy as np
import pytest
import small_runs

from ddpm_jax.core import errors
from ddpm_jax.diagnosis import defects
from ddpm_jax.diffusion import process, solvers
from ddpm_jax.modes import doctor
from ddpm_jax.runs import checkpoints
from ddpm_jax.runtime import devices, versions


def test_a_sound_machine_passes(tell, monkeypatch):
    monkeypatch.setattr(doctor, "SAMPLER_STEPS", (1, 20))  # less to compile
    names = [name for name, _ in doctor.checks()]
    told = tell("--mode=doctor")
    assert told.status == 0, told.out + told.err
    for title in ("versions", "devices", "machine", "speed", "self-test"):
        assert re.search(f"^{title}", told.out, re.M)
    results = re.findall(r"^  (ok|FAILED) +(\S.*?)  ", told.out, re.M)
    assert results == [("ok", name) for name in names]
    assert f"all {len(names)} checks passed" in told.lines[-1]
    assert re.search(r"matmul \d+ +[\d,]+ GFLOP/s", told.out)


def test_a_failed_check_ends_with_one_sentence(tell, monkeypatch):
    def chosen():
        yield "schedule, cosine", doctor.cosine_schedule
        yield "made to fail", lambda: doctor.Verdict(False, "off by 9 σ")

    monkeypatch.setattr(doctor, "checks", chosen)
    told = tell("--mode=doctor")
    assert told.status == 1
    assert re.search(r"^  FAILED  made to fail +off by 9 σ", told.out, re.M)
    assert told.err.startswith("error: 1 of 2 checks failed (made to fail): ")
    assert "passed" not in told.out


def test_an_error_of_the_machine_is_a_failed_check():
    def check():
        raise errors.Refusal("the disk is full\nreally")

    assert doctor._verdict(check) == doctor.Verdict(False, "the disk is full")


# ---- faults that the checks must find ------------------------------------------------


def test_one_sampler_in_the_place_of_another_is_found(monkeypatch):
    monkeypatch.setitem(solvers.SOLVERS, "ddim", lambda eta: solvers.ancestral())
    assert not doctor.sampler("ddim", 0.0, 10).good


def test_timesteps_of_another_spacing_are_found(monkeypatch):
    whole = process.padded_tables

    def shifted(schedule, length):
        tables = whole(schedule, length)
        seen = np.maximum(tables.timesteps_seen - 30, 0)
        return dataclasses.replace(tables, timesteps_seen=seen)

    monkeypatch.setattr(process, "padded_tables", shifted)
    assert not doctor.sampler("ancestral", 0.0, 10).good


def test_coarse_arithmetic_is_found(monkeypatch):
    whole = process.tables

    def coarse(schedule):
        # What bfloat16 would leave of the tables: eight bits.
        def cut(table):
            bits = np.asarray(table, np.float32).view(np.uint32) & 0xFFFF0000
            return bits.view(np.float32)

        tables = whole(schedule)
        return dataclasses.replace(
            tables,
            alpha_bar=cut(tables.alpha_bar),
            posterior_mean_x_0=cut(tables.posterior_mean_x_0),
        )

    monkeypatch.setattr(doctor.process, "tables", coarse)
    assert not doctor.cosine_schedule().good
    assert not doctor.posterior_identities().good


def test_noise_of_another_variance_is_found(monkeypatch):
    monkeypatch.setattr(
        doctor.process,
        "q_sample",
        lambda tables, x_0, t, noise: (
            process.at(tables.sqrt_alpha_bar, t, x_0) * x_0
            + process.at(tables.one_minus_alpha_bar, t, x_0) * noise
        ),
    )
    assert not doctor.noising().good


def test_a_changed_bit_in_a_checkpoint_is_found(monkeypatch):
    restore = checkpoints.Checkpoints.restore

    def restore_changed(*args):
        restored = restore(*args)
        weights = restored.state["weights"]
        changed = {"weights": weights.at[3, 4].multiply(1 + 2**-20)}
        return checkpoints.Restored(changed, restored.step, restored.skipped)

    monkeypatch.setattr(checkpoints.Checkpoints, "restore", restore_changed)
    assert not doctor.checkpoint().good


def test_an_idle_accelerator_is_a_failed_check(monkeypatch):
    facts = devices.Facts("cpu", nvidia="/dev/nvidia0")
    monkeypatch.setattr(devices, "probe", lambda: facts)
    verdict = doctor.accelerator()
    assert not verdict.good
    assert "jax[cuda12]" in verdict.numbers
    assert dict(doctor.device_lines())["NVIDIA GPU"] == "/dev/nvidia0"


# ---- versions ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("0.9.9", "NOT TESTED, older than tested: 0.10 … 0.12"),
        ("0.10.2", "tested: 0.10 … 0.12"),
        ("0.12.0.1", "tested: 0.10 … 0.12"),
        ("0.13.0", "NOT TESTED, newer than tested: 0.10 … 0.12"),
        ("1.0", "NOT TESTED, newer than tested: 0.10 … 0.12"),
        ("not installed", "NOT TESTED, older than tested: 0.10 … 0.12"),
    ],
)
def test_versions_outside_the_tested_range_are_marked(version, words):
    ((name, text),) = doctor.version_lines({"jax": version})
    assert name == "jax"
    assert " ".join(text.split()) == f"{version} {words}"


def test_the_tested_range_is_that_of_the_installation():
    setup = (small_runs.ROOT / "setup.py").read_text()
    for package in versions.TESTED.keys() & set(versions.PACKAGES):
        bounds = re.search(rf'"{package}>=([\d.]+)(?:,<([\d.]+))?"', setup)
        if not bounds:
            continue  # comes with another package
        first, last = map(versions.release, versions.TESTED[package])
        assert versions.release(bounds[1]) == first
        if bounds[2]:
            assert last < versions.release(bounds[2] + ".0")


# ---- a run ---------------------------------------------------------------------------


def test_the_parameters_of_a_run_are_looked_at(trained, tell, monkeypatch):
    monkeypatch.setattr(doctor, "checks", lambda: iter(()))
    told = tell("--mode=doctor", f"--workdir={trained}")
    assert told.status == 0, told.err
    assert re.search(r"ok +parameters of the run +all \d+ have a gradient", told.out)
    assert tell("--mode=doctor", f"--workdir={trained / 'none'}").status == 1


BROKEN = "ready\nrows False\naxes 6\n"


def test_defects_and_repeatability_are_told(tell, monkeypatch):
    monkeypatch.setattr(doctor, "checks", lambda: iter(()))
    monkeypatch.setattr(defects, "_run", lambda program: (BROKEN, -11, ""))
    told = tell("--mode=doctor")
    assert told.status == 0  # they are no fault of this machine
    assert "crash or are wrong for 7 axes" in told.out
    assert "WRONG for 32,769 rows" in told.out
    assert "the same bits in 5 runs" in told.out


def test_what_is_newer_than_the_tests_is_said():
    last = {name: span[1] for name, span in versions.TESTED.items()}
    assert versions.newer({name: f"{number}.99" for name, number in last.items()}) == []
    assert versions.newer({**last, "jax": "0.13.1"}) == ["jax 0.13.1"]
    assert versions.newer({**last, "grain": "not installed"}) == []
