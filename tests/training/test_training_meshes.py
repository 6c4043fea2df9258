"""The train step on one device and several: gradients, twenty steps, and traffic."""

import dataclasses
import functools

import jax
import numpy as np
import optax
import pytest
import small_training as small

from ddpm_jax import config as schema
from ddpm_jax.builders import data as build_data
from ddpm_jax.builders import network as build_network
from ddpm_jax.diffusion import timesteps
from ddpm_jax.runtime import cost
from ddpm_jax.runtime.sharding import MIN_SHARDED_ELEMENTS

NUM_STEPS = 20
RATE, BETA_1, BETA_2, EPSILON = 1e-3, 0.9, 0.999, 1e-8
NOISE = 1e-5
"""Largest difference between gradients, in units of the largest entry.

An entry is a sum of float32 products whose order depends on the mesh: n summands of
alternating sign differ by about √n·2⁻²⁴ of their size, 4e-6 at n = 16 images × 64
pixels × 4. Backpropagation multiplies this by little in a network this shallow.
"""


@dataclasses.dataclass
class Trajectory:
    """Host copies of what each step saw and left, and the program that did it."""

    first_params: object
    params: object
    gradients: list
    second_moments: list
    t: list
    losses: list
    program: str


def unet_parts(levels):
    """The real U-Net of one or two levels with random weights in every layer.

    Its own initial output is zero, and with it most gradients.
    """
    config = schema.base()
    config.model.update(
        channels=16,
        channel_mult=(1, 2)[:levels],
        num_res_blocks=1,
        attention_resolutions=(8 // levels,),
        num_heads=2,
        norm_groups=4,
        class_conditional=True,
        dropout=0.1,
    )
    config.diffusion.variance = "learned_range"
    config.train.label_dropout = 0.1
    names = tuple(str(label) for label in range(small.NUM_CLASSES))
    facts = build_data.DataInfo(
        shape=small.IMAGE_SHAPE,
        levels=small.LEVELS,
        num_examples=100,
        num_classes=small.NUM_CLASSES,
        class_names=names,
        fingerprint="",
    )
    network = build_network.network(config, facts)
    random = np.random.default_rng(0)

    def draw(shape):
        scale = 1 / np.sqrt(max(np.prod(shape.shape[:-1]), 4))
        return (scale * random.normal(size=shape.shape)).astype(np.float32)

    params = jax.tree.map(draw, network.shapes)
    return params, network.apply, network.condition_spec


def unet_of_one_level():
    return unet_parts(1)


def unet_of_two_levels():
    return unet_parts(2)


def perceptron_parts():
    return small.make_params(), small.apply, small.LABELLED


def prepared(parts, mesh_shape):
    """A mesh, a state on it, and the compiled step of Adam."""
    params, apply, specs = parts()
    assert specs == small.LABELLED
    mesh = small.make_mesh(mesh_shape)
    sampler = small.Recording(timesteps.uniform(20))
    optimizer = optax.chain(small.recorder(), optax.adam(RATE, BETA_1, BETA_2, EPSILON))
    state = small.make_state(params, optimizer=optimizer, sampler=sampler, mesh=mesh)
    step = small.make_step(
        optimizer=optimizer,
        sampler=sampler,
        network=apply,
        condition_spec=specs,
        label_dropout=0.1,
        dropout=True,
    )
    batch = small.sharding.put_batch(mesh, small.make_batch())
    compiled = small.on_mesh(step, state, mesh).lower(state, batch).compile()
    return mesh, state, compiled


@functools.cache
def run(parts, mesh_shape):
    """Twenty steps on a mesh, each on another batch."""
    mesh, state, step = prepared(parts, mesh_shape)
    kernels = [leaf for leaf in jax.tree.leaves(state.params) if leaf.size >= 1024]
    sharded = [not leaf.sharding.is_fully_replicated for leaf in kernels]
    assert sharded
    assert any(sharded) == (mesh_shape[1] > 1)

    first_params = small.to_numpy(state.params)
    gradients, second_moments, seen_t, losses = [], [], [], []
    for number in range(NUM_STEPS):
        batch = small.sharding.put_batch(mesh, small.make_batch(seed=number))
        state, metrics = step(state, batch)
        gradient, (adam, *_) = small.to_numpy(state.opt_state)
        gradients.append(gradient)
        second_moments.append(adam.nu)
        seen_t.append(np.array(state.timesteps.t))
        losses.append(float(metrics["loss"]))
    params = small.to_numpy(state.params)
    return Trajectory(
        first_params,
        params,
        gradients,
        second_moments,
        seen_t,
        losses,
        step.as_text(),
    )


def cases(parts, quick, other=()):
    name = parts.__name__
    return [
        pytest.param(parts, *case.values, id=f"{name}-{case.id}", marks=case.marks)
        for case in small.meshes(quick, other)
    ]


CASES = [
    *cases(
        perceptron_parts,
        [(1, 2), (8, 1), (2, 4)],
        [(2, 1), (4, 1), (2, 2), (1, 4), (4, 2), (1, 8)],
    ),
    *cases(unet_of_one_level, [(2, 4)]),
    *cases(unet_of_two_levels, [], [(2, 4), (8, 1)]),
]


@pytest.mark.parametrize(("parts", "mesh_shape"), CASES)
def test_gradient_from_one_state(parts, mesh_shape):
    one, many = run(parts, (1, 1)), run(parts, mesh_shape)
    small.assert_same_bits(many.first_params, one.first_params)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(one.gradients[0]))
    bound = NOISE * small.largest(one.gradients[0])
    assert small.largest_difference(many.gradients[0], one.gradients[0]) <= bound


