"""Images on disk: whole parts, one archive, continued, extended, and never mixed up."""

import json
import tracemalloc

import numpy as np
import pytest

from ddpm_jax.core import errors
from ddpm_jax.runtime import files
from ddpm_jax.sampling import archive as archive_lib

SHAPE = (4, 5, 3)
REQUEST = {"method": "ddim", "steps": 50, "labels": (0, 1), "eta": 0.0, "seed": 0}


def images(start, stop, shape=SHAPE):
    """Image i is always the same."""
    made = [
        np.random.default_rng(i).integers(0, 256, shape).astype(np.uint8)
        for i in range(start, stop)
    ]
    return np.stack(made)


def fill(store, stop, batch_size, start=None):
    """Add what is missing, as sampling does."""
    for first in range(store.count() if start is None else start, stop, batch_size):
        last = min(first + batch_size, stop)
        store.add(first, images(first, last))


def check_archive(store, count, labels=None):
    with np.load(store.folder / "samples.npz", allow_pickle=False) as archive:
        assert sorted(archive) == ["arr_0"] + ["arr_1"] * (labels is not None)
        assert archive["arr_0"].dtype == np.uint8
        np.testing.assert_array_equal(archive["arr_0"], images(0, count))
        if labels is not None:
            assert archive["arr_1"].dtype == np.int64
            np.testing.assert_array_equal(archive["arr_1"], labels)
    assert store.count() == count
    assert list(store.folder.glob("**/*.tmp")) == []
    assert list((store.folder / "parts").iterdir()) == []


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "samples" / "ddim-50"


# ---- the whole way -------------------------------------------------------------------


@pytest.mark.parametrize("labels", [None, [i % 2 for i in range(11)]])
@pytest.mark.parametrize("batch_size", [1, 4, 11, 64])
def test_parts_become_one_archive(folder, batch_size, labels):
    store = archive_lib.SampleStore(folder, REQUEST)
    assert store.count() == 0
    assert not store.is_finished(11)
    fill(store, 11, batch_size)
    assert store.count() == 11
    assert not store.is_finished(11)  # the parts are no result yet
    store.finish(11, labels)
    check_archive(store, 11, labels)
    assert store.is_finished(11)
    assert store.is_finished(7)
    assert not store.is_finished(12)
    assert json.loads((folder / "request.json").read_text())["steps"] == 50


def test_first_before_and_after_finishing(folder):
    store = archive_lib.SampleStore(folder, REQUEST)
    fill(store, 11, 4)
    for _ in range(2):
        first = store.first(6)
        assert first.dtype == np.uint8
        np.testing.assert_array_equal(first, images(0, 6))
        store.finish(11, None)


def test_images_beyond_those_asked_for_are_kept(folder):
    """They were made for a larger request, which may come again."""
    store = archive_lib.SampleStore(folder, REQUEST)
    fill(store, 20, 4)
    store.finish(11, None)
    with np.load(store.archive) as archive:
        np.testing.assert_array_equal(archive["arr_0"], images(0, 11))
    assert store.is_finished(11)
    again = archive_lib.SampleStore(folder, REQUEST)
    assert not again.is_finished(12)
    assert again.count() == 20
    again.finish(20, None)
    check_archive(again, 20)


# ---- going on ------------------------------------------------------------------------


@pytest.mark.parametrize(("before", "after"), [(4, 3), (3, 4), (5, 1), (1, 16)])
def test_continue_after_an_interruption_with_another_batch_size(folder, before, after):
    store = archive_lib.SampleStore(folder, REQUEST)
    fill(store, 2 * before, before)
    again = archive_lib.SampleStore(folder, REQUEST)
    assert again.count() == 2 * before
    fill(again, 17, after)
    again.finish(17, None)
    check_archive(again, 17)


def test_overlapping_parts(folder):
    """Two jobs, or a restart that counted before a part appeared: all agree on i."""
    store = archive_lib.SampleStore(folder, REQUEST)
    for start, stop in [(0, 4), (0, 2), (3, 8), (4, 6), (8, 9), (6, 12)]:
        store.add(start, images(start, stop))
    assert store.count() == 12
    store.finish(12, None)
    check_archive(store, 12)


def test_parts_beyond_a_gap_do_not_count(folder):
    store = archive_lib.SampleStore(folder, REQUEST)
    store.add(0, images(0, 4))
    store.add(6, images(6, 9))
    assert store.count() == 4
    store.add(4, images(4, 7))
    assert store.count() == 9


