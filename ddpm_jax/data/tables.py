"""A table of files and their classes: CSV as people and programs write it."""

import collections
import csv
import functools
import io
import os
import posixpath
import unicodedata
from collections.abc import Sequence

from ddpm_jax.core import errors
from ddpm_jax.data import decoding

SEPARATORS = ",;\t"
COLUMNS = 2
OF_FILES = {
    *("file", "filename", "file_name", "filepath", "file_path", "path", "name", "id"),
    *("image", "image_id", "image_name", "image_path", "imageid", "img", "img_id"),
    *("images", "files"),
}
OF_LABELS = {
    *("label", "labels", "class", "class_name", "classname", "class_id", "category"),
    *("category_id", "target", "y"),
}
WRITE = "write file,label"


def read(data: bytes, path: str, names: Sequence[str]) -> dict[str, str]:
    """Return {file: label} of a CSV file.

    Its columns are separated by commas, semicolons or tabs. A first line that names no
    file is a header, by whose words the columns are found if there are more than two or
    they stand the other way round. A file may be written without its extension, with
    backslashes, or in another form of its accents (NFC, NFD), where one file is meant.

    Args:
        data: its content.
        path: of it, for messages.
        names: the files, relative to their root.

    Raises:
        Refusal: no such table.
    """
    find = Finder(names)
    rows = _rows(data, path)
    header = rows[0][1] if rows and _is_header([row for _, row in rows], find) else None
    columns = (0, 1) if header is None else _columns(header, path)
    width = COLUMNS if header is None else len(header)
    table = {}
    for number, row in rows[header is not None :]:
        file, label = _cells(row, columns, width, number, path)
        file = find(file)
        if table.setdefault(file, label) != label:
            raise errors.Refusal(
                f"{path} gives {file} two labels, {table[file]!r} and {label!r}: keep "
                "one"
            )
    return table


def _rows(data, path):
    """Return (number of the line, cells without blanks around) of lines with any."""
    try:
        text = data.decode("utf-8-sig")
        lines = text.splitlines()
        first = next((line for line in lines if line.strip()), "")
        separator = max(SEPARATORS, key=first.count)
        read_rows = csv.reader(
            io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True
        )
        rows = [
            (read_rows.line_num, [cell.strip() for cell in row]) for row in read_rows
        ]
    except (UnicodeDecodeError, csv.Error) as error:
        raise errors.Refusal(
            f"{path} is no CSV file in UTF-8 ({error}): save it as such"
        ) from error
    return [(number, row) for number, row in rows if any(row)]


def _is_header(rows, find):
    """Return whether the first row names the columns: no file, and no label of another.

    A name with the extension of an image is a file, even one that is not there.
    """
    first, others = rows[0], rows[1:]
    if len(first) < COLUMNS:
        return False
    if any(find.knows(cell) or _has_extension(cell) for cell in first):
        return False
    said = {cell.lower() for cell in first}
    return bool(said & (OF_FILES | OF_LABELS)) or not any(
        first[-1] == row[-1] for row in others
    )


def _has_extension(cell):
    return os.path.splitext(cell)[1].lower() in decoding.EXTENSIONS


def _columns(header, path):
    """Return which columns hold the file and the label."""
    words = [cell.lower() for cell in header]
    files = [i for i, word in enumerate(words) if word in OF_FILES]
    labels = [i for i, word in enumerate(words) if word in OF_LABELS]
    if len(files) == 1 and len(labels) == 1:
        return files[0], labels[0]
    if len([word for word in words if word]) == COLUMNS == len(words):
        other = 1 - labels[0] if len(labels) == 1 else 0
        return other, 1 - other
    raise errors.Refusal(
        f"{path} has the columns {', '.join(map(repr, header))}, which do not tell "
        f"where file and label stand: {WRITE}"
    )


def _cells(row, columns, width, number, path):
    """Return file and label of a row; empty cells behind them do not count."""
    filled = list(row)
    while len(filled) > width and not filled[-1]:
        filled.pop()
    cells = [filled[column] for column in columns if column < len(filled)]
    if len(filled) > width or len(cells) < COLUMNS or not all(cells):
        raise errors.Refusal(f"line {number} of {path} is {','.join(row)!r}: {WRITE}")
    return cells


class Finder:
    """Which of the files a cell means.

    Args:
        names: the files.
    """

    def __init__(self, names):
        self._names = set(names)

    @functools.cached_property
    def _by_form(self):
        # Made when a name is first written otherwise: of a million it is large.
        found = collections.defaultdict(set)
        for name in self._names:
            for form in (name, os.path.splitext(name)[0]):
                found[unicodedata.normalize("NFC", form)].add(name)
        return found

    def __call__(self, cell: str) -> str:
        """Return the file that is meant, else the path as it is written."""
        for written in (cell, cell.replace("\\", "/")):
            path = posixpath.normpath(written)
            if path in self._names:
                return path
            meant = self._by_form.get(unicodedata.normalize("NFC", path), ())
            if len(meant) == 1:
                return next(iter(meant))
        return posixpath.normpath(cell)

    def knows(self, cell: str) -> bool:
        """Return whether a cell means a file that is there."""
        return bool(cell) and self(cell) in self._names
