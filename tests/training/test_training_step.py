"""One train step: draws, microbatches, history, bad numbers, metrics."""

import dataclasses
import functools
import warnings
import zlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small_training as small
from reference import timesteps as ref_timesteps

from ddpm_jax.core import conditions
from ddpm_jax.diffusion import process, timesteps
from ddpm_jax.training import state as state_lib

# ---- draws ---------------------------------------------------------------------------


@functools.cache
def revealing_step(mesh_shape, seed, bare):
    """A mesh, an initial state on it, and a compiled step that shows its draws."""
    tables = small.make_tables()
    if bare:
        ones = jnp.ones_like(tables.sqrt_one_minus_alpha_bar)
        tables = dataclasses.replace(tables, sqrt_one_minus_alpha_bar=ones)
    mesh = small.make_mesh(mesh_shape)
    state = small.make_state(
        small.revealing_params(), optimizer=optax.sgd(1.0), mesh=mesh
    )
    step = small.make_step(
        optimizer=optax.sgd(1.0),
        tables=tables,
        network=small.revealing_apply,
        seed=seed,
        label_dropout=0.5,
        dropout=True,
    )
    return mesh, state, small.on_mesh(step, state, mesh, donate=False)


def shown_inputs(mesh_shape=(1, 1), seed=0, bare=False, **changes):
    """What the network was given in one step, by name; if `bare`, x_t is the noise."""
    mesh, state, step = revealing_step(mesh_shape, seed, bare)
    for name, value in changes.items():
        placed = jax.device_put(jnp.int32(value), state.step.sharding)
        state = state.replace(**{name: placed})
    batch = small.make_batch()
    batch["image"][:] = 0  # x_t is then one product: its bits are those of the noise
    after, _ = step(state, small.sharding.put_batch(mesh, batch))
    return small.to_numpy(after.params["slots"])


@pytest.fixture(scope="module")
def shown():
    return shown_inputs()


def test_draws_are_what_they_should_be(shown):
    tables = small.make_tables()
    t = shown["t"].astype(int)
    assert set(t) <= set(range(20))
    assert len(set(t)) > 4
    noise = shown["x_t"] / np.asarray(tables.sqrt_one_minus_alpha_bar)[t].reshape(
        -1, 1, 1, 1
    )
    assert abs(noise.mean()) < 5 / np.sqrt(noise.size)
    assert abs(noise.var() - 1) < 5 * np.sqrt(2 / noise.size)
    given = small.make_batch()["label"]
    dropped = shown["label"] != given
    np.testing.assert_array_equal(shown["label"][dropped], small.NULL)
    assert 0 < dropped.sum() < len(given)
    assert len(np.unique(shown["dropout_keys"], axis=0)) == small.BATCH


def documented_key(purpose, seed, step, draw_epoch):
    """The key of `core.keys`, by its documentation alone."""
    key = jax.random.key(seed)
    for word in (zlib.crc32(f"train/{purpose}".encode()), draw_epoch, step):
        key = jax.random.fold_in(key, word)
    return key


@pytest.mark.parametrize(
    "place",
    [
        {"seed": 5, "step": 0, "draw_epoch": 0},
        {"seed": 5, "step": 7, "draw_epoch": 2},
    ],
)
def test_draws_are_those_of_the_documented_keys(place):
    """To the bit, so that a run of an earlier version goes on with its draws."""
    found = shown_inputs(**place, bare=True)
    keys = {
        purpose: documented_key(purpose, **place)
        for purpose in ("t", "noise", "label", "dropout")
    }
    t = np.array(jax.random.randint(keys["t"], (small.BATCH,), 0, 20))
    np.testing.assert_array_equal(found["t"], t)
    # Compiled as the step is, for optimisations change the last bit of a normal.
    shape = (small.BATCH, *small.IMAGE_SHAPE)
    normal = small.compiled(functools.partial(jax.random.normal, shape=shape))
    noise = normal(keys["noise"])
    assert found["x_t"].tobytes() == np.array(noise).tobytes()
    drop = np.array(jax.random.bernoulli(keys["label"], 0.5, (small.BATCH,)))
    assert 0 < drop.sum() < small.BATCH
    label = np.where(drop, small.NULL, small.make_batch()["label"])
    np.testing.assert_array_equal(found["label"], label)
    for row, shown_words in enumerate(found["dropout_keys"]):
        words = jax.random.key_data(jax.random.fold_in(keys["dropout"], row))
        np.testing.assert_array_equal(shown_words, [*(words >> 16), *(words & 0xFFFF)])


