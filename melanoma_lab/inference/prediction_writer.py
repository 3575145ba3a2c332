"""Predictions on their way to a file, row by row: CSV, JSON or JSON lines.

What is not complete never has the name that was asked for: rows go to ``<output>.part``.
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
from melanoma_lab.tracking.model_info import NOTICE

#: Column -> as many values as there are images. Numbers are float32, text, whole or true.
Columns = Mapping[str, Sequence[Any] | np.ndarray[Any, Any]]

DEFAULT_FILE: Final = "predictions.csv"
#: How the files begin, by which an earlier result is told from somebody's own.
_BEGINNINGS: Final = {
    ".csv": b"image_id,predicted,probability,",
    ".json": b'{\n"notice": ',
    ".jsonl": b'{"image_id": ',
}


def check_output_file(typed: str | None) -> Path:
    """The file to write; an earlier result of ``predict`` may be there, and will be replaced.

    Raises:
        UserError: its name says no format, its folder is not there, or it is another file.
    """
    path = Path(typed or DEFAULT_FILE).expanduser()
    said = f"output={truncate(path)}"
    beginning = _BEGINNINGS.get(path.suffix.lower())
    if beginning is None:
        raise UserError(f"{said}: expected a name that ends in .csv, .json or .jsonl.")
    if not path.parent.is_dir():
        raise UserError(f"{said}: no such folder: {path.parent}.")
    if path.is_dir():
        raise UserError(f"{said}: this is a folder; name a file in it.")
    if path.exists():
        with path.open("rb") as file:
            there = file.read(len(beginning))
        if there and there != beginning:
            raise UserError(
                f"{said}: is there already and is no result of predict; choose another name."
            )
    return path


def build_unreadable_path(output: Path) -> Path:
    """The file that lists what could not be read, beside the predictions."""
    return output.with_name(f"{output.stem}.unreadable.csv")


@contextmanager
def open_writer(output: Path, facts: Mapping[str, Any]) -> Iterator[PredictionWriter]:
    """Write predictions in the block; the file appears when it is complete, replacing another.

    What an interrupted or failed block has written stays in ``<output>.part``.

    Args:
        output: as ``check_output_file`` gives it.
        facts: what a JSON file says before the rows.
    """
    part = output.with_name(f"{output.name}.part")
    listed = build_unreadable_path(output)
    with part.open("w", encoding="utf-8", newline="") as file:
        writer = PredictionWriter(file, output.suffix.lower(), facts, listed)
        try:
            yield writer
            writer.close()
        except BaseException:
            if writer.n_rows == 0:
                part.unlink()
            raise
        finally:
            writer.close_list()
    if writer.n_rows:
        part.replace(output)
    else:
        part.unlink()
    if not writer.n_unreadable:
        listed.unlink(missing_ok=True)  # an earlier result's


class PredictionWriter:
    """Rows into an open file.

    Args:
        file: to write.
        kind: ``.csv``, ``.json`` or ``.jsonl``.
        facts: what a JSON file says before the rows, after the notice.
        listed: the file for what cannot be read; made when there is something.

    Attributes:
        n_rows: written so far.
        n_unreadable: listed so far.
    """

    def __init__(self, file: IO[str], kind: str, facts: Mapping[str, Any], listed: Path) -> None:
        self._file, self._kind, self._listed = file, kind, listed
        self._list: IO[str] | None = None
        self.n_rows = self.n_unreadable = 0
        if kind == ".json":
            said = {"notice": NOTICE, **facts}
            file.write("{\n" + "".join(f"{_json(k)}: {_json(v)},\n" for k, v in said.items()))
            file.write('"predictions": [')

    def write(self, columns: Columns) -> None:
        """Write some rows, all with the same columns."""
        rows = list(zip(*columns.values(), strict=True))
        if self._kind == ".csv":
            table = _table(self._file)
            if self.n_rows == 0:
                table.writerow(columns)
            table.writerows(rows)
        else:
            for number, row in enumerate(rows, start=self.n_rows):
                pairs = (f"{_json(k)}: {_json(v)}" for k, v in zip(columns, row, strict=True))
                self._file.write(self._between(number) + "{" + ", ".join(pairs) + "}")
        self.n_rows += len(rows)

    def _between(self, number: int) -> str:
        """What comes before a row, counted from 0."""
        if self._kind == ".json":
            return ",\n" if number else "\n"
        return "\n" if number else ""

    def list_unreadable(self, files: Sequence[tuple[str, str]]) -> None:
        """List files that cannot be read, as (image_id, reason)."""
        if not files:
            return
        if self._list is None:
            self._list = self._listed.open("w", encoding="utf-8", newline="")
            _table(self._list).writerow(["image_id", "reason"])
        _table(self._list).writerows(files)
        self.n_unreadable += len(files)

    def close(self) -> None:
        """Write what comes after the last row."""
        self._file.write({".csv": "", ".json": "\n]\n}\n", ".jsonl": "\n"}[self._kind])

    def close_list(self) -> None:
        """No more files will be listed."""
        if self._list is not None:
            self._list.close()


def _table(file: IO[str]) -> Any:
    """A CSV writer; of a float32 it writes the fewest digits that identify it."""
    return csv.writer(file, lineterminator="\n")


def _json(value: Any) -> str:
    """JSON, with a float32 in the fewest digits that identify it."""
    if isinstance(value, np.floating):
        return str(value) if np.isfinite(value) else "null"
    return json.dumps(value.item() if isinstance(value, np.generic) else value, ensure_ascii=False)
