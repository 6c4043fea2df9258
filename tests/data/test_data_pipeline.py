import itertools
import threading
import time
import traceback

import numpy as np
import pytest

from ddpm_jax.core import errors
from ddpm_jax.data import pipeline, sources, transforms
from ddpm_jax.data.order import Order


@pytest.fixture(scope="module")
def dataset():
    return sources.load("digits", "train")


def take(dataset, order, count, **options):
    with pipeline.batches(dataset, order, **options) as batches:
        return list(itertools.islice(batches, count))


def threads():
    return [t for t in threading.enumerate() if t.name.startswith("ddpm-jax-batches")]


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_batches_follow_the_order(dataset):
    order = Order(len(dataset), 16, seed=1)
    for k, (step, batch) in enumerate(take(dataset, order, 4, first_step=88)):
        assert step == 88 + k
        expected = dataset.fetch(order.indices(step))
        np.testing.assert_array_equal(batch["image"], expected["image"])
        np.testing.assert_array_equal(batch["label"], expected["label"])


def test_starting_late_continues_the_same_run(dataset):
    order = Order(len(dataset), 16, seed=1)
    whole = take(dataset, order, 7, first_step=0, flip=True, seed=4)
    late = take(dataset, order, 3, first_step=4, flip=True, seed=4, prefetch=1)
    for (step, batch), (late_step, late_batch) in zip(whole[4:], late, strict=True):
        assert step == late_step
        np.testing.assert_array_equal(batch["image"], late_batch["image"])
        np.testing.assert_array_equal(batch["label"], late_batch["label"])


@pytest.mark.parametrize("processes", [2, 4, 8])
def test_flips_do_not_depend_on_the_number_of_processes(dataset, processes):
    order = Order(len(dataset), 24, seed=1)
    options = {"first_step": 3, "flip": True, "seed": 9}
    ((_, whole),) = take(dataset, order, 1, **options)
    part = 24 // processes
    slices = [
        take(dataset, order, 1, start=start, stop=start + part, **options)[0][1]
        for start in range(0, 24, part)
    ]
    for name in ("image", "label"):
        np.testing.assert_array_equal(
            np.concatenate([batch[name] for batch in slices]), whole[name]
        )


def test_each_image_is_itself_or_its_mirror_image(dataset):
    order = Order(len(dataset), 500, seed=1)
    flipped = 0
    for step, batch in take(dataset, order, 2, first_step=0, flip=True, seed=2):
        plain = dataset.fetch(order.indices(step))["image"]
        mirrored = plain[:, :, [7, 6, 5, 4, 3, 2, 1, 0]]
        is_plain = (batch["image"] == plain).all((1, 2, 3))
        is_mirrored = (batch["image"] == mirrored).all((1, 2, 3))
        assert (is_plain | is_mirrored).all()
        flipped += is_mirrored.sum()
    # Binomial(1000, ½) within five standard deviations (no digit is symmetric).
    assert abs(flipped - 500) < 5 * np.sqrt(250)


def test_flips_are_fair_independent_and_differ_by_seed():
    count = 40_000
    draws = np.array([transforms.flips(seed, 0, count) for seed in (0, 1)])
    signs = 2.0 * draws - 1.0
    bound = 5 / np.sqrt(count)
    assert (np.abs(signs.mean(1)) < bound).all()
    assert abs((signs[0] * signs[1]).mean()) < bound
    for lag in (1, 2, 3, 4, 128):
        assert abs((signs[0, lag:] * signs[0, :-lag]).mean()) < bound


@pytest.mark.parametrize("first", [0, 1, 6, 2**40 + 3])
def test_a_flip_depends_on_its_own_position_alone(first):
    whole = transforms.flips(5, first, 11)
    single = [transforms.flips(5, first + i, 1)[0] for i in range(11)]
    np.testing.assert_array_equal(whole, single)
    assert 0 < whole.sum() < 11


def test_buffers_are_never_used_twice(dataset):
    order = Order(len(dataset), 8, seed=1)
    for flip in (False, True):
        handed_out = take(dataset, order, 6, first_step=0, flip=flip)
        images = [batch["image"] for _, batch in handed_out]
        for one, other in itertools.combinations(images, 2):
            assert not np.shares_memory(one, other)


def test_an_error_in_the_thread_reaches_the_consumer_with_its_traceback():
    def make_or_break(step):
        if step == 2:
            raise OSError("disk gone")
        return step

    batches = pipeline.Prefetcher(make_or_break, first_step=0, prefetch=3)
    assert [next(batches), next(batches)] == [(0, 0), (1, 1)]
    with pytest.raises(OSError, match="disk gone") as raised:
        next(batches)
    assert "make_or_break" in "".join(traceback.format_tb(raised.value.__traceback__))
    # It is over: no later batch is handed out as if step 2 had been seen.
    assert list(itertools.islice(batches, 5)) == []
    assert threads() == []


def test_closing_ends_the_thread_and_the_iterator(dataset):
    with pipeline.batches(dataset, Order(len(dataset), 8, 0), first_step=0) as batches:
        next(batches)
        assert len(threads()) == 1
    assert threads() == []
    assert list(itertools.islice(batches, 5)) == []
    batches.close()


def test_it_works_ahead_by_prefetch_batches_and_no_more():
    made = []
    with pipeline.Prefetcher(made.append, first_step=5, prefetch=3) as batches:
        wait_until(lambda: len(made) == 3)
        time.sleep(0.05)
        assert made == [5, 6, 7]
        next(batches)
        wait_until(lambda: len(made) == 4)
        time.sleep(0.05)
        assert made == [5, 6, 7, 8]


def test_wait_seconds_counts_the_consumers_waiting_only():
    gate = threading.Event()
    with pipeline.Prefetcher(lambda _: gate.wait(20), first_step=0) as batches:
        time.sleep(0.2)  # not waiting for a batch
        assert batches.wait_seconds == 0.0
        threading.Timer(0.2, gate.set).start()
        next(batches)
        waited = batches.wait_seconds
        assert 0.1 < waited < 10
        time.sleep(0.2)
        next(batches)  # was ready
        assert batches.wait_seconds - waited < 0.1


def test_no_batch_ahead_is_refused(dataset):
    order = Order(len(dataset), 8, 0)
    with pytest.raises(errors.Refusal, match="prefetch 0 is not positive"):
        pipeline.batches(dataset, order, first_step=0, prefetch=0)