@pytest.mark.parametrize(
    "mesh_shape",
    small.meshes(
        [(8, 1), (2, 4)], [(2, 1), (1, 2), (4, 1), (2, 2), (1, 4), (4, 2), (1, 8)]
    ),
)
def test_draws_do_not_depend_on_the_mesh(shown, mesh_shape):
    small.assert_same_bits(shown_inputs(mesh_shape=mesh_shape), shown)


@pytest.mark.parametrize("change", [{"seed": 1}, {"step": 1}, {"draw_epoch": 1}])
def test_draws_are_new(shown, change):
    other = shown_inputs(**change)
    assert np.all(other["x_t"] != shown["x_t"])
    assert np.all(np.any(other["dropout_keys"] != shown["dropout_keys"], axis=1))
    assert np.any(other["t"] != shown["t"])
    assert np.any(other["label"] != shown["label"])


def test_a_roll_back_draws_anew_for_the_same_batch(shown):
    """With hardly any noise the images show, whatever is drawn."""
    betas = np.full(20, 1e-6)
    optimizer = optax.sgd(1.0)
    step = small.make_step(
        optimizer=optimizer,
        tables=process.tables(process.Schedule.from_betas(betas)),
        network=small.revealing_apply,
        label_dropout=0.5,
        dropout=True,
    )
    compiled = small.compiled(step)
    batch = small.make_batch()
    seen = []
    for epoch in (0, 1):
        state = small.make_state(small.revealing_params(), optimizer=optimizer)
        after, metrics = compiled(state.replace(draw_epoch=jnp.int32(epoch)), batch)
        assert int(after.draw_epoch) == epoch
        slots = small.to_numpy(after.params["slots"])
        np.testing.assert_array_equal(metrics["t"], slots["t"])
        kept = slots["label"] != small.NULL
        np.testing.assert_array_equal(slots["label"][kept], batch["label"][kept])
        # Grey values are 1/8 apart, the noise is below 5·√(20e-6).
        np.testing.assert_array_equal(np.round(8 * slots["x_t"]) / 8, batch["image"])
        seen.append(slots)
    for name in ("x_t", "t", "label", "dropout_keys"):
        assert np.any(seen[0][name] != seen[1][name])


def test_noise_is_drawn_by_what_is_given():
    """A process may have noise of its own: here signs, whose size shows in x_t."""
    keys_given = []

    def signs(key, shape, dtype):
        keys_given.append(key)
        return jax.random.rademacher(key, shape, dtype)

    optimizer = optax.sgd(1.0)
    step = small.make_step(
        optimizer=optimizer, network=small.revealing_apply, draw_noise=signs
    )
    state = small.make_state(small.revealing_params(dropout=False), optimizer=optimizer)
    batch = small.make_batch()
    batch["image"][:] = 0
    after, _ = small.compiled(step)(state, batch)
    slots = small.to_numpy(after.params["slots"])
    sigma = np.asarray(small.make_tables().sqrt_one_minus_alpha_bar)
    wanted = np.broadcast_to(
        sigma[slots["t"].astype(int)].reshape(-1, 1, 1, 1), slots["x_t"].shape
    )
    np.testing.assert_array_equal(np.abs(slots["x_t"]), wanted)
    assert 0.4 < np.mean(slots["x_t"] > 0) < 0.6
    assert len(keys_given) == 1


# ---- label drop-out ------------------------------------------------------------------

NEVER_DROPPED = {"label": conditions.Spec((), "int32")}


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_label_dropout(rate):
    size = 2048
    state = small.make_state(
        small.revealing_params(size, dropout=False), optimizer=optax.sgd(1.0)
    )
    step = small.make_step(
        optimizer=optax.sgd(1.0),
        network=small.revealing_apply,
        condition_spec=small.LABELLED if rate else NEVER_DROPPED,
        label_dropout=rate,
    )
    batch = small.make_batch(size)
    after, _ = small.compiled(step)(state, batch)
    labels = np.array(after.params["slots"]["label"])
    dropped = labels != batch["label"]
    np.testing.assert_array_equal(labels[dropped], small.NULL)
    # Five standard deviations of a binomial share; exactly none at rate 0.
    assert abs(dropped.mean() - rate) <= 5 * np.sqrt(rate * (1 - rate) / size)


# A key that is never dropped, and two that are: a label and a vector.
CROP = {"crop": conditions.Spec((2,), "float32")}
TEXT = {"text": conditions.Spec((3,), "float32", np.float32([-1, -2, -3]))}


