"""With jax_enable_x64, set by another part of a program: float32 stays float32."""

import jax
import numpy as np
import pytest
import small_runs

import ddpm_jax
from ddpm_jax.builders import trained_run


@pytest.fixture
def x64(quickly):
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def types(workdir):
    """The type of every array of a run's newest state."""
    return {path: leaf.dtype for path, leaf in small_runs.state_of(workdir).items()}


def test_a_run_opens_and_samples_with_x64(first_run, x64):
    run = ddpm_jax.load(first_run[0])
    given = {leaf.dtype.name for leaf in jax.tree.leaves(run.params())}
    assert given == {"float32"}
    made = run.sample(4, steps=2, trajectory=[0])
    assert made.images.dtype == np.uint8
    assert made.states.dtype == made.estimates.dtype == np.float32
    state = trained_run.open_run(first_run[0]).state
    kinds = {leaf.dtype.name for leaf in jax.tree.leaves(state)}
    assert kinds == {"float32", "int32"}


def test_a_run_goes_on_with_x64_and_opens_without(trained, first_run, x64, tell):
    wanted = types(first_run[0])
    resumed = tell(
        *small_runs.TINY,
        f"--workdir={trained}",
        f"--config.train.steps={small_runs.STEPS + 2}",
    )
    assert resumed.status == 0, resumed.err
    assert types(trained) == wanted
    jax.config.update("jax_enable_x64", False)
    assert ddpm_jax.load(trained).step == small_runs.STEPS + 2
    assert types(trained) == wanted


def test_a_run_begins_with_x64(tmp_path, first_run, x64, tell):
    begun = tell(*small_runs.TINY, f"--workdir={tmp_path}", "--config.train.steps=3")
    assert begun.status == 0, begun.err
    assert types(tmp_path) == types(first_run[0])
    sampled = tell("--mode=sample", f"--workdir={tmp_path}")
    assert sampled.status == 0, sampled.err
