"""One claim from nothing to its page, in its smallest form."""

import json
import pathlib
import sys

import jax
import numpy as np
import pytest

import ddpm_jax
from ddpm_jax.builders import trained_run

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # benchmarks/ is no part of the package

from benchmarks.claims import __main__, arms, training  # noqa: E402


@pytest.mark.slow
def test_a_claim_is_run_resumed_and_rendered(tmp_path, capsys):
    results, docs, runs = (tmp_path / name for name in ("results", "docs", "runs"))
    given = [
        *("simple_loss", "--fast", f"--results={results}"),
        *(f"--docs={docs}", f"--workdir={runs}"),
    ]
    __main__.run(__main__.parser().parse_args(given))
    page = (docs / "claims" / "simple_loss.md").read_text()
    overview = (docs / "claims.md").read_text()
    assert "not yet run" not in page.lower()
    assert (
        page.count("| holds |")
        + page.count("| undecided |")
        + page.count("| contradicted |")
        == 2
    )
    assert "[L_simple makes better samples" in overview
    stored = json.loads((results / "points_simple-0.json").read_text())
    assert stored["config"]["diffusion.loss"] == "simple"
    assert (
        len(stored["measures"]["points bits"]["values"]["by_t"]) == 5
    )  # steps of --fast
    assert len([*results.glob("*.json")]) == 2 * len(arms.SEEDS["points"])

    # The same again trains nothing, measures nothing, and writes the same page.
    before = {path: path.read_bytes() for path in results.glob("*.json")}
    capsys.readouterr()
    __main__.run(__main__.parser().parse_args(given))
    assert "seed" not in capsys.readouterr().out
    assert {path: path.read_bytes() for path in results.glob("*.json")} == before
    assert (docs / "claims" / "simple_loss.md").read_text() == page


@pytest.mark.slow
def test_a_run_of_an_arm_is_that_of_mode_train(tmp_path):
    config = arms.config("hybrid", 1, tmp_path, fast=True)
    training.Trainer().train(config, arms.record(config), tmp_path / "ours")
    ddpm_jax.train(config, tmp_path / "ordinary")
    ours, ordinary = (
        trained_run.open_run(tmp_path / name).state for name in ("ours", "ordinary")
    )
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(ordinary), strict=True)
    for one, other in pairs:
        np.testing.assert_array_equal(one, other)
