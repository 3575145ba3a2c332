"""Read tables of text that come with images, separated by commas, semicolons or tabs.

Their size is checked before they are read: a table of two-letter cells takes thirty times its
length in memory, and an endless line fills all memory.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

import pandas as pd

from melanoma_lab.core.errors import UserError, get_first_line, suggest_similar
from melanoma_lab.core.formatting import format_list, truncate

#: Largest number of columns that a message lists.
MAX_NAMES: Final = 20
DELIMITERS: Final = ",;\t"
#: The column that ``Table.select`` adds: the last line of each row in the file.
LINE_COLUMN: Final = "line"
#: Largest size in bytes of a table, and of one of its lines.
MAX_TABLE_BYTES: Final = 2**30
MAX_LINE_BYTES: Final = 2**20
#: Largest number of cells of a table: 500,000 rows of 40 columns.
MAX_CELLS: Final = 20_000_000
MAX_COLUMNS: Final = 10_000
#: Largest size in bytes of a run's table, which pandas loads into memory: 1,000,000 images.
MAX_MANIFEST_BYTES: Final = 2**28
_DELIMITERS: Final = tuple(mark.encode() for mark in DELIMITERS)
_CHUNK: Final = 2**20


@dataclass(frozen=True)
class ColumnSpec:
    """A column to select from a table.

    Attributes:
        name: name of the column in the table's first line.
        key: key of the configuration that names the column; empty if the format fixes it.
        required: whether to refuse a table without the column.
    """

    name: str
    key: str = ""
    required: bool = True


@dataclass(frozen=True)
class Table:
    """The cells of a table as text, without surrounding spaces.

    Attributes:
        names: names of the columns in the first line; names may occur twice.
        rows: cells of every row that is not empty; each row is as long as ``names``.
        lines: the number of the last line of each row in the file.
    """

    path: Path
    names: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    lines: Sequence[int]

    def values(self, name: str) -> list[str]:
        """Return the cells of a column; of the first one if several have this name."""
        place = self.names.index(name)
        return [row[place] for row in self.rows]

    def select(self, columns: Mapping[str, ColumnSpec]) -> pd.DataFrame:
        """Select columns and rename them.

        Args:
            columns: new name -> the column of the table.

        Returns:
            A table of str columns, named as in ``columns``, and ``line`` (int). A missing column
            that is not required is empty.

        Raises:
            UserError: a required column is missing, or a column occurs twice.
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
        path: the file; its cells are separated by commas, semicolons or tabs.
        encoding: Python's name of the text's encoding; a byte order mark overrides it.

    Raises:
        UserError: the file is missing, not text in this encoding, or not a table.
    """
    check_table(path)
    (_, names), *entries = _rows(path, encoding) or [(0, [])]
    lines, rows = [line for line, _ in entries], [row for _, row in entries]
    return Table(path, tuple(names), rows, lines)


@contextmanager
def _open_table(path: Path, encoding: str) -> Iterator[TextIO]:
    """Open a table as text; turn errors of reading it in the block into a UserError."""
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
    """Read the rows of a table that are not empty, with their line numbers."""
    rows: list[tuple[int, list[str]]] = []
    with _open_table(path, encoding) as text:
        first = text.readline()
        delimiter = max(DELIMITERS, key=first.count)  # the first one if equally frequent
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
    """Return the index of a column; None if it is missing and not required."""
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


def check_table(path: Path, limit: int = MAX_TABLE_BYTES) -> None:
    """Refuse a table of text that would take gigabytes of memory, before it is read.

    Raises:
        UserError: there is no such file, it has more than ``limit`` bytes, or one of its lines or
            the number of its cells or columns is too large.
    """
    try:
        if not path.is_file():  # a pipe would never end
            raise UserError(f"{path}: no such file.")
        if path.stat().st_size > limit:
            raise UserError(f"{path}: expected a table of at most {limit >> 20:,} MiB.")
        with path.open("rb") as file:
            _check_cells(iter(lambda: file.read(_CHUNK), b""))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except ValueError as error:
        raise UserError(f"{path}: expected a table of text. Received {error}.") from error


def _check_cells(chunks: Iterable[bytes]) -> None:
    cells = line = columns = 0
    in_first = True
    for chunk in chunks:
        pieces = chunk.replace(b"\r", b"\n").split(b"\n")
        if in_first:
            columns += max(map(pieces[0].count, _DELIMITERS))
            in_first = len(pieces) == 1
        if max(line + len(pieces[0]), *map(len, pieces)) > MAX_LINE_BYTES:
            raise ValueError(f"a line of more than {MAX_LINE_BYTES >> 20} MiB")
        line = len(pieces[-1]) + (line if len(pieces) == 1 else 0)
        cells += len(pieces) - 1 + sum(map(chunk.count, _DELIMITERS))
        if cells > MAX_CELLS:
            raise ValueError(f"more than {MAX_CELLS:,} cells")
        if columns >= MAX_COLUMNS:
            raise ValueError(f"more than {MAX_COLUMNS:,} columns")


def read_manifest(path: Path) -> pd.DataFrame:
    """Read a run's table of images; cells are texts, but ages are numbers, NaN if missing.

    Raises:
        UserError: the file cannot be read, is too large, or is not a table.
    """
    check_table(path, MAX_MANIFEST_BYTES)
    try:
        manifest = pd.read_csv(path, dtype=str, keep_default_na=False)
        ages = {"age": pd.to_numeric(manifest["age"])} if "age" in manifest else {}
        return manifest.assign(**ages)
    except ValueError as error:  # includes pandas's own errors and those of the encoding
        why = truncate(get_first_line(error))
        raise UserError(f"{path}: expected a table of text. Received: {why}") from error
