"""The step of the 2015 chains on one and on eight devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small_training as small
import tiny_chains as tiny

from ddpm_jax.diffusion import timesteps
from ddpm_jax.runtime import sharding
from ddpm_jax.training import chain_step

STEPS, BATCH = 3, 16


@functools.cache
def trained(kind, mesh_shape):
    """What three steps saw, x_t and t, and left: parameters and metrics."""
    chain, tables_of, states = tiny.chain_of(kind)
    network = tiny.network_of(chain)
    mesh = small.make_mesh(mesh_shape)
    slots = {
        "x_t": jnp.zeros((BATCH, *tiny.SHAPE)),
        "t": jnp.zeros(BATCH),
    }
    params = {"network": tiny.params_of(network), "slots": slots}

    def apply(params, x, t, condition):
        output = network.apply(params["network"], x, t, condition)
        for name, value in (("x_t", x), ("t", t)):
            output += small.reveal(params["slots"][name], value.astype(jnp.float32))
        return output

    # The slots are set to what was seen, the weights move a little.
    rates = {"network": optax.adam(1e-2), "slots": optax.sgd(1.0)}
    optimizer = optax.multi_transform(rates, {"network": "network", "slots": "slots"})
    sampler = timesteps.uniform(tiny.NUM_STEPS - 1)
    state = small.make_state(params, optimizer=optimizer, sampler=sampler, mesh=mesh)
    step = functools.partial(
        chain_step.train_step,
        seed=0,
        apply=apply,
        chain=chain,
        tables_of=lambda params: tables_of(params["network"]),
        states=states,
        unit=np.log(2),
        optimizer=optimizer,
        learning_rate=lambda update: 1e-2,
    )
    step = small.on_mesh(step, state, mesh, donate=False)
    seen, losses = [], []
    for number in range(STEPS):
        data = {"image": tiny.data_of(kind, BATCH, seed=number)}
        before = small.to_numpy(state.params["slots"])
        state, metrics = step(state, sharding.put_batch(mesh, data))
        after = small.to_numpy(state.params["slots"])
        if number == 0:  # from 0, so that nothing is rounded
            assert not any(np.any(leaf) for leaf in before.values())
            seen.append(after)
        losses.append((float(metrics["loss"]), float(metrics["bound"])))
    return seen, losses, small.to_numpy(state.params["network"])


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_eight_devices_train_as_one_does(kind):
    (one,), losses, params = trained(kind, (1, 1))
    assert set(one["t"]) <= set(range(1, tiny.NUM_STEPS))
    assert len(np.unique(one["x_t"])) == (2 if kind == "binomial" else one["x_t"].size)
    for mesh_shape in ((8, 1), (2, 4)):
        (other,), others, moved = trained(kind, mesh_shape)
        small.assert_same_bits(one, other)  # t and x_t, and so the noise
        np.testing.assert_allclose(others, losses, rtol=1e-5)
        assert small.largest_difference(params, moved) < 1e-5


def test_the_rates_are_trained_with_the_network():
    chain, _, _ = tiny.chain_of("gaussian")
    start = tiny.params_of(tiny.network_of(chain))["rates"]["offset"]
    _, _, params = trained("gaussian", (1, 1))
    moved = np.abs(params["rates"]["offset"] - start)
    assert moved[0] == 0  # β_1 is not learned
    assert np.all(moved[1:] > 1e-3)
    beta = np.asarray(chain.tables(jnp.asarray(params["rates"]["offset"])).beta)
    assert np.all((beta > 0) & (beta < 1))
    assert beta[0] == pytest.approx(1e-3)
    assert jax.tree.all(jax.tree.map(lambda x: np.all(np.isfinite(x)), params))
