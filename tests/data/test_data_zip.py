import numpy as np
import pytest
from test_data_folder import (
    CLASSES,
    content,
    encoded,
    everything,
    load,
    many,
    pixels,
    refusal,
    write,
    zipped,
)

from ddpm_jax.data import sources


def test_a_zip_file_reads_as_the_folder(tmp_path):
    folder = load(write(tmp_path / "f", content()))
    plain = zipped(tmp_path / "a.zip", {**content(), "__MACOSX/cat/._0.png": b"x"})
    nested = {f"flowers/{name}": data for name, data in content().items()}
    for path in (plain, zipped(tmp_path / "b.zip", nested)):
        dataset = load(path, source="zip")
        assert dataset.class_names == CLASSES
        assert dataset.content == folder.content
        for name, values in everything(folder).items():
            np.testing.assert_array_equal(everything(dataset)[name], values)


@pytest.mark.parametrize(
    "beside", ["Thumbs.db", "desktop.ini", "README", "docs/a.txt", "x/.DS_Store"]
)
def test_what_is_no_image_beside_the_folder_of_a_zip_file_does_not_count(
    tmp_path, beside
):
    nested = {f"flowers/{name}": data for name, data in content().items()}
    path = zipped(tmp_path / "a.zip", {**nested, beside: b"x"})
    folder = load(write(tmp_path / "f", content()))
    assert load(path, source="zip").content == folder.content


def test_labels_beside_the_folder_of_a_zip_file_count(tmp_path):
    named = {f"flowers/{name.replace('/', '_')}": d for name, d in content().items()}
    table = "".join(f"{name},{name[8:11]}\n" for name in named)
    path = zipped(tmp_path / "a.zip", {**named, "labels.csv": table})
    assert load(path, source="zip").class_names == CLASSES


def test_splits_inside_a_zip_file_are_refused_with_advice_that_works(tmp_path):
    named = {f"p/{s}/{n}": d for n, d in content().items() for s in ("test", "train")}
    message = refusal(zipped(tmp_path / "a.zip", named), source="zip")
    for part in ("unpack", "data.path", "p/train"):
        assert part in message


@pytest.mark.parametrize(
    "name", ["../a.png", "x/../../a.png", "/etc/a.png", "C:\\a.png"]
)
def test_zip_files_that_reach_outside_are_refused(tmp_path, name):
    path = zipped(tmp_path / "a.zip", {**content(), name: encoded(pixels(0))})
    message = refusal(path, source="zip")
    assert "holds files outside of itself" in message
    assert repr(name) in message


def test_what_is_no_zip_file_is_refused(tmp_path):
    path = tmp_path / "a.zip"
    path.write_text("<!DOCTYPE html>\n<html><body>Quota exceeded</body></html>")
    assert "is an HTML page, not a zip file" in refusal(path, source="zip")
    path.write_text("hello")
    assert "is no zip file" in refusal(path, source="zip")
    whole = zipped(tmp_path / "b.zip", content()).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "is a damaged zip file" in refusal(path, source="zip")


@pytest.mark.parametrize(
    ("start", "parts"),
    [
        (b"", ["is empty", "download it again"]),
        (b"7z\xbc\xaf\x27\x1c", ["is a 7z archive", "unpack it and give the folder"]),
        (b"Rar!\x1a\x07\0", ["is a RAR archive", "unpack it"]),
        (b"\x1f\x8b\x08", [".tar.gz", "unpack it"]),
        (b"\0" * 257 + b"ustar", ["is a tar archive", "unpack it"]),
        (encoded(pixels(0)), ["is a single image", "give the folder"]),
        (b"\x93NUMPY", ["is one .npy array", "np.savez("]),
        (b"\x89HDF\r\n", ["is an HDF5 file", ".png files in a folder"]),
        (b"PAR1", ["is a Parquet file", ".npz"]),
        (b"version https://git-lfs.github.com/spec/v1\n", ["git lfs pull"]),
    ],
)
def test_other_files_than_zip_files_are_named_with_the_remedy(tmp_path, start, parts):
    path = tmp_path / "a.zip"
    path.write_bytes(start)
    message = refusal(path, source="zip")
    for part in parts:
        assert part in message
    assert start == b"" or "download" not in message


def test_methods_that_python_lacks_are_named(tmp_path):
    data = bytearray(zipped(tmp_path / "a.zip", content()).read_bytes())
    data[data.index(b"PK\x01\x02") + 10] = 9  # method of the first file: Deflate64
    (tmp_path / "a.zip").write_bytes(data)
    message = refusal(tmp_path / "a.zip", source="zip")
    assert "packed by Deflate64 ('cat/00.png')" in message
    assert "unpack it and give the folder" in message


def test_archives_in_an_archive_are_to_be_unpacked(tmp_path):
    path = zipped(tmp_path / "a.zip", {"in.zip": b"x", "b.tar": b"x"})
    assert "unpack the .tar and .zip files" in refusal(path, source="zip")


def test_encrypted_zip_files_are_refused(tmp_path):
    path = zipped(tmp_path / "a.zip", content())
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # general purpose bit 0: encrypted
    path.write_bytes(data)
    assert "is encrypted ('cat/00.png')" in refusal(path, source="zip")


def test_damage_inside_a_zip_file_is_the_files(tmp_path):
    path = zipped(tmp_path / "a.zip", many())
    data = bytearray(path.read_bytes())
    data[data.index(many()["007.png"]) + 100] ^= 255  # stored: its CRC is now wrong
    path.write_bytes(data)
    said = []
    for split in sources.SPLITS:
        everything(load(path, split, source="zip", said=said))
    assert any("skipped: 007.png is damaged (Bad CRC" in line for line in said)
