"""The best checkpoint: kept beside the last ones, sampled from and scored."""

import json

import pytest
from small_runs import STEPS, TINY, assert_same_bits, checkpoints, metrics, state_of

from ddpm_jax import config as config_lib
from ddpm_jax.evaluation import sample_scorer
from ddpm_jax.runs import directory


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tmp_path_factory.mktemp("best") / "run"


def train(tell, workdir, steps, *arguments):
    return tell(
        *TINY,
        f"--workdir={workdir}",
        f"--config.train.steps={steps}",
        "--config.train.checkpoint_every=100",
        "--config.train.keep_checkpoints=1",
        "--config.train.evaluate_every=2",
        "--config.evaluation.in_training=proxy_fd_random,bits_per_dim",
        "--config.evaluation.in_training_samples=16",
        *arguments,
    )


def best_of(workdir):
    return json.loads((workdir / "checkpoints" / "best.json").read_text())


def test_the_best_step_is_kept(tell, workdir):
    told = train(tell, workdir, steps=6)
    assert told.status == 0, told.err
    scored = [record for record in metrics(workdir) if "proxy_fd_random" in record]
    assert [record["step"] for record in scored] == [2, 4, 6]
    assert all("test_bits_per_dim" in record for record in scored)
    lowest = min(scored, key=lambda record: record["proxy_fd_random"])
    expected = {
        "step": lowest["step"],
        "metric": "proxy_fd_random",
        "value": lowest["proxy_fd_random"],
    }
    assert expected.items() <= best_of(workdir).items()
    assert {"6", str(lowest["step"])} <= set(checkpoints(workdir))


def test_it_outlives_newer_ones_and_is_sampled_from(tell, workdir):
    best = {**best_of(workdir), "value": -1.0}  # which nothing will beat
    directory.RunDir(workdir).write_json("checkpoints/best.json", best)
    step = best["step"]
    assert train(tell, workdir, steps=step + 8).status == 0
    assert best_of(workdir) == best
    names = {name for name in checkpoints(workdir) if name.isdecimal()}
    assert names == {str(step), str(step + 8)}
    for mode in ("sample", "evaluate"):
        for which, expected in (("best", step), ("last", step + 8)):
            told = tell(
                f"--mode={mode}",
                f"--workdir={workdir}",
                f"--config.sampling.checkpoint={which}",
                "--config.evaluation.num_images=8",
            )
            assert told.status == 0, told.err
            assert f"\nstep {expected}, " in f"\n{told.out}"


def test_scores_that_were_measured_otherwise_do_not_count(tell, workdir):
    before = best_of(workdir)
    last = max(record["step"] for record in metrics(workdir))
    fewer = "--config.evaluation.in_training_samples=8"
    told = train(tell, workdir, last + 2, fewer)
    assert told.status == 0, told.err
    assert "does not compare with" in told.out
    after = best_of(workdir)
    assert (after["step"], after["metric"]) == (last + 2, before["metric"])
    assert after["value"] > before["value"] == -1.0


def test_what_a_score_in_training_depends_on():
    def protocol(name, **changed):
        config = config_lib.base()
        for name_of, value in changed.items():
            part, _, field = name_of.partition("__")
            config[part][field] = value
        return sample_scorer.protocol(config, name)

    for name, matters in (("bits_per_dim", False), ("fid", True)):
        usual = protocol(name)
        assert usual == protocol(name, sampling__num_samples=7, train__steps=3)
        assert usual != protocol(name, evaluation__in_training_samples=9)
        assert (usual != protocol(name, sampling__eta=0.5)) is matters
        assert (usual != protocol(name, evaluation__clip=False)) is not matters


def test_looking_changes_no_weight(tell, first_run, tmp_path):
    assert any("proxy_fd" in record for record in metrics(first_run[0]))
    told = tell(
        *TINY,
        f"--workdir={tmp_path / 'run'}",
        f"--config.train.steps={STEPS}",
        "--config.train.evaluate_every=0",
        "--config.train.validate_every=0",
    )
    assert told.status == 0, told.err
    assert_same_bits(state_of(tmp_path / "run"), state_of(first_run[0]))
