"""Tables of text that come with images: comma, semicolon or tab, as a program exported them."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

import pandas as pd

from melanoma_lab.data.table_files import check_table
from melanoma_lab.errors import UserError, nearest

DELIMITERS: Final = ",;\t"
#: The column that ``read_table`` adds: the line of the file that a row ends on.
LINE: Final = "line"


@dataclass(frozen=True)
class Column:
    """A column that is looked for.

    Attributes:
        name: as the table's first line has it.
        key: of the configuration that names the column; empty where the format fixes it.
        required: refuse a table without it.
    """

    name: str
    key: str = ""
    required: bool = True


def read_table(path: Path, columns: Mapping[str, Column], encoding: str = "utf-8") -> pd.DataFrame:
    """Read the columns that are looked for.

    Args:
        path: a table with a line of column names.
        columns: what is looked for -> its column.
        encoding: of the text, as Python calls it; a byte order mark is understood without it.

    Returns:
        str columns, named as in ``columns``, and ``line`` (int). Blanks around a value are taken
        off; a column that is not there, and need not be, is empty.

    Raises:
        UserError: the file is not there, not text in this encoding, or no table; or it lacks a
            column.
    """
    check_table(path)
    rows = _rows(path, encoding)
    names, *entries = rows or [(0, [])]
    place = {
        what: _find(path, column, names[1]) if column.name else None
        for what, column in columns.items()
    }
    table = {
        what: ["" if at is None else row[at] for _, row in entries] for what, at in place.items()
    }
    return pd.DataFrame(table, dtype=object).assign(**{LINE: [line for line, _ in entries]})


@contextmanager
def _opened(path: Path, encoding: str) -> Iterator[TextIO]:
    """A table that is read in the block, line by line: a cell that never ends must not fill memory.

    Raises:
        UserError: the file is not there, or not text in this encoding.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(codecs.BOM_UTF8))
        if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            encoding = "utf-16"
        elif start == codecs.BOM_UTF8:
            encoding = "utf-8-sig"
        with path.open(encoding=encoding, newline="") as text:
            yield text
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
    except (UnicodeError, LookupError) as error:
        raise UserError(
            f"{path}: not a text in {encoding} ({error}). Set dataset.encoding, for example to "
            "latin-1 or cp1252 (dataset=csv), or save the table as UTF-8."
        ) from error


def _rows(path: Path, encoding: str) -> list[tuple[int, list[str]]]:
    """The filled lines of a table, each with its number; all of them as long as the first."""
    rows: list[tuple[int, list[str]]] = []
    with _opened(path, encoding) as text:
        first = text.readline()
        delimiter = max(DELIMITERS, key=first.count)  # the first of equally frequent ones
        text.seek(0)
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        try:
            for entry in reader:
                cells = [cell.strip() for cell in entry]
                if any(cells):
                    rows.append((reader.line_num, cells))
        except csv.Error as error:
            raise UserError(f"{path}: line {reader.line_num} cannot be read ({error}).") from error
    width = len(rows[0][1]) if rows else 0
    for line, row in rows:
        if len(row) != width:
            raise UserError(
                f"{path}: line {line} has {len(row)} cells; expected {width}, as the first line."
            )
    return rows


def _find(path: Path, column: Column, names: list[str]) -> int | None:
    """The place of a column; None where it is not there and need not be."""
    found = [i for i, name in enumerate(names) if name == column.name]
    if len(found) == 1:
        return found[0]
    key = f" ({column.key})" if column.key else ""
    if found:
        raise UserError(f"{path}: {len(found)} columns are called {column.name}{key}.")
    if not column.required:
        return None
    columns = ", ".join(filter(None, names)) or "no columns"
    advice = nearest(column.name, names)
    advice = advice if advice.startswith("Did you mean") else ""
    advice += f" It has {columns}." if advice else f"It has {columns}."
    if column.key:
        advice += f" Name the right one with {column.key}=..."
    raise UserError(f"{path}: no column {column.name}{key}. {advice}")
