"""Captions of own images: beside them, from tables, from names of classes."""

import csv
import dataclasses
import io
import itertools
import json
import pathlib
import zipfile

import numpy as np
import pytest
from PIL import Image

from ddpm_jax.core import errors
from ddpm_jax.data import captions, marks, reading, sources

NAMES = [f"{kind}/{i:02}.png" for kind in ("cat", "black_dog") for i in range(12)]


def png(number):
    file = io.BytesIO()
    pixels = np.full((8, 8, 3), number, np.uint8)
    pixels[0, 0] = 255 - number
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def told(name, number=0):
    """The captions that the tests give to an image."""
    return f"caption {number} of {name.removesuffix('.png')}"


def texts(names=NAMES):
    return {n.replace(".png", ".txt"): f"{told(n)}\n\n {told(n, 1)}\n" for n in names}


def write(root, named, container="folder"):
    """Write images and other files; return the path of the data."""
    named = {**{name: png(i) for i, name in enumerate(NAMES)}, **named}
    named = {n: d.encode() if isinstance(d, str) else d for n, d in named.items()}
    if container == "zip":
        with zipfile.ZipFile(root / "a.zip", "w") as archive:
            for name, data in named.items():
                archive.writestr(name, data)
        return root / "a.zip"
    for name, data in named.items():
        path = root / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root / "photos"


def load(path, split="train", how="auto", said=None, **options):
    return sources.load(
        "zip" if pathlib.Path(path).suffix == ".zip" else "folder",
        split,
        path=path,
        captions=how,
        say=[].append if said is None else said.append,
        **options,
    )


def refusal(path, how="auto", **options):
    with pytest.raises(errors.Refusal) as refused:
        load(path, how=how, **options)
    return str(refused.value)


def number_of(image):
    """Return the image's number in `NAMES`, of its last pixel."""
    return round((float(image[-1, -1, 0]) + 1) * 127.5)


def check_pairs(path, how="auto"):
    """Check that every image of both splits has its own two captions."""
    seen = set()
    for split, (draw, expected) in itertools.product(
        sources.SPLITS, [(None, 0), (0.0, 0), (0.49, 0), (0.5, 1), (1 - 2**-53, 1)]
    ):
        dataset = load(path, split, how)
        everything = np.arange(len(dataset))
        images = dataset.fetch(everything)["image"]
        found = dataset.captions(everything, draw)
        for image, caption in zip(images, found, strict=True):
            name = NAMES[number_of(image)]
            assert caption == told(name, expected)
            seen.add(name)
    assert seen == set(NAMES)
    wanted = {told(name, number) for name in NAMES for number in (0, 1)}
    assert set(load(path, how=how).all_captions()) == wanted


def json_lines(names, folder=""):
    return "\n".join(
        json.dumps({"file_name": n.removeprefix(folder), "text": [told(n), told(n, 1)]})
        for n in names
    )


def as_csv(names, folder="", header=("file_name", "text"), separator=","):
    file = io.StringIO()
    rows = csv.writer(file, delimiter=separator)
    rows.writerow(header)
    rows.writerows(
        [n.removeprefix(folder), told(n, number)] for n in names for number in (0, 1)
    )
    return file.getvalue()


# ---- where captions are found --------------------------------------------------------


@pytest.mark.parametrize("container", ["folder", "zip"])
@pytest.mark.parametrize(
    "named",
    [
        texts(),
        {"metadata.jsonl": json_lines(NAMES)},
        {
            "cat/metadata.jsonl": json_lines(NAMES[:12], "cat/"),
            "black_dog/metadata.csv": as_csv(NAMES[12:], "black_dog/"),
        },
        {"captions.csv": as_csv(NAMES, "", ("path", "caption"), ";")},
    ],
    ids=["beside", "lines", "tables of folders", "csv"],
)
def test_every_image_has_its_captions(tmp_path, container, named):
    check_pairs(write(tmp_path, named, container))


