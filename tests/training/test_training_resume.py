"""Stopping, saving, restoring and going on is the same as never having stopped."""

import dataclasses

import jax
import numpy as np
import pytest
import small_training as small

from ddpm_jax.data import order as order_lib
from ddpm_jax.data import pipeline, sources
from ddpm_jax.diffusion import timesteps
from ddpm_jax.runs import checkpoints
from ddpm_jax.training import optim

SEED, NUM_EXAMPLES = 7, 40  # a batch of 16 crosses the end of an epoch
HALF = 4


@dataclasses.dataclass
class Job:
    """Everything a process builds anew."""

    mesh: jax.sharding.Mesh
    state: object
    abstract: object
    step: object


def make_job(mesh_shape):
    """A job with everything that has a state: two averages, a history, warm-up."""
    mesh = small.make_mesh(mesh_shape)
    schedule = optim.learning_rate_schedule(
        learning_rate=1e-2, warmup_steps=3, decay="cosine", decay_steps=2 * HALF
    )
    optimizer = optim.make_optimizer(
        schedule=schedule, weight_decay=0.01, clip_norm=0.5
    )
    # Two timesteps: their histories are full, and the weights uneven, after two steps.
    sampler = timesteps.loss_second_moment(2)
    state = small.make_state(
        small.make_params(), optimizer=optimizer, sampler=sampler, mesh=mesh
    )
    step = small.make_step(
        optimizer=optimizer,
        tables=small.make_tables(2),
        sampler=sampler,
        seed=SEED,
        label_dropout=0.2,
        dropout=True,
        microbatches=2,
    )
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=leaf.sharding
        ),
        state,
    )
    return Job(mesh, state, abstract, small.on_mesh(step, state, mesh))


def dataset():
    everything = small.make_batch(NUM_EXAMPLES)
    return sources.Dataset(
        name="random",
        split="train",
        shape=small.IMAGE_SHAPE,
        levels=small.LEVELS,
        num_classes=small.NUM_CLASSES,
        class_names=tuple("0123456789"),
        num_examples=NUM_EXAMPLES,
        read=lambda i: (everything["image"][i], everything["label"][i]),
    )


def advance(job, state, steps, poisoned=()):
    """Take steps with the batches that belong to them."""
    order = order_lib.Order(NUM_EXAMPLES, small.BATCH, SEED)
    first = int(state.step)
    with pipeline.batches(
        dataset(), order, first_step=first, flip=True, seed=SEED
    ) as batches:
        for (number, rows), _ in zip(batches, range(steps), strict=False):
            assert number == int(state.step)
            if number in poisoned:
                rows["image"][0] = np.nan
            state, _ = job.step(state, small.sharding.put_batch(job.mesh, rows))
    return state


@pytest.fixture(scope="module", params=[(1, 1), (2, 4)], ids=["1x1", "2x4"])
def interrupted(request, tmp_path_factory):
    """A run saved half-way, and the run that was not."""
    directory = tmp_path_factory.mktemp("checkpoints")
    job = make_job(request.param)
    half = advance(job, job.state, HALF, poisoned=(1,))
    kept = small.to_numpy(half)
    with checkpoints.Checkpoints(directory) as saved:
        saved.save(HALF, half)
    whole = advance(job, half, HALF)
    return request.param, directory, kept, small.to_numpy(whole)


def restore(directory, job):
    with checkpoints.Checkpoints(directory) as saved:
        return saved.restore(job.abstract)


def test_the_run_is_one_that_a_resume_could_spoil(interrupted):
    """The other tests mean something only if every part of the state moves."""
    _, _, half, whole = interrupted
    assert (half.step, half.skipped, whole.step, whole.skipped) == (4, 1, 8, 1)
    assert np.all(half.timesteps.counts == timesteps.HISTORY)
    assert np.ptp(half.timesteps.losses) > 0.1
    for part in ("params", "ema", "opt_state", "timesteps"):
        before, after = getattr(half, part), getattr(whole, part)
        pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
        moved = [not np.array_equal(a, b) for a, b in pairs]
        # Only the counts of a full history stand still.
        assert moved.count(False) == (part == "timesteps"), part


def test_resumed_run_equals_the_uninterrupted_one(interrupted):
    mesh_shape, directory, half, whole = interrupted
    job = make_job(mesh_shape)
    restored = restore(directory, job)
    assert restored.step == HALF
    small.assert_same_bits(small.to_numpy(restored.state), half)
    resumed = advance(job, restored.state, HALF)
    small.assert_same_bits(small.to_numpy(resumed), whole)


def test_a_checkpoint_moves_to_another_mesh(interrupted):
    mesh_shape, directory, half, whole = interrupted
    sharded = [
        leaf.sharding.is_fully_replicated is False
        for leaf in jax.tree.leaves(make_job(mesh_shape).state)
    ]
    assert any(sharded) == (mesh_shape == (2, 4))

    other = make_job((1, 1) if mesh_shape == (2, 4) else (2, 4))
    restored = restore(directory, other)
    small.assert_same_bits(small.to_numpy(restored.state), half)
    for leaf, wanted in zip(
        jax.tree.leaves(restored.state), jax.tree.leaves(other.abstract), strict=True
    ):
        assert leaf.sharding.is_equivalent_to(wanted.sharding, leaf.ndim)
    resumed = small.to_numpy(advance(other, restored.state, HALF))
    assert resumed.step == whole.step
    # The draws are the same, sums over devices round differently.
    bound = 1e-4 * small.largest(whole.params)
    assert small.largest_difference(resumed.params, whole.params) < bound
