"""Tables of labels as people and programs write them."""

import unicodedata

import pytest

from ddpm_jax.core import errors
from ddpm_jax.data import tables

NAMES = [f"{i:02}.png" for i in range(6)]
LABELS = {name: f"cat {i % 2}" for i, name in enumerate(NAMES)}


def text(header="", line="{file},{label}", end="\n"):
    rows = [line.format(file=f, stem=f[:-4], label=v) for f, v in LABELS.items()]
    return end.join([header] * bool(header) + rows) + end


@pytest.mark.parametrize(
    "written",
    [
        text(),
        *(
            text(f"{word},label")
            for word in ("file", "image_id", "Image", "name", "pic")
        ),
        text("FILE , Class"),
        text("file;label", "{file};{label}"),
        text("file\tlabel", "{file}\t{label}"),
        text("", "{file};{label}"),
        text("label,file", "{label},{file}"),
        text(",file,label", "7,{file},{label}"),
        text("file,width,label", "{file},64,{label}"),
        text("file,label", "{file},{label},"),
        text("file, label", '"{file}", "{label}"'),
        text('"image_id";"label"', '"{file}";"{label}"', "\r\n"),
        text("image_id,label", "{stem},{label}"),
        text("file,label", "./{file},{label}"),
        text("file,label", ".\\{file},{label}"),
        "\ufeff" + text("file,label"),
        "\n" + text("file,label") + "\n\n",
    ],
)
def test_a_table_is_read_however_it_is_written(written):
    assert tables.read(written.encode(), "t.csv", NAMES) == LABELS


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("in_table", ["NFC", "NFD"])
def test_accents_of_either_form(on_disk, in_table):
    name = unicodedata.normalize(on_disk, "caf\xe9/\xfc.png")
    row = f"{unicodedata.normalize(in_table, name)},a\n"
    assert tables.read(row.encode(), "t.csv", [name]) == {name: "a"}


def test_a_name_that_means_two_files_is_none_of_them():
    names = ["1.png", "1.jpg", "2.png"]
    found = tables.read(b"file,label\n2,a\n1,b\n", "t.csv", names)
    assert found == {"2.png": "a", "1": "b"}


@pytest.mark.parametrize(
    ("written", "parts"),
    [
        ("# made by me\n" + text("file,label"), ["line 1", "# made by me"]),
        (text("file,label") + "06.png,a,b\n", ["line 8", "06.png,a,b"]),
        (text() + "06.png\n", ["line 7", "06.png"]),
        (text() + "06.png,\n", ["line 7", "06.png"]),
        (text("a,b,c", "{file},1,2"), ["'a', 'b', 'c'"]),
        (text() + "00.png,dog\n", ["00.png", "'cat 0'", "'dog'"]),
    ],
)
def test_what_is_no_table_is_refused(written, parts):
    with pytest.raises(errors.Refusal) as refused:
        tables.read(written.encode(), "t.csv", NAMES)
    assert all(part in str(refused.value) for part in ["t.csv", *parts])


def test_another_encoding_is_refused():
    with pytest.raises(errors.Refusal, match="UTF-8"):
        tables.read("file,label\n00.png,caf\xe9".encode("latin-1"), "t.csv", NAMES)


def test_a_first_line_of_a_file_that_is_not_there_is_no_header():
    written = "99.png,cat 1\n" + text()
    assert tables.read(written.encode(), "t.csv", NAMES)["99.png"] == "cat 1"
