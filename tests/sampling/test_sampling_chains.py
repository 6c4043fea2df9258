"""Samples of the 2015 chains: example i is example i; what is known stays known."""

import jax
import numpy as np
import pytest
import tiny_chains as tiny

from ddpm_jax.core import errors, keys
from ddpm_jax.runtime import sharding
from ddpm_jax.sampling import chain_sampler

TOLERANCE = 1e-5


def maker(kind, mesh_shape=(1, 1), known=None, repeats=1):
    """A sampler on some of the fake devices, and its parameters there."""
    chain, tables_of, states = tiny.chain_of(kind)
    network = tiny.network_of(chain)
    count = mesh_shape[0] * mesh_shape[1]
    mesh = sharding.make_mesh(*mesh_shape, devices=jax.devices()[:count])
    recipe = chain_sampler.ChainRecipe(
        tiny.SHAPE, tiny.NUM_STEPS, (), seed=3, repeats=repeats
    )
    made_by = chain_sampler.ChainSampler(
        recipe,
        network,
        mesh,
        chain=chain,
        tables_of=tables_of,
        states=states,
        known=known,
    )
    params = jax.device_put(tiny.params_of(network), sharding.replicated(mesh))
    return made_by, params


def made(kind, start, stop, batch_size, **options):
    made_by, params = maker(kind, **options)
    return made_by.make(params, start=start, stop=stop, batch_size=batch_size)


@pytest.fixture(scope="module", params=tiny.KINDS)
def seven(request):
    return request.param, made(request.param, 0, 7, 7)


def test_an_example_alone_is_the_one_of_a_batch_of_seven(seven):
    kind, together = seven
    alone = made(kind, 4, 5, 1)
    np.testing.assert_allclose(alone.images[0], together.images[4], atol=TOLERANCE)
    np.testing.assert_allclose(
        alone.states[:, 0], together.states[:, 4], atol=TOLERANCE
    )
    others = np.delete(together.images, 4, axis=0)
    assert np.any(others != alone.images)


def test_its_noise_is_the_same_to_the_bit(seven):
    kind, _ = seven
    chain, _, _ = tiny.chain_of(kind)
    each = keys.key_for(3, "sample/noise", index=np.arange(7, dtype=np.int32))
    alone = keys.key_for(3, "sample/noise", index=np.array([4], np.int32))
    noise = np.asarray(chain.noise_each(each, tiny.SHAPE))
    assert noise[4].tobytes() == chain.noise_each(alone, tiny.SHAPE).tobytes()


def test_eight_devices_make_what_one_makes(seven):
    kind, together = seven
    shared = made(kind, 0, 7, 8, mesh_shape=(4, 2))
    np.testing.assert_allclose(shared.images, together.images, atol=TOLERANCE)


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_what_is_known_is_in_the_result_and_decides_the_rest(kind):
    free = made(kind, 0, 96, 96)
    mask = np.zeros((2, *tiny.SHAPE), bool)
    mask[:, :2, 0] = True
    known = chain_sampler.Known(tiny.data_of(kind, 2), mask)
    fixed = made(kind, 0, 96, 96, known=known, repeats=3)
    turn = np.arange(96) // 3 % 2
    expected, held = known.data[turn], mask[turn]
    for found in (fixed.images, fixed.states[0]):
        np.testing.assert_allclose(found[held], expected[held], atol=1e-6)
    # Beside it the same noise is led elsewhere.
    assert np.any(fixed.images[~held] != free.images[~held])
    alone = made(kind, 4, 5, 1, known=known, repeats=3)
    np.testing.assert_allclose(alone.images[0], fixed.images[4], atol=TOLERANCE)


def test_known_values_that_are_no_numbers_are_refused():
    data = tiny.data_of("gaussian", 2)
    data[1, 0, 0] = np.nan
    mask = np.ones(data.shape, bool)
    with pytest.raises(errors.Refusal, match="1 of 12 numbers of the known values"):
        maker("gaussian", known=chain_sampler.Known(data, mask))
    with pytest.raises(errors.Refusal, match="one boolean for each value"):
        maker("gaussian", known=chain_sampler.Known(data, mask[..., :1]))
