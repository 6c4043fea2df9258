"""A directory that is renamed while it is used."""

import os

import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.core import errors
from ddpm_jax.runs import checkpoints, place

STATE = {"a": jnp.arange(4.0)}


@pytest.fixture
def run(tmp_path):
    (tmp_path / "runs" / "a").mkdir(parents=True)
    return tmp_path / "runs" / "a"


def renamed(run):
    return run.rename(run.with_name("b"))


def parent_renamed(run):
    return run.parent.rename(run.parent.with_name("old")) / "a"


def moved_and_replaced(run):
    new = renamed(run)
    run.mkdir()  # another run begins under the old name
    return new


@pytest.mark.parametrize("move", [renamed, parent_renamed, moved_and_replaced])
def test_it_is_found_under_its_new_name(run, move):
    with place.Place(run) as where:
        assert where.moved_to() is None
        where.check()
        new = move(run)
        assert where.moved_to() == new
        with pytest.raises(errors.Refusal) as refused:
            where.check()
    assert str(run) in str(refused.value)
    assert f"--workdir={new}" in str(refused.value)


@pytest.mark.parametrize("move", [renamed, parent_renamed, moved_and_replaced])
def test_the_last_state_goes_where_the_run_is(run, move):
    with checkpoints.Checkpoints(run / "checkpoints") as saved:
        saved.save(1, STATE)
        saved.wait()
        new = move(run)
        saved.save(2, STATE)
    assert not (run / "checkpoints").exists()
    assert run.exists() == (move is moved_and_replaced)
    with checkpoints.Checkpoints(new / "checkpoints") as saved:
        assert saved.steps() == (1, 2)
        np.testing.assert_array_equal(saved.restore(STATE).state["a"], STATE["a"])


def test_a_run_that_is_deleted_is_not_made_again(run):
    with checkpoints.Checkpoints(run / "checkpoints") as saved:
        os.rmdir(run)
        with pytest.raises(errors.Refusal, match="could not be saved"):
            saved.save(1, STATE)
    assert not run.exists()
