"""A run that version 0.1.0 left behind opens, goes on, samples and scores as it would.

golden/run_of_0_1.tgz was written by that version: a finished archive of 8 images, one
that was interrupted after 8 of 16, a card, a best step. The expected arrays are what
0.1.0 itself made of the same directory afterwards.
"""

import json
import pathlib
import tarfile

import numpy as np
import pytest

from ddpm_jax import runtime

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
ANCESTRAL = "ancestral-4-ema-guidance1-seed0-step3"
DDIM = "ddim-4-eta0.5-ema-guidance2-labels3.7-seed0-step3"
OF_DDIM = (
    "--config.sampling.method=ddim",
    "--config.sampling.eta=0.5",
    "--config.sampling.guidance_scale=2",
    "--config.sampling.labels=3,7",
)


@pytest.fixture
def run(tmp_path):
    with tarfile.open(GOLDEN / "run_of_0_1.tgz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "run"


@pytest.fixture(scope="module")
def expected():
    with np.load(GOLDEN / "run_of_0_1_expected.npz") as arrays:
        return dict(arrays)


def samples(run, tag):
    with np.load(run / "samples" / tag / "samples.npz") as arrays:
        return arrays["arr_0"], arrays["arr_1"]


def assert_within_one_grey_value(images, others):
    assert images.shape == others.shape
    assert np.max(np.abs(images.astype(int) - others)) <= 1


def test_its_archives_are_continued_under_their_names(run, expected, tell):
    requests = {
        tag: (run / "samples" / tag / "request.json").read_bytes()
        for tag in (ANCESTRAL, DDIM)
    }
    assert "version" not in json.loads(requests[DDIM])
    told = tell("--mode=sample", f"--workdir={run}", *OF_DDIM)
    assert told.status == 0, told.err
    assert "8 of 16 images" in told.out
    assert tell("--mode=sample", f"--workdir={run}").status == 0
    tags = {path.name for path in (run / "samples").iterdir() if path.is_dir()}
    assert tags == {ANCESTRAL, DDIM}
    images, labels = samples(run, DDIM)
    assert_within_one_grey_value(images, expected["ddim"])
    np.testing.assert_array_equal(labels, expected["ddim_labels"])
    assert_within_one_grey_value(samples(run, ANCESTRAL)[0], expected["ancestral"])
    for tag, request in requests.items():
        assert (run / "samples" / tag / "request.json").read_bytes() == request


def test_it_goes_on_training(run, expected, tell):
    told = tell(f"--workdir={run}", "--config.train.steps=5")
    assert told.status == 0, told.err
    assert "resumed at step 3" in told.out
    records = [
        json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()
    ]
    losses = {r["step"]: r["loss"] for r in records if "loss" in r}
    assert list(losses) == expected["loss_steps"].tolist()
    np.testing.assert_allclose(list(losses.values()), expected["losses"], rtol=1e-4)
    stored = json.loads((run / "config.json").read_text())["data"]
    assert stored["shape"] == [8, 8, 1]


def test_its_cards_and_best_step_count(run, tell):
    options = ("--mode=evaluate", f"--workdir={run}")
    told = tell(*options, "--config.evaluation.num_images=16")
    assert told.status == 0, told.err
    assert "scored already" in told.out
    told = tell(
        "--mode=sample",
        f"--workdir={run}",
        "--config.sampling.checkpoint=best",
        "--config.sampling.num_samples=8",
    )
    assert told.status == 0, told.err
    assert "best checkpoint: step 3" in told.out


def test_the_digest_of_its_best_score_is_that_of_today(run):
    """Or the best step would be forgotten at the next evaluation in training."""
    from ddpm_jax.builders import trained_run
    from ddpm_jax.evaluation import sample_scorer

    saved = trained_run.read(run)
    best = json.loads((run / "checkpoints" / "best.json").read_text())
    assert sample_scorer.protocol(saved.config, "proxy_fd_random") == best["protocol"]


def test_other_numerics_are_told_and_keep_archives_apart(run, monkeypatch, tell):
    monkeypatch.setattr(runtime, "NUMERICS", 2)
    told = tell("--mode=sample", f"--workdir={run}", *OF_DDIM)
    assert told.status == 0, told.err
    assert "8 of 16 images" not in told.out
    images, _ = samples(run, f"{DDIM}-numerics2")
    assert len(images) == 16
    assert len(list((run / "samples" / DDIM / "parts").iterdir())) == 1
    told = tell(f"--workdir={run}", "--config.train.steps=4")
    assert "numerics 1 and this version has 2" in told.out
