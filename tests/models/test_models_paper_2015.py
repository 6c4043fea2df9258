"""The networks of the 2015 paper against plain NumPy."""

import jax
import numpy as np
import pytest

from ddpm_jax.core import errors, keys
from ddpm_jax.models import multiscale, stepwise


def drawn(network, seed=0):
    """Parameters of which none is 0."""
    generator = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: generator.normal(size=leaf.shape).astype(np.float32),
        network.shapes,
    )


def test_the_rbf_network_is_the_formula():
    network = stepwise.rbf(size=2, width=3, outputs=4, num_steps=5)
    params = drawn(network)
    x, t = np.random.default_rng(1).normal(size=(6, 2)), np.array([0, 1, 2, 3, 4, 4])
    found = network.apply(params, x, t)
    for b in range(6):
        square = np.sum((x[b] - params["rbf"]["centre"]) ** 2, axis=1)
        s = 3 / np.sqrt(3) * np.exp(params["rbf"]["log_width"])
        h = np.exp(-square / (2 * s**2))
        h /= h.sum()
        readout = {name: leaf[t[b]] for name, leaf in params["readout"].items()}
        expected = h @ readout["kernel"] + readout["bias"]
        np.testing.assert_allclose(found[b], expected, rtol=2e-4, atol=1e-5)


def test_the_mlp_is_the_formula_with_shared_readouts_too():
    network = stepwise.mlp(
        size=3, width=4, layers=2, outputs=2, num_steps=9, readouts=3
    )
    params = drawn(network)
    x = np.random.default_rng(1).normal(size=(4, 3, 1)).astype(np.float32)
    t = np.array([0, 3, 4, 8])
    found = network.apply(params, x, t)
    h = x.reshape(4, 3)
    for k in range(2):
        layer = params[f"layer_{k}"]
        h = 1 / (1 + np.exp(-(h @ layer["kernel"] + layer["bias"])))
    bumps = np.exp(-0.5 * ((t[:, None] - np.array([0, 4, 8])) / 4) ** 2)
    bumps /= bumps.sum(axis=1, keepdims=True)
    expected = 0
    for j in range(3):
        z = h @ params["readout"]["kernel"][j] + params["readout"]["bias"][j]
        expected = expected + bumps[:, j, None] * z
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-5)


def test_a_multiscale_layer_is_the_formula():
    network = multiscale.multiscale(
        shape=(4, 4, 1), width=2, layers=1, scales=2, dense=0, outputs=2, num_steps=9,
        readouts=3,
    )  # fmt: skip
    params = drawn(network)["conv_0"]
    x = np.random.default_rng(1).normal(size=(1, 4, 4, 1)).astype(np.float32)
    total = np.zeros((4, 4, 2)) + params["bias"]
    for s in range(2):
        side, kernel = 4 >> s, params[f"scale_{s}"]["kernel"]
        small = x[0].reshape(side, 2**s, side, 2**s, 1).mean(axis=(1, 3))
        padded = np.pad(small, ((1, 1), (1, 1), (0, 0)))
        for i in range(4):
            for j in range(4):
                a, b = i >> s, j >> s
                patch = padded[a : a + 3, b : b + 3]
                total[i, j] += np.einsum("ijc,ijco->o", patch, kernel)
    found = multiscale._multiscale_layer(params, x, 2)
    np.testing.assert_allclose(found[0], np.log1p(np.exp(total)), rtol=1e-4, atol=1e-5)


def test_an_image_alone_is_as_in_a_batch_and_starts_at_0():
    network = multiscale.multiscale(
        shape=(8, 8, 1), width=4, layers=2, scales=2, dense=2, outputs=2, num_steps=9,
        readouts=3,
    )  # fmt: skip
    params = drawn(network)
    x = np.random.default_rng(1).normal(size=(7, 8, 8, 1)).astype(np.float32)
    t = np.arange(7)
    found = network.apply(params, x, t)
    assert found.shape == (7, 8, 8, 2)
    alone = network.apply(params, x[3:4], t[3:4])
    np.testing.assert_allclose(found[3:4], alone, rtol=1e-4, atol=1e-4)
    assert (np.asarray(network.apply(network.init(keys.key(0)), x, t)) == 0).all()


def test_rates_lie_beside_the_weights_and_are_not_read():
    network = stepwise.rbf(size=2, width=3, outputs=4, num_steps=5)
    with_rates = stepwise.with_rates(network, 5)
    params = drawn(with_rates)
    own = {name: tree for name, tree in params.items() if name != stepwise.RATES}
    x, t = np.ones((2, 2), np.float32), np.array([1, 2])
    np.testing.assert_array_equal(
        with_rates.apply(params, x, t), network.apply(own, x, t)
    )
    start = with_rates.init(keys.key(0))[stepwise.RATES]["offset"]
    np.testing.assert_array_equal(start, np.zeros(5))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"shape": (20, 1)}, "takes images .* one example is"),
        ({"scales": 4}, "scales=4 halves 4x4 images 3 times"),
        ({"readouts": 0}, "readouts=0 of network='multiscale': choose 2 … 9"),
        ({"readouts": 10}, "readouts=10 of network='multiscale': choose 2 … 9"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, match):
    sizes = {"shape": (4, 4, 1), "width": 2, "layers": 1, "scales": 2, "dense": 0}
    sizes |= {"outputs": 2, "num_steps": 9, "readouts": 3}
    with pytest.raises(errors.Refusal, match=match):
        multiscale.multiscale(**(sizes | changes))


def test_a_readout_of_one_step_more_than_there_are_is_refused():
    with pytest.raises(errors.Refusal, match="readouts=6: choose 2 … 5, or 0"):
        stepwise.rbf(size=2, width=3, outputs=4, num_steps=5, readouts=6)
