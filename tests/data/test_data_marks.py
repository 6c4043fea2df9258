"""Marks of files: what they notice, and what they need not read again."""

import os
import zipfile

import numpy as np
import pytest

from ddpm_jax.core import errors
from ddpm_jax.data import marks, sources

SIDE = 12
NAMES = [f"{k}/{i:02}.npy" for k in ("cat", "dog") for i in range(10)]
CHANGED = "cat/03.npy"


def save(root, name, value):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.full((SIDE, SIDE), value, np.uint8)
    array[0, 0] = 255 - value
    np.save(path, array)
    return path


def folder(root):
    for number, name in enumerate(NAMES):
        save(root, name, number)
    return root


def loaded(root, container):
    """The data set of a folder, or of the same folder zipped."""
    path = root
    if container == "zip":
        path = root.with_suffix(".zip")
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(root.rglob("*.npy")):
                archive.write(file, file.relative_to(root))
    return sources.load(container, "train", path=path, say=lambda line: None)


def same_size(root):
    save(root, CHANGED, 99)


def same_size_and_time(root):
    status = os.stat(root / CHANGED)
    save(root, CHANGED, 99)
    os.utime(root / CHANGED, ns=(status.st_atime_ns, status.st_mtime_ns))


def put_in_its_place(root):
    status = os.stat(root / CHANGED)
    other = save(root, "other", 99)
    os.utime(other.with_name("other.npy"), ns=(status.st_mtime_ns, status.st_mtime_ns))
    os.replace(other.with_name("other.npy"), root / CHANGED)


def exchanged(root):
    one, two = root / CHANGED, root / "dog/03.npy"
    one_data = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(one_data)


def longer(path):
    path.write_bytes(path.read_bytes() + b"\0" * 9)


@pytest.mark.parametrize("container", ["folder", "zip"])
@pytest.mark.parametrize(
    ("change", "how"),
    [
        (same_size, "same size"),
        (same_size_and_time, "same size"),
        (put_in_its_place, "same size"),
        (exchanged, "same size"),
        (lambda root: (root / CHANGED).unlink(), "gone"),
        (lambda root: save(root, "cat/99.npy", 1), "new"),
        (lambda root: longer(root / CHANGED), "another size"),
        (lambda root: save(root, "bee/0.npy", 1), "another class"),
    ],
)
def test_a_change_is_named_with_the_file(tmp_path, container, change, how):
    root = folder(tmp_path / "data")
    before = loaded(root, container).marks({})
    assert marks.differences(before, loaded(root, container).marks(before)) == []
    change(root)
    images = loaded(root, container)
    found = marks.differences(before, images.marks(before))
    [told] = [line for line in found if how in line]
    named = {"new": "cat/99.npy", "another class": "cat/00.npy"}.get(how, CHANGED)
    assert named in told
    assert images.place == str(root if container == "folder" else f"{root}.zip")
    assert marks.digest(before) != marks.digest(images.marks({}))


@pytest.mark.parametrize("at", ["first", "last", "whole"])
def test_blocks_of_a_large_file(tmp_path, at):
    path = tmp_path / "a.bin"
    data = np.random.default_rng(0).integers(0, 256, 900_001, np.uint8)
    path.write_bytes(data.tobytes())
    before, _ = marks.of_file(str(path), None)
    where = {"first": slice(0, 1), "last": slice(-1, None), "whole": slice(None)}[at]
    data[where] ^= 1
    path.write_bytes(data.tobytes())
    assert marks.of_file(str(path), None)[0] != before


def test_marks_cost_no_second_reading(tmp_path, monkeypatch):
    dataset = loaded(folder(tmp_path / "data"), "folder")
    known = dataset.marks({})
    read = []
    digest = marks._digest
    monkeypatch.setattr(
        marks, "_digest", lambda path, size: read.append(path) or digest(path, size)
    )
    assert dataset.marks(known) == known
    assert read == []
    os.chmod(tmp_path / "data" / CHANGED, 0o600)  # changes the entry, not the content
    assert dataset.marks(known) == known
    assert [os.path.relpath(path, tmp_path / "data") for path in read] == [CHANGED]


def test_marks_do_not_depend_on_the_place(tmp_path):
    here = loaded(folder(tmp_path / "a" / "data"), "folder").marks({})
    there = loaded(folder(tmp_path / "b"), "folder").marks(here)
    assert here == there
    assert marks.digest(here) == marks.digest(there)


def test_marks_are_kept(tmp_path):
    kept = {
        "caf\udce9\n.png": marks.Mark(1, 0, "ab", "1.2.3"),
        "b\u2028.png": marks.Mark(2, 1, "cd"),
    }
    assert marks.from_bytes(marks.to_bytes(kept)) == kept
    assert marks.from_bytes(marks.to_bytes({})) == {}


@pytest.mark.parametrize(
    "data", [b"", b"x", marks.to_bytes({"a": marks.Mark(1, 0, "")})[:-9]]
)
def test_a_damaged_list_is_refused(data):
    with pytest.raises(errors.Refusal, match="damaged"):
        marks.from_bytes(data)