@pytest.mark.parametrize("batch_size", [2, 7])
def test_a_finished_archive_is_extended(folder, batch_size):
    store = archive_lib.SampleStore(folder, REQUEST)
    fill(store, 6, 4)
    store.finish(6, [0] * 6)
    more = archive_lib.SampleStore(folder, REQUEST)
    assert more.is_finished(6)
    assert more.count() == 6
    fill(more, 9, batch_size)
    assert more.count() == 9
    check_first_bytes(more, 6)
    more.finish(9, [1] * 9)
    check_archive(more, 9, [1] * 9)


def check_first_bytes(store, count):
    """Until the next finish the old archive is there and whole."""
    with np.load(store.archive, allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["arr_0"], images(0, count))


def test_an_archive_longer_than_one_read_is_extended(folder):
    count = archive_lib.ROWS_AT_A_TIME + 5
    store = archive_lib.SampleStore(folder, REQUEST)
    store.add(0, images(0, count))
    store.finish(count, None)
    store.add(count, images(count, count + 3))
    np.testing.assert_array_equal(store.first(count + 3), images(0, count + 3))
    store.finish(count + 3, None)
    check_archive(store, count + 3)


# ---- kills ---------------------------------------------------------------------------


def test_half_written_files_are_ignored(folder, monkeypatch):
    store = archive_lib.SampleStore(folder, REQUEST)
    store.add(0, images(0, 4))

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            store.add(4, images(4, 8))
    # What a SIGKILL leaves, which cleans up nothing.
    half = images(4, 8).tobytes()[:100]
    (folder / "parts" / ".000000004-000000008.npy.0123abcd.tmp").write_bytes(half)
    (folder / "samples.npz.tmp").write_bytes(b"PK\x03\x04 half an archive")
    again = archive_lib.SampleStore(folder, REQUEST)
    assert again.count() == 4
    assert not again.is_finished(1)
    fill(again, 8, 4)
    again.finish(8, None)
    (folder / "parts" / ".000000004-000000008.npy.0123abcd.tmp").unlink()
    check_archive(again, 8)


def test_a_kill_while_finishing(folder, monkeypatch):
    """Before the archive takes its name the parts are there, afterwards they go."""
    store = archive_lib.SampleStore(folder, REQUEST)
    fill(store, 8, 4)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(archive_lib.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            store.finish(8, None)
    again = archive_lib.SampleStore(folder, REQUEST)
    assert not again.is_finished(8)
    assert again.count() == 8

    with monkeypatch.context() as patch:
        patch.setattr(archive_lib.Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            again.finish(8, None)
    again = archive_lib.SampleStore(folder, REQUEST)
    assert again.is_finished(8)
    assert again.count() == 8
    fill(again, 10, 4)
    again.finish(10, None)
    check_archive(again, 10)


# ---- requests ------------------------------------------------------------------------


def test_the_same_request_goes_on(folder):
    archive_lib.SampleStore(folder, REQUEST).add(0, images(0, 4))
    # JSON knows no tuples and no order of keys.
    same = dict(reversed({**REQUEST, "labels": [0, 1]}.items()))
    assert archive_lib.SampleStore(folder, same).count() == 4


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"labels": (1, 0)}, r"labels is \[0, 1\] there and \[1, 0\] here"),
        ({"steps": 20, "eta": 0.5}, "eta is 0.0 .* 0.5 here; steps is 50 .* 20 here"),
        ({"clip": True}, "clip is None there and True here"),
    ],
)
def test_another_request_is_refused(folder, change, told):
    store = archive_lib.SampleStore(folder, REQUEST)
    fill(store, 4, 4)
    with pytest.raises(errors.Refusal, match=told):
        archive_lib.SampleStore(folder, {**REQUEST, **change})
    assert archive_lib.SampleStore(folder, REQUEST).count() == 4


# ---- memory --------------------------------------------------------------------------


@pytest.mark.parametrize("archived", [False, True])
def test_memory_of_finishing_does_not_grow_with_the_images(tmp_path, archived):
    """18,000 images more are 55 MB more on disk, and less than 1 % of it in memory."""
    shape = (32, 32, 3)
    part = images(0, 500, shape)
    peaks = []
    for count in (2000, 20000):
        store = archive_lib.SampleStore(tmp_path / str(count), REQUEST)
        for start in range(0, count, len(part)):
            store.add(start, part)
        if archived:
            store.finish(count, None)
            store.add(count, part)
        total = count + len(part) * archived
        tracemalloc.start()
        store.finish(total, None)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        with np.load(store.archive) as archive:
            assert archive["arr_0"].shape == (total, *shape)
    assert peaks[0] > part.nbytes  # the measurement sees arrays
    assert peaks[1] - peaks[0] < 0.01 * 18000 * np.prod(shape)
