import itertools

import grain
import numpy as np
import pytest

from ddpm_jax.core import errors
from ddpm_jax.data.order import Order


def epoch(order, number):
    """All indices of one epoch, whatever the batch size: [N]."""
    count, size = order.num_examples, order.batch_size
    first, last = number * count, (number + 1) * count
    steps = range(first // size, -(-last // size))
    flat = np.concatenate([order.indices(step) for step in steps])
    return flat[first - steps[0] * size :][:count]


def test_the_order_is_grains_shuffle_read_from_front_to_back():
    source = grain.MapDataset.source(list(range(41))).seed(7).shuffle().repeat(5)
    expected = list(source.to_iter_dataset())
    order = Order(num_examples=41, batch_size=16, seed=7)
    steps = [order.indices(step).tolist() for step in range(5 * 41 // 16)]
    flat = list(itertools.chain.from_iterable(steps))
    assert flat == expected[: len(flat)]


def test_any_step_is_reached_directly():
    order = Order(num_examples=41, batch_size=16, seed=3)
    sequential = [order.indices(step) for step in range(50)]
    for step in (49, 0, 17):
        fresh = Order(num_examples=41, batch_size=16, seed=3)
        np.testing.assert_array_equal(fresh.indices(step), sequential[step])
    assert order.indices(10**9).shape == (16,)


@pytest.mark.parametrize(("count", "size"), [(41, 16), (41, 41), (64, 16), (5, 1)])
def test_every_epoch_holds_every_image_once(count, size):
    order = Order(num_examples=count, batch_size=size, seed=0)
    for number in range(4):
        np.testing.assert_array_equal(np.sort(epoch(order, number)), np.arange(count))


def test_epochs_and_seeds_differ():
    # Neighbouring seeds as well: seed + 1 must not be the same order one epoch on.
    orders = [Order(num_examples=41, batch_size=16, seed=seed) for seed in (0, 1, 2)]
    epochs = [tuple(epoch(order, n)) for order in orders for n in range(4)]
    assert len(set(epochs)) == len(epochs)


def test_an_epoch_is_well_mixed():
    # Spearman's footrule: for a uniform permutation Σ|i - π(i)| has the mean
    # (N² - 1)/3 and the variance (N + 1)(2N² + 7)/45.
    count = 400
    order = Order(num_examples=count, batch_size=100, seed=0)
    for number in range(3):
        footrule = np.abs(epoch(order, number) - np.arange(count)).sum()
        spread = np.sqrt((count + 1) * (2 * count**2 + 7) / 45)
        assert abs(footrule - (count**2 - 1) / 3) < 5 * spread


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_the_parts_of_all_processes_make_the_global_batch(processes):
    order = Order(num_examples=41, batch_size=16, seed=5)
    part = 16 // processes
    for step in (0, 2, 33):
        parts = [
            order.indices(step, start, start + part) for start in range(0, 16, part)
        ]
        np.testing.assert_array_equal(np.concatenate(parts), order.indices(step))


@pytest.mark.parametrize(
    ("count", "size", "seed", "message"),
    [
        (
            41,
            64,
            0,
            r"batch size 64 is larger than the data set \(41 images\): "
            "lower train.batch_size to at most 41",
        ),
        (41, 0, 0, "batch size 0 is not positive"),
        (41, -3, 0, "batch size -3 is not positive"),
        (41, 4, -1, "seed -1 is not in"),
        (41, 4, 2**32, "seed 4294967296 is not in"),
    ],
)
def test_refusals(count, size, seed, message):
    with pytest.raises(errors.Refusal, match=message):
        Order(num_examples=count, batch_size=size, seed=seed)


@pytest.mark.parametrize("rows", [(-1, 0, 4), (0, -1, 4), (0, 3, 2), (0, 0, 17)])
def test_rows_outside_the_batch_are_an_error(rows):
    with pytest.raises(ValueError, match="no rows"):
        Order(num_examples=41, batch_size=16, seed=0).indices(*rows)
