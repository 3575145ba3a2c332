"""Tables of text that come with images: comma, semicolon or tab, as a program exported them."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

import pandas as pd

from melanoma_lab.core.errors import UserError, suggest_similar
from melanoma_lab.core.formatting import format_list
from melanoma_lab.data.untrusted_tables import check_table

#: Columns that a message lists at most.
MAX_NAMES: Final = 20
DELIMITERS: Final = ",;\t"
#: The column that ``Table.select`` adds: the line of the file that a row ends on.
LINE_COLUMN: Final = "line"


@dataclass(frozen=True)
class ColumnSpec:
    """A column that is looked for.

    Attributes:
        name: as the table's first line has it.
        key: of the configuration that names the column; empty where the format fixes it.
        required: refuse a table without it.
    """

    name: str
    key: str = ""
    required: bool = True


@dataclass(frozen=True)
class Table:
    """The cells of a table as text, without blanks around them.

    Attributes:
        path: of the file.
        names: of its columns, as the first line has them; not always different ones.
        rows: a list for every filled line, as long as ``names``.
        lines: the line of the file that each row ends on.
    """

    path: Path
    names: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    lines: Sequence[int]

    def values(self, name: str) -> list[str]:
        """Return the cells of a column, the first if several are called so.

        Raises:
            ValueError: there is none of this name.
        """
        place = self.names.index(name)
        return [row[place] for row in self.rows]

    def select(self, columns: Mapping[str, ColumnSpec]) -> pd.DataFrame:
        """Return the columns that are looked for.

        Args:
            columns: what is looked for -> its column.

        Returns:
            str columns, named as in ``columns``, and ``line`` (int). A column that is not there,
            and need not be, is empty.

        Raises:
            UserError: a column that is required is not there, or one is there twice.
        """
        place = {
            what: _find(self.path, column, list(self.names)) if column.name else None
            for what, column in columns.items()
        }
        table = {
            what: [""] * len(self.rows) if at is None else [row[at] for row in self.rows]
            for what, at in place.items()
        }
        return pd.DataFrame(table, dtype=object).assign(**{LINE_COLUMN: list(self.lines)})


def read_table(path: Path, encoding: str = "utf-8") -> Table:
    """Read a table with a line of column names.

    Args:
        path: of the file; cells are divided by commas, semicolons or tabs.
        encoding: of the text, as Python calls it; a byte order mark is understood without it.

    Raises:
        UserError: the file is not there, not text in this encoding, or no table.
    """
    check_table(path)
    (_, names), *entries = _rows(path, encoding) or [(0, [])]
    lines, rows = [line for line, _ in entries], [row for _, row in entries]
    return Table(path, tuple(names), rows, lines)


@contextmanager
def _open_table(path: Path, encoding: str) -> Iterator[TextIO]:
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
    with _open_table(path, encoding) as text:
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


def _find(path: Path, column: ColumnSpec, names: list[str]) -> int | None:
    """The place of a column; None where it is not there and need not be."""
    found = [i for i, name in enumerate(names) if name == column.name]
    if len(found) == 1:
        return found[0]
    key = f" ({column.key})" if column.key else ""
    if found:
        raise UserError(f"{path}: {len(found)} columns are called {column.name}{key}.")
    if not column.required:
        return None
    columns = format_list(list(filter(None, names)), MAX_NAMES) or "no columns"
    advice = suggest_similar(column.name, names)
    advice += f" It has {columns}." if advice else f"It has {columns}."
    if column.key:
        advice += f" Name the right one with {column.key}=..."
    raise UserError(f"{path}: no column {column.name}{key}. {advice}")