def test_a_table_elsewhere(tmp_path):
    path = write(tmp_path, {})
    table = tmp_path / "elsewhere.csv"
    table.write_text(as_csv(NAMES, "", ("Image", "Caption")))
    check_pairs(path, str(table))
    lines = tmp_path / "elsewhere.jsonl"
    lines.write_text(json_lines(NAMES))
    check_pairs(path, str(lines))


def test_a_zipped_folder_reads_as_the_folder(tmp_path):
    path = write(tmp_path, texts())
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        for file in sorted(path.rglob("*.*")):
            archive.write(file, f"photos/{file.relative_to(path)}")
        archive.writestr("metadata.jsonl", json_lines([f"photos/{n}" for n in NAMES]))
    check_pairs(tmp_path / "b.zip", "files")
    # Its names start with the folder, as those of the table do, and images' do not.
    table = load(tmp_path / "b.zip").captions([0])[0]
    assert table == load(path).captions([0])[0].replace("of ", "of photos/")


def test_one_caption_is_in_one_line_without_mark_of_byte_order(tmp_path):
    path = write(tmp_path, texts())
    (path / "cat/00.txt").write_bytes("\ufeff a\tcat \u2028 é\r\n".encode())
    assert "a cat é" in list(load(path).all_captions())


def test_a_table_goes_before_texts_and_says_so(tmp_path):
    said = []
    path = write(tmp_path, {**texts(NAMES[:3]), "metadata.jsonl": json_lines(NAMES)})
    load(path, said=said)
    assert any("3 .txt files beside images are not read" in line for line in said)
    assert any("48 for 24 of 24 images, from metadata.jsonl" in line for line in said)


def test_tables_without_captions_are_none(tmp_path):
    named = {
        "metadata.jsonl": '{"file_name": "cat/00.png", "label": 1}',
        "metadata.csv": "a,b\n1,2\n",
    }
    assert load(write(tmp_path, named)).read_captions is None


def test_files_of_captions_are_not_said_to_be_ignored(tmp_path):
    path = write(tmp_path, {**texts(), "notes.txt": "mine", "b.json": "{}"})
    said = []
    load(path, said=said)
    assert any("ignored 2 other files (1 .txt, 1 .json)" in line for line in said)
    load(path, how="none", said=said)
    assert any("ignored 26 other files (25 .txt, 1 .json)" in line for line in said)


def test_captions_that_are_not_read_are_no_part_of_the_data(tmp_path):
    path = write(tmp_path, {})
    bare = load(path, how="none").fingerprint()
    write(tmp_path, texts())
    assert load(path, how="none").fingerprint() == bare
    assert load(path, how="none").read_captions is None
    assert load(path).fingerprint() != bare


# ---- several captions of an image ----------------------------------------------------


def test_every_caption_is_as_likely(tmp_path):
    held = captions.Captions([("a", "b", "c"), (), ("d",)])
    draws = np.random.default_rng(0).random(30_000)
    found = held.choose(np.zeros(len(draws), np.int64), draws)
    for text in "abc":
        # Six standard deviations of a binomial share of one third.
        assert abs(found.count(text) / len(draws) - 1 / 3) < 6 * (2 / 9 / 30_000) ** 0.5
    assert held.choose(np.array([2, 0]), np.full(2, 1 - 2**-53)) == ["d", "c"]
    assert held.counts.tolist() == [3, 0, 1]
    assert list(held) == ["a", "b", "c", "d"]


def test_a_million_captions_take_little_memory():
    text = "x" * 60
    number = 10_000
    held = captions.Captions((text,) for _ in range(number))
    assert held.num_bytes / number < 80


