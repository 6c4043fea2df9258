"""Muon against the singular value decomposition, and its state on disk."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ddpm_jax.core import errors
from ddpm_jax.runs import checkpoints
from ddpm_jax.training import optim

RATE = 0.01
SHAPES = {
    "conv_in": {"kernel": (3, 3, 2, 8), "bias": (8,)},
    "block": {"kernel": (3, 3, 4, 6), "bias": (6,)},
    "dense": {"kernel": (5, 9)},
    "label": {"embedding": (7, 8)},
    "conv_out": {"kernel": (3, 3, 8, 2)},
}
MATRICES = ("block", "dense")


def arrays(seed):
    random = np.random.default_rng(seed)
    return {
        module: {
            name: random.normal(size=shape).astype(np.float32)
            for name, shape in leaves.items()
        }
        for module, leaves in SHAPES.items()
    }


def made(**options):
    return optim.make_optimizer(schedule=lambda step: RATE, optimizer="muon", **options)


@pytest.fixture(scope="module")
def first():
    """Parameters, a gradient, and the first update."""
    params, gradient = arrays(0), arrays(1)
    optimizer = made()
    updates, _ = jax.jit(optimizer.update)(gradient, optimizer.init(params), params)
    return params, gradient, jax.tree.map(np.float64, updates)


@pytest.mark.parametrize("module", MATRICES)
def test_the_first_update_has_the_gradients_directions_and_one_size_for_all(
    first, module
):
    _, gradient, updates = first
    matrix = np.float64(gradient[module]["kernel"]).reshape(-1, updates_width(module))
    left, sizes, right = np.linalg.svd(matrix, full_matrices=False)
    update = updates[module]["kernel"].reshape(matrix.shape)
    turned = left.T @ update @ right.T
    got = -np.diag(turned)
    np.testing.assert_allclose(turned, np.diag(-got), atol=1e-3 * got.max())
    # Nothing is left outside of these directions.
    np.testing.assert_allclose(left @ turned @ right, update, atol=1e-3 * got.max())
    # Five iterations bring singular values to between 0.68 and 1.13 (Jordan et al.).
    target = RATE * 0.2 * np.sqrt(max(matrix.shape))
    assert np.all(got > 0.65 * target)
    assert np.all(got < 1.2 * target)
    assert sizes.max() / sizes.min() > 1.8  # which was not so before


def updates_width(module):
    return SHAPES[module]["kernel"][-1]


def test_the_rest_takes_adams_first_step(first):
    _, gradient, updates = first
    for module, leaves in SHAPES.items():
        for name in leaves:
            if (module in MATRICES) and name == "kernel":
                continue
            # The mean with Nesterov's step ahead (Dozat 2016) is 0.9·0.1/(1 − 0.9²) + 1
            # times the gradient, and the root of the second moment is its size.
            wanted = -RATE * (0.09 / 0.19 + 1) * np.sign(gradient[module][name])
            np.testing.assert_allclose(updates[module][name], wanted, rtol=1e-4)


def test_weight_decay_is_decoupled_and_for_all():
    params, gradient = arrays(0), arrays(1)
    moved = []
    for decay in (0.0, 0.5):
        optimizer = made(weight_decay=decay)
        update, _ = optimizer.update(gradient, optimizer.init(params), params)
        moved.append(update)
    for plain, decayed, value in zip(
        *map(jax.tree.leaves, (*moved, params)), strict=True
    ):
        np.testing.assert_allclose(decayed - plain, -RATE * 0.5 * value, atol=1e-6)


def test_saved_and_resumed_is_the_same_to_the_bit(tmp_path):
    optimizer = made(clip_norm=1.0)
    step = jax.jit(optimizer.update)

    def advance(params, state, seeds):
        for seed in seeds:
            updates, state = step(arrays(seed), state, params)
            params = optax.apply_updates(params, updates)
        return params, state

    params = jax.tree.map(jnp.asarray, arrays(0))
    half = advance(params, optimizer.init(params), (1, 2))
    with checkpoints.Checkpoints(tmp_path) as saved:
        saved.save(2, half)
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=leaf.sharding
        ),
        half,
    )
    with checkpoints.Checkpoints(tmp_path) as saved:
        restored = saved.restore(abstract).state
    whole, resumed = advance(*half, (3, 4)), advance(*restored, (3, 4))
    for one, other in zip(*map(jax.tree.leaves, (whole, resumed)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(whole[0]["block"]["kernel"], half[0]["block"]["kernel"])


def test_what_only_adam_has_is_refused():
    with pytest.raises(errors.Refusal, match="'bfloat16' with optimizer 'muon'"):
        made(mu_dtype="bfloat16")
    with pytest.raises(errors.Refusal, match="choose one of adam, muon"):
        optim.make_optimizer(schedule=lambda step: RATE, optimizer="lion")
    with pytest.raises(errors.Refusal, match="float32"):
        made().init({"dense": {"kernel": jnp.zeros((2, 2), jnp.bfloat16)}})
