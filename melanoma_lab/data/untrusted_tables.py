"""Check the size of tables from elsewhere before reading them.

A table of two-letter cells takes thirty times its length in memory, and an endless line fills all
memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import pandas as pd

from melanoma_lab.core.errors import UserError
from melanoma_lab.core.formatting import truncate

#: Largest size in bytes of a table, and of one of its lines.
MAX_TABLE_BYTES: Final = 2**30
MAX_LINE_BYTES: Final = 2**20
#: Largest number of cells of a table: 500,000 rows of 40 columns.
MAX_CELLS: Final = 20_000_000
MAX_COLUMNS: Final = 10_000
#: Largest size in bytes of a run's table, which pandas loads into memory: 1,000,000 images.
MAX_MANIFEST_BYTES: Final = 2**28
_DELIMITERS: Final = (b",", b";", b"\t")
_CHUNK: Final = 2**20


def check_table(path: Path, limit: int = MAX_TABLE_BYTES) -> None:
    """Refuse a table of text that would take gigabytes of memory, before it is read.

    Args:
        path: the file; its cells are separated by commas, semicolons or tabs.
        limit: largest size in bytes.

    Raises:
        UserError: there is no such file, or the file, one of its lines, or the number of its cells
            or columns is too large.
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

    Args:
        path: a ``manifest.csv``.

    Raises:
        UserError: the file cannot be read, is too large, or is not a table.
    """
    check_table(path, MAX_MANIFEST_BYTES)
    try:
        manifest = pd.read_csv(path, dtype=str, keep_default_na=False)
        ages = {"age": pd.to_numeric(manifest["age"])} if "age" in manifest else {}
        return manifest.assign(**ages)
    except ValueError as error:  # includes pandas's own errors and those of the encoding
        why = truncate(next(iter(str(error).strip().splitlines()), "damaged"))
        raise UserError(f"{path}: expected a table of text. Received: {why}") from error