def test_an_image_in_place_of_a_damaged_one_comes_with_its_caption(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(reading, "MAX_UNREADABLE", 0.2)
    path = write(tmp_path, texts())
    for name in NAMES[3:6]:  # the header is there and the pixels are not
        data = (path / name).read_bytes()
        (path / name).write_bytes(data[:45])
    dataset = load(path)
    encoded = []
    dataset = dataclasses.replace(
        dataset, encode=lambda told: encoded.append(told) or {}
    )
    batch = dataset.fetch(np.arange(len(dataset)))
    names = [NAMES[number_of(image)] for image in batch["image"]]
    assert len(set(names)) < len(names)
    assert encoded[0] == [told(name) for name in names]


# ---- what is refused -----------------------------------------------------------------


def test_images_without_captions_are_refused(tmp_path):
    path = write(tmp_path, texts(NAMES[4:]))
    message = refusal(path)
    for part in ("4 of 24", str(path), "cat/00.png", "cat/02.png", "cat/00.txt"):
        assert part in message
    assert load(path, how="none").read_captions is None


def test_an_empty_caption_is_none(tmp_path):
    path = write(tmp_path, {**texts(), "cat/07.txt": "\ufeff \n\n"})
    assert "1 of 24 images" in refusal(path)
    assert "(cat/07.png)" in refusal(path)


def line(**values):
    return json.dumps(values)


@pytest.mark.parametrize(
    ("named", "how", "told_of"),
    [
        ({"cat/00.txt": b"caf\xe9"}, "files", "not in UTF-8 (byte 0xe9 at 3): save"),
        ({"cat/00.txt": "x".encode("utf-16")}, "files", "00.txt is in UTF-16: save"),
        ({"cat/00.txt": b"a\0b"}, "files", "holds NUL characters: save it as text"),
        ({"cat/00.txt": "x" * 10_000_000}, "files", "has 10,000,000 bytes, and more"),
        ({"cat/00.txt": "x" * 10_001}, "files", "has 10,001 characters ('xxx"),
        ({"metadata.jsonl": '\n{"file_name": "a'}, "auto", "line 2 of "),
        ({"metadata.jsonl": "[1]"}, "auto", "is no JSON object (is list): write {"),
        ({"metadata.jsonl": b'{"text": "\xff"}'}, "auto", "jsonl is not in UTF-8"),
        ({"metadata.jsonl": line(text="a")}, "auto", "line 1 of "),
        (
            {"metadata.jsonl": line(file_name="a.png", text=5)},
            "auto",
            "has 5 as captions",
        ),
        (
            {"metadata.jsonl": line(file_name="../x.png", text="a")},
            "auto",
            "names '../x.png', which is outside of ",
        ),
        (
            {"cat/metadata.jsonl": line(file_name="..\\..\\x.png", text="a")},
            "auto",
            "which is outside of ",
        ),
        (
            {"metadata.jsonl": line(file_name="/etc/x.png", text="a")},
            "auto",
            "names '/etc/x.png', which is outside of ",
        ),
        (
            {"metadata.jsonl": line(file_name="cat/77.png", text="a")},
            "auto",
            "that is no image of ",
        ),
        (
            {"metadata.jsonl": line(file_name="cat/00.png", text="x" * 10_000_000)},
            "auto",
            "has 10,000,000 characters",
        ),
        (
            {"metadata.jsonl": line(file_name="cat/00.png", text="\ud800")},
            "auto",
            "which is no character",
        ),
        ({"captions.csv": "text,label\na,b"}, "auto", "names no column of files"),
        (
            {"captions.csv": "file_name,text\ncat/00.png,a, b"},
            "auto",
            "line 2 of ",
        ),
        (
            {"captions.csv": f"file_name,text\ncat/00.png,{'x' * 200_000}"},
            "auto",
            "is no CSV (field larger",
        ),
        ({}, "no/such.csv", "'no/such.csv' is neither auto, none, files, classes"),
        ({}, "files", "24 of 24 images"),
    ],
)
def test_bad_captions_are_refused(tmp_path, named, how, told_of):
    message = refusal(write(tmp_path, named), how)
    assert told_of in message
    assert "\n" not in message
    assert len(message) < 500


def test_an_image_that_is_named_twice_is_refused(tmp_path):
    twice = json_lines([*NAMES, "cat/03.png"])
    message = refusal(write(tmp_path, {"metadata.jsonl": twice}))
    assert message.startswith("lines 4 and 25 of ")
    assert " name cat/03.png: keep one of them" in message
    both = {"metadata.jsonl": json_lines(NAMES), "captions.csv": as_csv(NAMES[:1])}
    assert "has captions of cat/00.png, and so has" in refusal(write(tmp_path, both))


def test_a_table_without_captions_is_refused_where_it_is_asked_for(tmp_path):
    table = tmp_path / "a.csv"
    table.write_text("file_name,label\ncat/00.png,1\n")
    assert "has no column of captions" in refusal(write(tmp_path, {}), str(table))


# ---- names of classes ----------------------------------------------------------------


def test_names_of_classes_are_captions(tmp_path):
    path = write(tmp_path, {})
    for split in sources.SPLITS:
        dataset = load(path, split, "classes")
        everything = np.arange(len(dataset))
        found = dataset.captions(everything)
        names = [NAMES[number_of(i)] for i in dataset.fetch(everything)["image"]]
        wanted = {"cat": "a photo of a cat", "black_dog": "a photo of a black dog"}
        assert found == [wanted[name.split("/")[0]] for name in names]
        assert set(dataset.all_captions()) == set(wanted.values())
    dataset = load(path, how="{class}, in  bad light")
    assert set(dataset.captions([0, len(dataset) - 1])) == {
        "cat, in bad light",
        "black dog, in bad light",
    }
    assert "have no classes" in refusal(path, "classes", labels="none")


def test_digits_by_their_names():
    digits = sources.load("digits", "test", captions="the digit {class}")
    label = digits.fetch(np.arange(50))["label"]
    found = digits.captions(np.arange(50))
    assert found == [f"the digit {one}" for one in label.tolist()]
    assert sources.load("digits", "test", captions="auto").read_captions is None


@pytest.mark.parametrize(
    ("name", "how", "told_of"),
    [
        ("digits", "files", "no files of captions lie beside the images of 'digits'"),
        ("shapes", "classes", "has no meaning for shapes"),
    ],
)
def test_other_sources_have_no_such_captions(name, how, told_of):
    with pytest.raises(errors.Refusal, match=told_of):
        sources.load(name, "train", captions=how)


# ---- changes that a run notices ------------------------------------------------------


@pytest.mark.parametrize("container", ["folder", "zip"])
def test_another_caption_is_noticed(tmp_path, container):
    before = load(write(tmp_path, texts(), container))
    known, fingerprint = before.marks({}), before.fingerprint()
    assert marks.differences(known, before.marks(known)) == []
    changed = texts()
    changed["cat/03.txt"] = changed["cat/03.txt"].replace("caption 1", "caption 9")
    after = load(write(tmp_path, changed, container))
    now = after.marks(known)
    assert marks.differences(known, now) == [
        "1 file (cat/03.png) is of another caption"
    ]
    assert after.fingerprint() != fingerprint
    assert marks.digest(now) != marks.digest(known)
    assert marks.from_bytes(marks.to_bytes(now)) == now
    bare = load(write(tmp_path, changed, container), how="none").marks({})
    assert {mark.captions for mark in bare.values()} == {""}


@pytest.mark.parametrize("name", ["../cat/00.png", "photos/cat/00.png"])
def test_names_in_a_table_elsewhere_are_relative_to_the_images(tmp_path, name):
    path = write(tmp_path, {})
    table = tmp_path / "table.jsonl"
    table.write_text(line(file_name=name, text="a"))
    assert "relative to the folder of the images" in refusal(path, str(table))
    path = write(tmp_path, {"metadata.jsonl": line(file_name=name, text="a")})
    assert "relative to the folder of the table" in refusal(path)