@pytest.mark.parametrize(
    "specs",
    [{**small.LABELLED, **CROP}, {**small.LABELLED, **TEXT}, {**TEXT, **CROP}],
    ids=" ".join,
)
def test_keys_with_a_none_are_dropped_together_and_others_never(specs):
    size, rate = 4096, 0.3
    optimizer = optax.sgd(1.0)
    params = small.revealing_params(size, dropout=False, specs=specs)
    step = small.make_step(
        optimizer=optimizer,
        network=small.revealing_apply,
        condition_spec=specs,
        label_dropout=rate,
    )
    random = np.random.default_rng(5)
    given = {
        "image": small.make_batch(size)["image"],
        "label": random.integers(0, small.NUM_CLASSES, size).astype(np.int32),
        "crop": random.uniform(size=(size, 2)).astype(np.float32),
        "text": random.uniform(size=(size, 3)).astype(np.float32),
    }
    state = small.make_state(params, optimizer=optimizer)
    after, _ = small.compiled(step)(state, given)
    slots = small.to_numpy(after.params["slots"])
    assert slots.keys() == {"x_t", "t", *specs}

    dropped = None
    for key, spec in specs.items():
        rows = slots[key].reshape(size, -1)
        wanted = given[key].reshape(size, -1)
        if spec.none is not None:
            nothing = np.broadcast_to(spec.none, (size, *spec.shape)).reshape(size, -1)
            if dropped is None:
                dropped = np.any(rows != wanted, axis=1)
            wanted = np.where(dropped[:, None], nothing, wanted)
        np.testing.assert_array_equal(rows, wanted, err_msg=key)
    assert abs(dropped.mean() - rate) <= 4 * np.sqrt(rate * (1 - rate) / size)


@pytest.mark.parametrize("specs", [None, {}])
@pytest.mark.parametrize("names", [("image",), ("image", "label")])
def test_unconditional_network_gets_no_condition(specs, names):
    seen = []

    def network(params, x, t, condition, *, dropout_keys):
        seen.append((condition, dropout_keys))
        return small.apply(params, x, t, condition)

    optimizer = optax.sgd(1.0)
    state = small.make_state(small.make_params(), optimizer=optimizer)
    step = small.make_step(optimizer=optimizer, network=network, condition_spec=specs)
    batch = small.make_batch()
    jax.eval_shape(step, state, {name: batch[name] for name in names})
    assert seen == [({}, None)]


# ---- gradient ------------------------------------------------------------------------


def warm_history(num_steps):
    """A loss history that makes p far from uniform."""
    rows = np.linspace(0.1, 3, num_steps)[:, None]
    losses = rows * (1 + 0.1 * np.abs(small.normals(num_steps, timesteps.HISTORY)))
    return timesteps.LossHistory(
        jnp.asarray(losses, jnp.float32),
        jnp.full(num_steps, timesteps.HISTORY, jnp.int32),
    )


SIZE = 64  # eight devices take eight microbatches of eight


@functools.cache
def weighted_step(microbatches, loss, mesh_shape=(1, 1)):
    """A state and a compiled step with labels, dropout and weights 1/(T p)."""
    mesh = small.make_mesh(mesh_shape)
    sampler = small.Recording(timesteps.loss_second_moment(20), SIZE)
    optimizer = optax.chain(small.recorder(), optax.adam(1e-3))
    objective, outputs = {"simple": (small.SIMPLE, 1), "hybrid": (small.HYBRID, 2)}[
        loss
    ]
    state = small.make_state(
        small.make_params(outputs=outputs),
        optimizer=optimizer,
        sampler=sampler,
        mesh=mesh,
    )
    warm = state.timesteps._replace(inner=warm_history(20))
    warm = jax.device_put(warm, state.step.sharding)
    state = state.replace(timesteps=warm)
    step = small.make_step(
        optimizer=optimizer,
        sampler=sampler,
        objective=objective,
        label_dropout=0.2,
        dropout=True,
        microbatches=microbatches,
    )
    step = small.on_mesh(step, state, mesh, donate=False)
    return state, lambda s, b: step(s, small.sharding.put_batch(mesh, b))


def take(state, step):
    return small.to_numpy(step(state, small.make_batch(SIZE)))


@pytest.fixture(scope="module")
def whole_batch():
    return take(*weighted_step(1, "hybrid"))


