"""Archives of every type and rank, and those that older versions have begun."""

import io
import json
import tracemalloc
import zipfile

import numpy as np
import pytest

from ddpm_jax.core import errors
from ddpm_jax.sampling import archive as archive_lib

REQUEST = {"method": "ddim", "steps": 50, "labels": (0, 1), "eta": 0.0, "seed": 0}
KINDS = {
    "bytes": (np.uint8, (4, 5, 3)),
    "deep": (np.uint16, (4, 5, 3)),
    "points": (np.float32, (2,)),
    "sequences": (np.float32, (20, 1)),
    "bits": (np.uint8, (20, 1)),
}


def examples(start, stop, dtype, shape):
    """Example i is always the same, and uses every bit of its type."""
    made = []
    for i in range(start, stop):
        random = np.random.default_rng(i)
        if dtype == np.float32:
            made.append(3 * random.standard_normal(shape, np.float32))
        else:
            made.append(random.integers(0, np.iinfo(dtype).max + 1, shape, dtype))
    return np.stack(made)


def check(store, count, kind):
    with np.load(store.archive, allow_pickle=False) as archive:
        found = archive["arr_0"]
    expected = examples(0, count, *kind)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_written_in_parts_interrupted_continued_and_extended(tmp_path, kind):
    folder = tmp_path / "ddim-50"
    store = archive_lib.SampleStore(folder, REQUEST)
    assert store.dtype is None
    store.add(0, examples(0, 3, *kind))
    store.add(3, examples(3, 6, *kind))
    again = archive_lib.SampleStore(folder, REQUEST)  # after an interruption
    assert (again.dtype, again.count()) == (kind[0], 6)
    again.add(5, examples(5, 11, *kind))
    again.finish(11, [0] * 11)
    check(again, 11, kind)
    more = archive_lib.SampleStore(folder, REQUEST)
    assert (more.dtype, more.count(), more.is_finished(11)) == (kind[0], 11, True)
    count = archive_lib.ROWS_AT_A_TIME + 4
    more.add(11, examples(11, count, *kind))
    assert more.first(13).tobytes() == examples(0, 13, *kind).tobytes()
    more.finish(count, None)
    check(more, count, kind)
    last = archive_lib.SampleStore(folder, REQUEST)
    last.add(count, examples(count, count + 2, *kind))
    last.finish(count + 2, None)  # through the archived rows, twice read
    check(last, count + 2, kind)


@pytest.mark.parametrize("archived", [False, True])
def test_another_type_or_shape_is_refused(tmp_path, archived):
    store = archive_lib.SampleStore(tmp_path / "x", REQUEST)
    store.add(0, examples(0, 4, *KINDS["bytes"]))
    if archived:
        store.finish(4, None)
    told = r"holds uint8 images of \[4, 5, 3\], and {} cannot be added: move"
    for kind, words in {
        "deep": r"uint16 images of \[4, 5, 3\]",
        "points": r"float32 images of \[2\]",
        "bits": r"uint8 images of \[20, 1\]",
    }.items():
        with pytest.raises(errors.Refusal, match=told.format(words)):
            store.add(4, examples(4, 6, *KINDS[kind]))
    assert store.count() == 4


def test_a_part_of_another_type_never_enters_an_archive(tmp_path):
    """A job of an older version may write into the folder at the same time."""
    store = archive_lib.SampleStore(tmp_path / "x", REQUEST)
    store.add(0, examples(0, 4, *KINDS["deep"]))
    part = tmp_path / "x" / "parts" / "000000004-000000008.npy"
    np.save(part, examples(4, 8, *KINDS["bytes"]))
    with pytest.raises(errors.Refusal, match="cannot be added"):
        store.finish(8, None)
    assert not store.archive.exists()
    assert part.exists()


@pytest.mark.parametrize("dtype", [np.float64, np.int64, ">u2"])
def test_other_types_are_not_kept(tmp_path, dtype):
    store = archive_lib.SampleStore(tmp_path / "x", REQUEST)
    with pytest.raises(ValueError, match="give uint8, uint16 or float32"):
        store.add(0, np.zeros((2, 3), dtype))


# ---- what older versions wrote -------------------------------------------------------


def older_folder(folder, *, archived, parts):
    """Write what version 1 did, without our own code."""
    (folder / "parts").mkdir(parents=True)
    (folder / "request.json").write_text(
        '{\n  "eta": 0.0,\n  "labels": [\n    0,\n    1\n  ],\n  "method": "ddim",\n'
        '  "seed": 0,\n  "steps": 50\n}\n'
    )
    kind = KINDS["bytes"]
    if archived:
        np.savez(
            folder / "samples.npz",
            arr_0=examples(0, archived, *kind),
            arr_1=np.zeros(archived, np.int64),
        )
    for start, stop in parts:
        name = f"{start:09d}-{stop:09d}.npy"
        np.save(folder / "parts" / name, examples(start, stop, *kind))


@pytest.mark.parametrize(
    ("archived", "parts"), [(0, [(0, 4), (4, 7)]), (5, [(5, 7)]), (7, [])]
)
def test_an_older_folder_goes_on(tmp_path, archived, parts):
    folder, kind = tmp_path / "x", KINDS["bytes"]
    older_folder(folder, archived=archived, parts=parts)
    request = (folder / "request.json").read_bytes()
    store = archive_lib.SampleStore(folder, REQUEST)
    assert (store.count(), store.dtype) == (7, np.uint8)
    assert store.is_finished(5) == (archived >= 5)
    store.add(7, examples(7, 10, *kind))
    store.finish(10, None)
    check(store, 10, kind)
    assert (folder / "request.json").read_bytes() == request


def test_the_bytes_of_eight_bits_have_not_changed(tmp_path):
    """Request, parts and archive are those that version 1 wrote."""
    kind, folder = KINDS["bytes"], tmp_path / "now"
    older_folder(tmp_path / "then", archived=0, parts=[(0, 4), (4, 7)])
    store = archive_lib.SampleStore(folder, REQUEST)
    store.add(0, examples(0, 4, *kind))
    store.add(4, examples(4, 7, *kind))
    for path in (tmp_path / "then").rglob("*.*"):
        same = folder / path.relative_to(tmp_path / "then")
        assert same.read_bytes() == path.read_bytes()
    assert json.loads((folder / "request.json").read_text())["labels"] == [0, 1]
    store.finish(7, None)
    header = {"descr": "|u1", "fortran_order": False, "shape": (7, 4, 5, 3)}
    expected = io.BytesIO()
    np.lib.format.write_array_header_1_0(expected, header)
    expected.write(examples(0, 7, *kind).tobytes())
    with zipfile.ZipFile(store.archive) as archive:
        assert archive.namelist() == ["arr_0.npy"]
        assert archive.read("arr_0.npy") == expected.getvalue()


# ---- memory --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["deep", "sequences"])
def test_memory_of_finishing_is_that_of_a_part(tmp_path, kind):
    dtype, _ = KINDS[kind]
    part = examples(0, 200, dtype, (32, 32, 3) if kind == "deep" else (3072, 1))
    peaks = []
    for count in (1000, 5000):
        store = archive_lib.SampleStore(tmp_path / str(count), REQUEST)
        for start in range(0, count, len(part)):
            store.add(start, part)
        store.finish(count, None)
        store.add(count, part)
        tracemalloc.start()
        store.finish(count + len(part), None)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[0] > part.nbytes  # the measurement sees arrays
    assert peaks[1] - peaks[0] < 0.01 * 4000 * part[0].nbytes
