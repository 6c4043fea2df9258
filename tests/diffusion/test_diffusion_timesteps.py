"""Timestep samplers against a simulation that keeps lists, one example at a time."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import timesteps as ref_timesteps

from ddpm_jax.diffusion import timesteps


@functools.partial(jax.jit, static_argnums=0)
def update(num_steps, state, t, loss):
    return timesteps.loss_second_moment(num_steps).update(state, t, loss)


@functools.partial(jax.jit, static_argnums=(0, 3))
def sample(num_steps, state, key, n):
    return timesteps.loss_second_moment(num_steps).sample(state, key, n)


def feed(num_steps, state, reference, t, loss):
    """Update both with one batch."""
    state = update(
        num_steps, state, jnp.asarray(t, jnp.int32), jnp.asarray(loss, jnp.float32)
    )
    reference.update(t, np.asarray(loss, np.float32))
    return state


def check_weights(num_steps, state, reference, n=64, seed=0):
    """Every drawn weight is 1/(T p_t) of the simulation."""
    t, weight = sample(num_steps, state, jax.random.key(seed), n)
    assert t.shape == weight.shape == (n,)
    assert t.dtype == jnp.int32
    assert weight.dtype == jnp.float32
    p = np.array(reference.probabilities())
    np.testing.assert_allclose(weight, 1 / (len(p) * p[np.asarray(t)]), rtol=1e-5)


def check_frequencies(t, p):
    """Chi-square of drawn t against p, within six standard deviations."""
    counts = np.bincount(np.asarray(t), minlength=len(p))
    expected = len(t) * np.asarray(p)
    chi_square = np.sum((counts - expected) ** 2 / expected)
    freedom = len(p) - 1
    assert chi_square < freedom + 6 * np.sqrt(2 * freedom) + 10


# ---- uniform -------------------------------------------------------------------------


@pytest.mark.parametrize("num_steps", [1, 2, 10, 1000])
def test_uniform(num_steps):
    sampler = timesteps.uniform(num_steps)
    state = sampler.init()
    draw = jax.jit(lambda key: sampler.sample(state, key, 20000))
    t, weight = draw(jax.random.key(0))
    assert t.dtype == jnp.int32
    assert weight.dtype == jnp.float32
    np.testing.assert_array_equal(weight, np.ones(20000))
    assert int(t.min()) >= 0
    assert int(t.max()) <= num_steps - 1
    if num_steps > 1:
        check_frequencies(t, np.full(num_steps, 1 / num_steps))
    chex.assert_trees_all_equal(sampler.update(state, t, weight), state)


# ---- loss-second-moment --------------------------------------------------------------


def test_published_probabilities():
    sampler = timesteps.loss_second_moment(4)
    reference = ref_timesteps.SecondMoment(4)
    state = sampler.init()
    for _ in range(10):
        state = feed(4, state, reference, [0, 1, 2, 3], [1.0, 2.0, 3.0, 4.0])
    np.testing.assert_allclose(
        reference.probabilities(), [0.10015, 0.20005, 0.29995, 0.39985], rtol=1e-9
    )
    t, weight = sample(4, state, jax.random.key(0), 40000)
    published = np.array([2.49625562, 1.24968758, 0.83347225, 0.62523446])
    np.testing.assert_allclose(weight, published[np.asarray(t)], rtol=1e-5)
    check_frequencies(t, reference.probabilities())
    # 1/(T p) undoes p: the mean of weight · f(t) is the uniform mean of f.
    estimate = float(np.mean(np.asarray(weight) * np.asarray(t)))
    assert estimate == pytest.approx(1.5, abs=0.03)


def test_uniform_until_every_step_has_ten_losses():
    sampler = timesteps.loss_second_moment(3)
    reference = ref_timesteps.SecondMoment(3)
    state = sampler.init()
    for count in range(1, 12):
        # t = 2 lags behind by one.
        batch = [0, 1, 2] if count > 1 else [0, 1]
        state = feed(3, state, reference, batch, [5.0, 1.0, 0.1][: len(batch)])
        t, weight = sample(3, state, jax.random.key(count), 3000)
        if count <= 10:
            np.testing.assert_allclose(weight, np.ones(3000), rtol=1e-6)
            check_frequencies(t, np.full(3, 1 / 3))
        else:
            assert float(jnp.ptp(weight)) > 1
            check_frequencies(t, reference.probabilities())
        check_weights(3, state, reference, n=3000, seed=count)


@pytest.mark.parametrize(("num_steps", "batch"), [(2, 64), (4, 7), (4, 200)])
def test_repeated_steps_in_one_batch(num_steps, batch):
    rng = np.random.default_rng(batch)
    sampler = timesteps.loss_second_moment(num_steps)
    reference = ref_timesteps.SecondMoment(num_steps)
    state = sampler.init()
    for turn in range(30):
        t = rng.integers(0, num_steps, batch)
        # Growing losses: keeping the wrong ten shows.
        loss = rng.exponential(size=batch) * (1 + turn) + np.arange(batch) / batch
        state = feed(num_steps, state, reference, t, loss)
        check_weights(num_steps, state, reference, seed=turn)
    warm = np.ptp(reference.probabilities()) > 0
    assert warm


def test_only_the_last_ten_of_a_large_batch_count():
    sampler = timesteps.loss_second_moment(2)
    reference = ref_timesteps.SecondMoment(2)
    state = sampler.init()
    t = [0] * 25 + [1] * 25
    loss = [100.0] * 15 + [1.0] * 10 + [3.0] * 25
    state = feed(2, state, reference, t, loss)
    # √E[L²] is 1 and 3: p = ¼ and ¾, mixed with 0.1 % uniform.
    expected = np.array([0.25, 0.75]) * 0.999 + 0.0005
    np.testing.assert_allclose(reference.probabilities(), expected, rtol=1e-12)
    check_weights(2, state, reference)


def test_one_batch_equals_many_of_one_example():
    rng = np.random.default_rng(3)
    sampler = timesteps.loss_second_moment(4)
    t = rng.integers(0, 4, 90).astype(np.int32)
    loss = rng.exponential(size=90).astype(np.float32)
    whole = update(4, sampler.init(), t, loss)
    parts = sampler.init()
    for index in range(90):
        parts = update(4, parts, t[index : index + 1], loss[index : index + 1])
    chex.assert_trees_all_equal(whole, parts)


def test_the_state_is_a_value_of_fixed_shape():
    sampler = timesteps.loss_second_moment(5)
    before = sampler.init()
    kept = jax.tree.map(np.array, before)
    after = sampler.update(before, jnp.array([1, 1, 4]), jnp.array([1.0, 2.0, 3.0]))
    chex.assert_trees_all_equal(before, kept)
    chex.assert_trees_all_equal_shapes_and_dtypes(before, after)


def test_the_smallest_probability_keeps_its_uniform_share():
    sampler = timesteps.loss_second_moment(4)
    reference = ref_timesteps.SecondMoment(4)
    state = sampler.init()
    for _ in range(10):
        state = feed(4, state, reference, [0, 1, 2, 3], [0.0, 1e3, 1e3, 1e3])
    assert reference.probabilities()[0] == pytest.approx(0.001 / 4)
    t, weight = sample(4, state, jax.random.key(0), 40000)
    assert float(weight[t == 0].max()) == pytest.approx(1000, rel=1e-4)


def test_draws_are_a_function_of_the_key():
    state = timesteps.loss_second_moment(4).init()
    one = sample(4, state, jax.random.key(0), 64)
    chex.assert_trees_all_equal(one, sample(4, state, jax.random.key(0), 64))
    other = sample(4, state, jax.random.key(1), 64)
    assert (np.asarray(one[0]) != np.asarray(other[0])).any()
