"""Tables of files and their captions: lines of JSON, and CSV with a header."""

import csv
import io
import json
import posixpath
from collections.abc import Callable, Mapping
from typing import NamedTuple

from ddpm_jax.core import errors
from ddpm_jax.data import captions, tables

# The first of these that a row has; "file_name" and "text" are the usual ones.
FILE_COLUMNS = (
    *("file_name", "file", "filename", "path", "file_path", "filepath"),
    *("image", "image_name", "image_path", "img"),
)
TEXT_COLUMNS = ("text", "caption", "captions", "texts", "prompt", "description")
SEPARATORS = ",;\t"
NAMED = 3
JSON_LINES = ".jsonl"
WRITE_JSON = 'write {"file_name": "photo.png", "text": "a caption"} on each line'
WRITE_CSV = "write a first line file_name,text and captions with commas in quotes"


class Row(NamedTuple):
    """What a table says of a file.

    Attributes:
        file: as it is written.
        texts: its captions.
        where: the line, for messages.
        once: whether no other row may name the file.
    """

    file: str
    texts: tuple[str, ...]
    where: str
    once: bool


def read(data: bytes, path: str) -> list[Row] | None:
    """Return the rows of a table; None if it has no column of captions.

    Args:
        data: its content.
        path: of it, for messages; its ending tells what it is.

    Raises:
        Refusal: no such table.
    """
    text = captions.decoded(data, path)
    rows = _json_rows if path.lower().endswith(JSON_LINES) else _csv_rows
    return rows(text, path)


def assign(
    rows: list[Row], find: tables.Finder, root: str, place: Callable[[str], str]
) -> dict[str, tuple[str, ...]]:
    """Return {image: its captions}; a row without text gives an image ().

    Args:
        rows: of one table.
        find: finds the images.
        root: where these lie, for messages.
        place: what is written → path below the root.

    Raises:
        Refusal: rows of files outside the folder, of none that are there, or two lines
            of JSON of the same file.
    """
    found, lines, unknown = {}, {}, []
    for row in rows:
        written = row.file.replace("\\", "/")
        path = posixpath.normpath(place(written))
        if written.startswith("/") or written[1:2] == ":" or path.split("/")[0] == "..":
            raise errors.Refusal(
                f"{row.where} names {row.file!r}, which is outside of {root}: write "
                "paths relative to the folder of the table, without '..'"
            )
        if not find.knows(path):
            unknown.append(row)
            continue
        image = find(path)
        if row.once and image in found:
            raise errors.Refusal(
                f"{row.where} names {image}, as {lines[image]} does: keep one of them, "
                'with several captions as a list, "text": ["one", "another"]'
            )
        lines[image] = row.where
        found[image] = (*found.get(image, ()), *row.texts)
    if unknown:
        listed = ", ".join(row.file for row in unknown[:NAMED])
        raise errors.Refusal(
            f"{unknown[0].where} names a file that is no image of {root}; such lines "
            f"are {len(unknown):,} ({listed}{', …' * (len(unknown) > NAMED)}): correct "
            "the names, which are relative to the folder of the table, or take the "
            "lines out"
        )
    return found


# ---- lines of JSON -------------------------------------------------------------------


def _json_rows(text, path):
    lines = enumerate(captions.LINE.split(text), start=1)
    rows = [
        (f"line {number} of {path}", _object(line, f"line {number} of {path}"))
        for number, line in lines
        if line.strip()
    ]
    if not any(name in values for _, values in rows for name in TEXT_COLUMNS):
        return None
    return [_json_row(where, values) for where, values in rows]


def _json_row(where, values):
    file = _first(values, FILE_COLUMNS)
    if not isinstance(file, str) or not file:
        raise errors.Refusal(f"{where} names no file: {WRITE_JSON}")
    return Row(file, _json_texts(_first(values, TEXT_COLUMNS), where), where, once=True)


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
        _csv_row(row, of_files, of_texts, len(header), f"line {number} of {path}")
        for number, row in numbered[1:]
    ]


def _csv_row(row, of_files, of_texts, width, where):
    if len(row) != width:
        raise errors.Refusal(
            f"{where} has {len(row)} columns, and the first line {width}: {WRITE_CSV}"
        )
    file = row[of_files].strip()
    if not file:
        raise errors.Refusal(f"{where} names no file: {WRITE_CSV}")
    text = captions.cleaned(row[of_texts], where)
    return Row(file, (text,) if text else (), where, once=False)