SPLITS = [
    ((1, 1), 2),
    ((1, 1), 4),
    ((8, 1), 1),
    ((8, 1), 8),
    pytest.param((2, 4), 4, marks=pytest.mark.slow),
    pytest.param((1, 1), 8, marks=pytest.mark.slow),
    pytest.param((8, 1), 2, marks=pytest.mark.slow),
    pytest.param((8, 1), 4, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("mesh_shape", "microbatches"), SPLITS)
def test_gradient_does_not_depend_on_the_split(whole_batch, mesh_shape, microbatches):
    """Over devices, over time, or both: order of summation is all that changes."""
    state, metrics = whole_batch
    split = weighted_step(microbatches, "hybrid", mesh_shape)
    split_state, split_metrics = take(*split)
    expected, gradient = state.opt_state[0], split_state.opt_state[0]
    bound = 1e-6 * small.largest(expected)
    assert small.largest_difference(gradient, expected) <= bound
    # The terms come back in image order.
    np.testing.assert_array_equal(split_state.timesteps.t, state.timesteps.t)
    np.testing.assert_allclose(
        split_state.timesteps.loss, state.timesteps.loss, rtol=1e-5
    )
    chex.assert_trees_all_close(split_metrics, metrics, rtol=1e-5)


def test_metrics(whole_batch):
    state, metrics = whole_batch
    _, t, loss = state.timesteps
    np.testing.assert_array_equal(metrics["t"], t)
    np.testing.assert_array_equal(metrics["example_loss"], loss)
    reference = ref_timesteps.SecondMoment(20)
    reference.losses = [list(row) for row in np.float64(warm_history(20).losses)]
    p = np.array(reference.probabilities())
    weight = 1 / (20 * p[t])
    assert weight.max() / weight.min() > 2
    np.testing.assert_allclose(metrics["loss"], np.mean(weight * loss), rtol=1e-5)
    np.testing.assert_allclose(
        np.mean(loss), metrics["mse"] + 20 / 1000 * metrics["vb"], rtol=1e-5
    )  # Improved DDPM eq. 16 with λ = T/1000, before the weights
    squares = [np.sum(np.float64(g) ** 2) for g in jax.tree.leaves(state.opt_state[0])]
    np.testing.assert_allclose(metrics["grad_norm"], np.sqrt(sum(squares)), rtol=1e-5)
    # Every parameter of this network is a block.
    np.testing.assert_allclose(metrics["block_norms"], np.sqrt(squares), rtol=1e-5)
    assert metrics["finite"]
    for quarter in range(4):
        member = (t >= 5 * quarter) & (t < 5 * quarter + 5)
        assert metrics["quarter_count"][quarter] == member.sum()
        np.testing.assert_allclose(
            metrics["quarter_loss"][quarter], loss[member].sum(), rtol=1e-5
        )


@pytest.mark.parametrize("microbatches", [4])
def test_gradient_is_that_of_the_reported_loss(microbatches):
    """Central differences along a direction, with the same draws at both ends."""
    state, step = weighted_step(microbatches, "simple")
    direction = jax.tree.map(lambda p: small.normals(*p.shape, seed=9), state.params)

    def loss_at(distance):
        params = jax.tree.map(lambda p, d: p + distance * d, state.params, direction)
        return take(state.replace(params=params), step)[1]["loss"]

    # Errors: h² from the third derivative and 1e-7 · loss / h from rounding.
    h = 3e-3
    slope = (loss_at(h) - loss_at(-h)) / (2 * h)
    gradient = take(state, step)[0].opt_state[0]
    expected = sum(
        np.sum(np.float64(g) * d)
        for g, d in zip(
            jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True
        )
    )
    np.testing.assert_allclose(slope, expected, rtol=5e-3)


# ---- loss history --------------------------------------------------------------------


@pytest.mark.parametrize("microbatches", [1, 2, 4])
def test_history_equals_a_replay_in_image_order(microbatches):
    state, step = weighted_step(microbatches, "hybrid")
    reference = ref_timesteps.SecondMoment(20)
    reference.losses = [list(row) for row in np.asarray(state.timesteps.inner.losses)]
    repeats = []
    for number in range(3):
        state, _ = step(state, small.make_batch(SIZE, seed=number))
        history, t, loss = small.to_numpy(state.timesteps)
        reference.update(t, loss)
        np.testing.assert_array_equal(history.losses, np.float32(reference.losses))
        np.testing.assert_array_equal(history.counts, timesteps.HISTORY)
        repeats.append(len(t) - len(set(t)))
    assert min(repeats) > 0  # else any order would do


# ---- numbers that are not finite -----------------------------------------------------


def exploding_apply(params, x, t, condition, *, dropout_keys=None):
    """`apply` plus 0·√root: finite, with the gradient 0·∞ where root is 0."""
    output = small.apply(params["network"], x, t, condition, dropout_keys=dropout_keys)
    return output + 0 * jnp.sqrt(params["root"])


def nan_image(batch, state):
    batch["image"][5, 0, 0] = np.nan
    return batch, state


def infinite_gradient(batch, state):
    return batch, state.replace(params={**state.params, "root": jnp.zeros(())})


def infinite_update(batch, state):
    """Adam's moments are such that a gradient of any size moves infinitely far."""
    adam, *rest = state.opt_state
    adam = adam._replace(mu=jax.tree.map(lambda m: m + jnp.inf, adam.mu))
    return batch, state.replace(opt_state=(adam, *rest))


@pytest.fixture(scope="module")
def guarded_step():
    """A step of two microbatches; one bad image makes only one of them bad."""
    sampler = timesteps.loss_second_moment(20)
    optimizer = optax.adam(1e-2)
    params = {"network": small.make_params(), "root": np.float32(1)}
    step = small.make_step(
        optimizer=optimizer,
        sampler=sampler,
        network=exploding_apply,
        learning_rate=lambda update: 0.5 + update,
        microbatches=2,
    )

    def make():
        return small.make_state(params, optimizer=optimizer, sampler=sampler)

    return make, small.compiled(step)


@pytest.mark.parametrize(
    ("poison", "loss", "gradient"),
    [
        (nan_image, False, False),
        (infinite_gradient, True, False),
        (infinite_update, True, True),
    ],
)
def test_a_step_with_bad_numbers_changes_nothing(guarded_step, poison, loss, gradient):
    make, step = guarded_step
    state, metrics = step(make(), small.make_batch(seed=0))
    assert metrics["finite"]
    batch, state = poison(small.make_batch(seed=1), state)
    after, metrics = step(state, batch)
    assert not metrics["finite"]
    assert np.isfinite(metrics["loss"]) == loss
    assert np.isfinite(metrics["grad_norm"]) == gradient
    assert (int(after.step), int(after.skipped)) == (2, 1)
    small.assert_same_bits(after.replace(step=state.step, skipped=state.skipped), state)


def test_training_goes_on_after_a_bad_step(guarded_step):
    """The next step is that of a run in which the bad one never asked for an update."""
    make, step = guarded_step
    bad = small.make_batch(seed=1)
    bad["image"][:] = np.inf
    state, _ = step(make(), bad)
    after, metrics = step(state, small.make_batch(seed=2))
    assert metrics["finite"]
    expected, _ = step(
        make().replace(step=jnp.int32(1), skipped=jnp.int32(1)),
        small.make_batch(seed=2),
    )
    small.assert_same_bits(after, expected)
    assert int(after.opt_state[0].count) == 1  # Adam's bias correction counts updates
    assert float(metrics["learning_rate"]) == 0.5  # of the first update
    # One update was made: the ramped decay was (1+0)/(10+0), not (1+1)/(10+1).
    np.testing.assert_allclose(after.ema_initial_share["0.99"], 0.1, rtol=1e-6)


# ---- compilation and donation --------------------------------------------------------


def test_one_trace_and_a_donated_state():
    optimizer = optax.adamw(lambda step: 1e-3)
    mesh = small.make_mesh((2, 4))
    sampler = timesteps.loss_second_moment(20)
    state = small.make_state(
        small.make_params(), optimizer=optimizer, sampler=sampler, mesh=mesh
    )
    inner = small.make_step(optimizer=optimizer, sampler=sampler)

    @chex.assert_max_traces(n=1)
    def counted(state, batch):
        return inner(state, batch)

    step = small.on_mesh(counted, state, mesh)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # e.g. of donated buffers that are not usable
        for number in range(3):
            before = state
            batch = small.sharding.put_batch(mesh, small.make_batch(seed=number))
            state, _ = step(before, batch)
            assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before))
    assert int(state.step) == 3


@pytest.mark.parametrize("jit", [False, True])
def test_no_two_leaves_share_a_buffer(jit):
    """Donating one buffer twice is an error."""
    params = jax.tree.map(jnp.asarray, small.make_params())

    def create(params):
        return state_lib.create(
            params,
            optimizer=optax.adam(1e-3),
            ema_decays=(0.9, 0.99),
            timestep_sampler=timesteps.loss_second_moment(20),
        )

    state = (jax.jit(create) if jit else create)(params)
    leaves = jax.tree.leaves(state)
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)
    assert set(state.ema) == {"0.9", "0.99"}
    for average in state.ema.values():
        small.assert_same_bits(average, state.params)
    np.testing.assert_array_equal(list(state.ema_initial_share.values()), 1)
