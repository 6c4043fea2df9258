"""Flags of JAX that a user sets for his own code: runs open, train and sample alike."""

import contextlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_runs
from jax.sharding import AxisType

import ddpm_jax
from ddpm_jax.diffusion import samplers

FLAGS = {
    "jax_transfer_guard": "disallow",
    "jax_numpy_rank_promotion": "raise",
    "jax_numpy_dtype_promotion": "strict",
    "jax_random_seed_offset": 7,
    "jax_debug_infs": True,
    "jax_debug_key_reuse": True,
    "jax_check_tracer_leaks": True,
    "an explicit mesh": None,
}


TOGETHER = "all that change no program"
CHANGE_NO_PROGRAM = list(FLAGS)[:4]


@contextlib.contextmanager
def under(flag):
    with contextlib.ExitStack() as stack:
        for one in CHANGE_NO_PROGRAM if flag == TOGETHER else [flag]:
            if one in jax.config.values:
                stack.callback(jax.config.update, one, jax.config.values[one])
                jax.config.update(one, FLAGS[one])
            else:
                axes = (AxisType.Explicit,)
                mesh = jax.make_mesh((8,), ("rows",), axis_types=axes)
                stack.enter_context(jax.set_mesh(mesh))
        yield


def sample(workdir):
    return ddpm_jax.load(workdir).sample(8, steps=2, trajectory=[0]).estimates


def denoise(workdir):
    """A chain of the user's own, with our network."""
    run = ddpm_jax.load(workdir)
    labels = jax.device_put(np.array([1, 2], np.int32))
    tables, denoise = run.denoiser(steps=2, weights="raw", labels=labels)
    x_T = jax.device_put(np.ones((2, 8, 8, 1), np.float32))

    def chain(x):
        return samplers.sample(
            tables,
            denoise,
            step=samplers.ddim(),
            x_T=x,
            noise_fn=lambda k: jnp.zeros(x.shape),
        ).x

    return jax.jit(chain)(x_T)


@pytest.fixture(scope="module")
def expected(first_run, quickly):
    return {make: jax.device_get(make(first_run[0])) for make in (sample, denoise)}


@pytest.mark.parametrize("make", [sample, denoise])
@pytest.mark.parametrize("flag", FLAGS)
def test_images_are_the_same(flag, make, expected, first_run):
    if make is denoise and flag not in jax.config.values:
        pytest.skip("a network's weights lie on the run's mesh")
    with under(flag):
        made = make(first_run[0])
    np.testing.assert_array_equal(jax.device_get(made), expected[make])


def go_on(workdir, tell):
    """Two more steps, a score of each kind: what the run's directory then holds."""
    told = tell(
        *small_runs.TINY,
        f"--workdir={workdir}",
        f"--config.train.steps={small_runs.STEPS + 2}",
        "--config.train.validate_every=8",
    )
    assert told.status == 0, told.err
    scored = tell("--mode=evaluate", f"--workdir={workdir}")
    assert scored.status == 0, scored.err
    cards = (workdir / "evaluation").rglob("*.json")
    return small_runs.state_of(workdir), [card.name for card in sorted(cards)]


@pytest.mark.parametrize(
    "flag", [TOGETHER, *(pytest.param(f, marks=pytest.mark.slow) for f in FLAGS)]
)
def test_training_and_scores_are_the_same(flag, trained, first_run, tmp_path, tell):
    plain = shutil.copytree(first_run[0], tmp_path / "plain")
    state, cards = go_on(plain, tell)
    with under(flag):
        made, made_cards = go_on(trained, tell)
    small_runs.assert_same_bits(made, state)
    assert made_cards == cards