@pytest.mark.parametrize(("parts", "mesh_shape"), CASES)
def test_twenty_steps(parts, mesh_shape):
    """Each entry stays within what Adam can make of the gradients' rounding.

    At step n Adam moves an entry by u = η m̂/(s + ε), s = √v̂. Let its gradients in two
    runs differ by at most D so far. Both m̂ and s are means (s a root mean square) of
    past gradients with weights that sum to 1, so they too differ by at most D, and

        |u − u'| ≤ η [ |m̂−m̂'|/(s+ε) + |m̂'|·|s−s'| / ((s+ε)(s'+ε)) ]
                 ≤ η (1 + r_n) D/(s+ε)

    since |m̂'| ≤ r_n s' by Cauchy and Schwarz, r_n² = Σ_k a_k²/b_k with the weights a of
    m̂ and b of v̂; r_1 = 1 and r_20 = 1.16. For the same reason |u − u'| ≤ 2 η r_n, which
    is all there is to say where gradients vanish: there Adam makes whole steps of
    rounding. The bound is the sum over n of the smaller one, D being measured, and it
    is worth something if it is far below the length of the path nearly everywhere.
    """
    one, many = run(parts, (1, 1)), run(parts, mesh_shape)
    bound = difference = jax.tree.map(lambda p: np.zeros(p.shape), one.params)
    for n in range(NUM_STEPS):
        np.testing.assert_array_equal(many.t[n], one.t[n])
        np.testing.assert_allclose(many.losses[n], one.losses[n], rtol=1e-5)
        apart = jax.tree.map(absolute_difference, many.gradients[n], one.gradients[n])
        assert small.largest(apart) <= NOISE * small.largest(one.gradients[n])
        difference = jax.tree.map(np.maximum, difference, apart)
        moves = functools.partial(largest_difference_of_moves, n)
        added = jax.tree.map(moves, difference, one.second_moments[n], one.params)
        bound = jax.tree.map(np.add, bound, added)

    apart = jax.tree.map(absolute_difference, many.params, one.params)
    assert all(jax.tree.leaves(jax.tree.map(lambda d, b: np.all(d <= b), apart, bound)))
    path = NUM_STEPS * RATE
    assert small.largest_difference(one.params, one.first_params) > 0.5 * path
    entries = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(bound)])
    assert np.mean(entries < 1e-3 * path) > 0.99


def absolute_difference(a, b):
    return np.abs(np.float64(a) - np.float64(b))


def largest_difference_of_moves(n, difference, second_moment, params):
    """The bound on |u − u'| at step n, and what float32 adds to it."""
    age = np.arange(n, -1, -1.0)
    a = (1 - BETA_1) * BETA_1**age / (1 - BETA_1 ** (n + 1))
    b = (1 - BETA_2) * BETA_2**age / (1 - BETA_2 ** (n + 1))
    r = np.sqrt(np.sum(a**2 / b))
    s = np.sqrt(np.float64(second_moment) / (1 - BETA_2 ** (n + 1)))
    derived = np.minimum((1 + r) * difference / (s + EPSILON), 2 * r)
    # The moments are sums of up to 20 terms, each at most √20 s: 20·√20·2⁻²⁴ < 2⁻¹⁷ of
    # a move. Adding a move to a parameter rounds by 2⁻²⁴ of it. Twice, for two runs.
    return RATE * (derived + 2.0**-16) + 2.0**-23 * np.abs(params)


# ---- traffic -------------------------------------------------------------------------


def traffic(text):
    """Bytes that one device receives in a step, by kind and in all."""
    kinds = cost.collective_bytes(text)
    return kinds, sum(kinds.values())


def bytes_of(leaves):
    return sum(leaf.nbytes for leaf in leaves)


def test_data_parallelism_exchanges_the_gradients_once():
    """Besides them only metrics: sums of a few numbers, and t and loss of each image.

    The sums: loss, mse, vb, and sum and count of four quarters.
    """
    for parts, text in (
        (perceptron_parts, run(perceptron_parts, (8, 1)).program),
        (unet_of_one_level, prepared(unet_of_one_level, (8, 1))[2].as_text()),
    ):
        params, *_ = parts()
        gradients = bytes_of(jax.tree.leaves(params))
        kinds, total = traffic(text)
        assert kinds.keys() <= {"all-reduce", "all-gather"}
        assert gradients <= kinds["all-reduce"] <= gradients + 4 * (3 + 2 * 4)
        # Twice, for `Recording` keeps them too.
        assert kinds.get("all-gather", 0) <= 2 * (4 + 4) * small.BATCH
        assert total <= 1.05 * gradients


@pytest.mark.parametrize("parts", [perceptron_parts, unet_of_one_level])
def test_sharded_parameters_are_gathered_twice(parts):
    """Once for each pass; the gradients are summed once: three times the parameters.

    It is known to be worth counting, for each is gathered once at least.
    """
    leaves = jax.tree.leaves(parts()[0])
    sharded = [leaf for leaf in leaves if leaf.size >= MIN_SHARDED_ELEMENTS]
    kinds, total = traffic(run(parts, (2, 4)).program)
    # Of a reduce-scatter the result is counted, a quarter of what is summed.
    total += 3 * kinds.get("reduce-scatter", 0)
    assert bytes_of(sharded) <= kinds["all-gather"] <= 2 * bytes_of(sharded)
    assert total <= 3 * bytes_of(leaves)
