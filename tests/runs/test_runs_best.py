"""The best step: what is better, and that it is kept."""

import json
import math

import jax
import jax.numpy as jnp
import pytest

from ddpm_jax.core import errors
from ddpm_jax.runs import best, checkpoints


def state_of(step):
    return {"w": jnp.full(3, step)}


@pytest.fixture
def root(tmp_path):
    return tmp_path / "checkpoints"


def test_the_best_step_is_kept_beside_the_newest(root):
    with checkpoints.Checkpoints(root, keep=2) as store:
        assert store.best() is None
        store.save(1, state_of(1))
        store.keep_best(best.Best(1, "fid", 9.0))
        for step in (2, 3, 4):
            store.save(step, state_of(step))
        store.wait()
        assert store.steps() == (1, 3, 4)
        assert store.best() == best.Best(1, "fid", 9.0)
        wanted = jax.eval_shape(lambda: state_of(0))
        assert store.restore(wanted, 1).state["w"].tolist() == [1, 1, 1]
        store.keep_best(best.Best(4, "fid", 8.0))
        store.save(5, state_of(5))
        store.wait()
        assert store.steps() == (4, 5)
    told = json.loads((root / "best.json").read_text())
    assert told == {"step": 4, "metric": "fid", "value": 8.0, "protocol": ""}


def test_the_best_waits_for_its_checkpoint(root):
    with checkpoints.Checkpoints(root) as store:
        store.save(7, state_of(7))
        store.keep_best(best.Best(7, "fid", 9.0))
        assert store.steps() == (7,)


def test_a_best_step_that_was_gone_back_from_counts_no_more(root):
    with checkpoints.Checkpoints(root) as store:
        store.save(7, state_of(7))
        store.keep_best(best.Best(7, "fid", 9.0))
        store.save(5, state_of(5))
        store.wait()
        assert store.best() is None


def test_a_damaged_record_of_the_best_is_named(root):
    root.mkdir()
    (root / "best.json").write_text('{"step": 1}')
    with (
        checkpoints.Checkpoints(root) as store,
        pytest.raises(errors.Refusal, match=r"best\.json is damaged.*delete it"),
    ):
        store.best()


@pytest.mark.parametrize(
    ("value", "other", "lower_is_better", "expected"),
    [
        (1.0, None, True, True),
        (1.0, ("fid", 2.0), True, True),
        (1.0, ("fid", 1.0), True, False),
        (1.0, ("fid", 2.0), False, False),
        (3.0, ("fid", 2.0), False, True),
        (9.0, ("kid", 2.0), True, True),  # another metric: no comparison
        (9.0, ("fid", 2.0, "fewer steps"), True, True),
        (math.nan, None, True, False),
        (math.inf, ("kid", 2.0), False, False),
    ],
)
def test_what_is_better(value, other, lower_is_better, expected):
    other = other and best.Best(1, *other)
    found = best.Best(2, "fid", value)
    assert found.beats(other, lower_is_better=lower_is_better) == expected
