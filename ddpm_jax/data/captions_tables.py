"""Tables of files and their captions: lines of JSON, and CSV with a header."""

import csv
import io
import json
import posixpath
from collections.abc import Callable, Mapping
from typing import NamedTuple

from ddpm_jax.core import errors, wording
from ddpm_jax.data import captions, tables

# The first of these that a row has; "file_name" and "text" are the usual ones.
FILE_COLUMNS = (
    *("file_name", "file", "filename", "path", "file_path", "filepath"),
    *("image", "image_name", "image_path", "img"),
)
TEXT_COLUMNS = ("text", "caption", "captions", "texts", "prompt", "description")
SEPARATORS = ",;\t"
JSON_LINES = ".jsonl"
WRITE_JSON = 'write {"file_name": "photo.png", "text": "a caption"} on each line'
WRITE_CSV = "write a first line file_name,text and captions with commas in quotes"


class Row(NamedTuple):
    """What a table says of a file.

    Attributes:
        file: as it is written.
        texts: its captions.
        line: its number.
    """

    file: str
    texts: tuple[str, ...]
    line: int


def read(data: bytes, path: str) -> list[Row] | None:
    """Return the rows of a table; None if it has no column of captions.

    Args:
        data: its content.
        path: of it, for messages; its ending tells what it is.

    Raises:
        Refusal: no such table.
    """
    text = captions.decoded(data, path)
    rows = _json_rows if is_json(path) else _csv_rows
    return rows(text, path)


def is_json(path: str) -> bool:
    """Return whether a table is lines of JSON, by the ending of its name."""
    return path.lower().endswith(JSON_LINES)


def assign(
    rows: list[Row],
    find: tables.Finder,
    *,
    path: str,
    root: str,
    place: Callable[[str], str] = lambda file: file,
    base: str = "the folder of the table",
) -> dict[str, tuple[str, ...]]:
    """Return {image: its captions}; a row without text gives an image ().

    Args:
        rows: of one table.
        find: finds the images.
        path: of the table, for messages.
        root: where the images lie, for messages.
        place: what is written → path below the root.
        base: what names are relative to, for messages.

    Raises:
        Refusal: rows of files outside the folder, of none that are there, or two lines
            of JSON of the same file.
    """
    found, lines, unknown = {}, {}, []
    for row in rows:
        written = row.file.replace("\\", "/")
        below = posixpath.normpath(place(written))
        if written[:1] == "/" or written[1:2] == ":" or below.split("/")[0] == "..":
            raise errors.Refusal(
                f"line {row.line} of {path} names {row.file!r}, which is "
                f"outside of {root}: write paths relative to {base}, "
                "without '..'"
            )
        if not find.knows(below):
            unknown.append(row)
            continue
        image = find(below)
        if is_json(path) and image in found:
            raise errors.Refusal(
                f"lines {lines[image]} and {row.line} of {path} name {image}: keep one "
                'of them, with several captions as a list, "text": ["one", "another"]'
            )
        lines[image] = row.line
        found[image] = (*found.get(image, ()), *row.texts)
    if unknown:
        listed = wording.few([row.file for row in unknown])
        raise errors.Refusal(
            f"line {unknown[0].line} of {path} names a file that is no image of "
            f"{root}; such lines are {len(unknown):,} "
            f"({listed}): correct "
            f"the names, which are relative to {base}, or take the lines out"
        )
    return found


# ---- lines of JSON -------------------------------------------------------------------


def _json_rows(text, path):
    rows, has_texts = [], False
    for number, line in enumerate(captions.LINE.split(text), start=1):
        if not line.strip():
            continue
        where = f"line {number} of {path}"
        values = _object(line, where)
        has_texts |= any(name in values for name in TEXT_COLUMNS)
        texts = _json_texts(_first(values, TEXT_COLUMNS), where)
        rows.append(Row(_first(values, FILE_COLUMNS), texts, number))
    if not has_texts:
        return None
    for row in rows:
        if not isinstance(row.file, str) or not row.file:
            raise errors.Refusal(
                f"line {row.line} of {path} names no file: {WRITE_JSON}"
            )
    return rows


def _object(line, where):
    try:
        values = json.loads(line)
        fault = "" if isinstance(values, dict) else f"is {type(values).__name__}"
    except (ValueError, RecursionError) as error:
        fault = str(error) or "too deep"
    if fault:
        raise errors.Refusal(f"{where} is no JSON object ({fault}): {WRITE_JSON}")
    return values


def _first(values: Mapping, names):
    return next((values[name] for name in names if name in values), None)


def _json_texts(value, where):
    texts = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(text, str) for text in texts):
        raise errors.Refusal(
            f'{where} has {value!r:.60} as captions: write "text": "a caption", or a '
            "list of captions"
        )
    cleaned = (captions.cleaned(text, where) for text in texts)
    return tuple(text for text in cleaned if text)


# ---- CSV -----------------------------------------------------------------------------


def _csv_rows(text, path):
    first = next((line for line in captions.LINE.split(text) if line.strip()), "")
    separator = max(SEPARATORS, key=first.count)
    rows = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True
    )
    try:
        numbered = [(rows.line_num, row) for row in rows if any(map(str.strip, row))]
    except csv.Error as error:
        raise errors.Refusal(
            f"line {rows.line_num} of {path} is no CSV ({error}): {WRITE_CSV}"
        ) from error
    header = [cell.strip().lower() for cell in numbered[0][1]] if numbered else []
    of_files, of_texts = (
        next((header.index(name) for name in names if name in header), None)
        for names in (FILE_COLUMNS, TEXT_COLUMNS)
    )
    if of_texts is None:
        return None
    if of_files is None:
        raise errors.Refusal(
            f"{path} begins with {first[:60]!r}, which names no column of files: "
            f"{WRITE_CSV}"
        )
    return [
        _csv_row(row, of_files, of_texts, len(header), number, path)
        for number, row in numbered[1:]
    ]


def _csv_row(row, of_files, of_texts, width, number, path):
    where = f"line {number} of {path}"
    if len(row) != width:
        raise errors.Refusal(
            f"{where} has {len(row)} columns, and the first line {width}: {WRITE_CSV}"
        )
    file = row[of_files].strip()
    if not file:
        raise errors.Refusal(f"{where} names no file: {WRITE_CSV}")
    text = captions.cleaned(row[of_texts], where)
    return Row(file, (text,) if text else (), number)
