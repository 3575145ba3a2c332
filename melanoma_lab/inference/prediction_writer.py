"""Write predictions to a file row by row: CSV, JSON or JSON lines.

Rows go to ``<output>.part``, which is renamed only when it is complete.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from melanoma_lab.core.errors import UserError
from melanoma_lab.core.formatting import truncate
from melanoma_lab.tracking.logged_model import NOTICE

#: Column -> a value for each image: float32, integers, booleans or texts.
Columns = Mapping[str, Sequence[Any] | np.ndarray[Any, Any]]

DEFAULT_FILE: Final = "predictions.csv"
#: Suffix -> the first bytes of such a file, by which earlier results are recognised.
_BEGINNINGS: Final = {
    ".csv": b"image_id,predicted,probability,",
    ".json": b'{\n"notice": ',
    ".jsonl": b'{"image_id": ',
}


def check_output_file(typed: str | None) -> Path:
    """Return the path of the file to write; an earlier result of ``predict`` will be replaced.

    Args:
        typed: the value of ``output``; None for the default file.

    Raises:
        UserError: the suffix is unknown, the folder does not exist, or another file exists.
    """
    path = Path(typed or DEFAULT_FILE).expanduser()
    typed_output = f"output={truncate(path)}"
    beginning = _BEGINNINGS.get(path.suffix.lower())
    if beginning is None:
        raise UserError(f"{typed_output}: expected a name that ends in .csv, .json or .jsonl.")
    if not path.parent.is_dir():
        raise UserError(f"{typed_output}: no such folder: {path.parent}.")
    if path.is_dir():
        raise UserError(f"{typed_output}: this is a folder; name a file in it.")
    if path.exists():
        with path.open("rb") as file:
            existing = file.read(len(beginning))
        if existing and existing != beginning:
            raise UserError(
                f"{typed_output}: exists already and is not a result of predict; choose another "
                "name."
            )
    return path


def build_unreadable_path(output: Path) -> Path:
    """Build the path of the list of unreadable files, in the folder of the predictions."""
    return output.with_name(f"{output.stem}.unreadable.csv")


@contextmanager
def open_writer(output: Path, facts: Mapping[str, Any]) -> Iterator[PredictionWriter]:
    """Yield a writer of predictions; at the end of the block the complete file gets its name.

    If the block fails or is interrupted, the rows so far stay in ``<output>.part``.

    Args:
        output: the path from ``check_output_file``.
        facts: key -> value of the head of a JSON file, before the rows.
    """
    partial = output.with_name(f"{output.name}.part")
    listed = build_unreadable_path(output)
    with partial.open("w", encoding="utf-8", newline="") as file:
        writer = PredictionWriter(file, output.suffix.lower(), facts, listed)
        try:
            yield writer
            writer.close()
        except BaseException:
            if writer.n_rows == 0:
                partial.unlink()
            raise
        finally:
            writer.close_list()
    if writer.n_rows:
        partial.replace(output)
    else:
        partial.unlink()
    if not writer.n_unreadable:
        listed.unlink(missing_ok=True)  # left by an earlier prediction


class PredictionWriter:
    """Writes rows to an open file.

    Args:
        file: the file to write to.
        kind: the suffix: ``.csv``, ``.json`` or ``.jsonl``.
        facts: key -> value of the head of a JSON file, after the notice and before the rows.
        listed: the path of the list of unreadable files; created if there are any.

    Attributes:
        n_rows: the number of rows written so far.
        n_unreadable: the number of unreadable files listed so far.
    """

    def __init__(self, file: IO[str], kind: str, facts: Mapping[str, Any], listed: Path) -> None:
        self._file, self._kind, self._listed = file, kind, listed
        self._list: IO[str] | None = None
        self.n_rows = self.n_unreadable = 0
        if kind == ".json":
            head = {"notice": NOTICE, **facts}
            file.write(
                "{\n" + "".join(f"{_format_json(k)}: {_format_json(v)},\n" for k, v in head.items())
            )
            file.write('"predictions": [')

    def write(self, columns: Columns) -> None:
        """Write rows; all calls must have the same columns."""
        rows = list(zip(*columns.values(), strict=True))
        if self._kind == ".csv":
            table = _create_csv_writer(self._file)
            if self.n_rows == 0:
                table.writerow(columns)
            table.writerows(rows)
        else:
            for number, row in enumerate(rows, start=self.n_rows):
                pairs = (
                    f"{_format_json(k)}: {_format_json(v)}"
                    for k, v in zip(columns, row, strict=True)
                )
                self._file.write(self._get_separator(number) + "{" + ", ".join(pairs) + "}")
        self.n_rows += len(rows)

    def _get_separator(self, number: int) -> str:
        """Return the separator before a row, counted from 0."""
        if self._kind == ".json":
            return ",\n" if number else "\n"
        return "\n" if number else ""

    def list_unreadable(self, files: Sequence[tuple[str, str]]) -> None:
        """List files that cannot be read, as (image_id, reason)."""
        if not files:
            return
        if self._list is None:
            self._list = self._listed.open("w", encoding="utf-8", newline="")
            _create_csv_writer(self._list).writerow(["image_id", "reason"])
        _create_csv_writer(self._list).writerows(files)
        self.n_unreadable += len(files)

    def close(self) -> None:
        """Write the end of the file after the last row."""
        self._file.write({".csv": "", ".json": "\n]\n}\n", ".jsonl": "\n"}[self._kind])

    def close_list(self) -> None:
        """Close the list of unreadable files."""
        if self._list is not None:
            self._list.close()


def _create_csv_writer(file: IO[str]) -> Any:
    """Create a CSV writer, which writes a float32 with the fewest digits that identify it."""
    return csv.writer(file, lineterminator="\n")


def _format_json(value: Any) -> str:
    """Format a value as JSON, a float32 with the fewest digits that identify it."""
    if isinstance(value, np.floating):
        return str(value) if np.isfinite(value) else "null"
    return json.dumps(value.item() if isinstance(value, np.generic) else value, ensure_ascii=False)
