"""Files that ``predict`` writes: the table of predictions row by row, and Grad-CAM maps.

Rows of CSV, JSON or JSON lines go to ``<output>.part``, which is renamed only when it is complete.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from melanoma_lab.core.errors import UserError
from melanoma_lab.core.files import replace_file
from melanoma_lab.core.formatting import truncate
from melanoma_lab.plots.grad_cam import overlay_heat_map
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
#: The text in the metadata of every map; other pictures lack it and are never overwritten.
MARK: Final = "melanoma_lab grad_cam"
#: The mark is within this many first bytes of a map's file.
_MARK_WITHIN: Final = 512


def check_output_file(typed: str | None) -> Path:
    """Return the file that ``output`` names, or the default; an earlier result will be replaced.

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

    If the block fails or is interrupted, the rows so far stay in ``<output>.part``. ``facts`` are
    the head of a JSON file, before the rows.
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
            first, next_one = ("\n", ",\n") if self._kind == ".json" else ("", "\n")
            for number, row in enumerate(rows, start=self.n_rows):
                values = zip(columns, row, strict=True)
                pairs = ", ".join(f"{_format_json(k)}: {_format_json(v)}" for k, v in values)
                self._file.write((next_one if number else first) + "{" + pairs + "}")
        self.n_rows += len(rows)

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


def check_map_folder(typed: str, images: str, found: Iterable[tuple[str, str]]) -> Path:
    """Return the folder for the maps, if writing there replaces nothing but earlier maps.

    ``typed`` and ``images`` are the values of the keys ``grad_cam`` and ``images``; ``found`` has
    (image_id, path) of all images.

    Raises:
        UserError: the path is a file, the maps would be among the images, or a file exists that is
            no map.
    """
    folder = Path(typed).expanduser()
    typed_folder = f"grad_cam={truncate(typed)}"
    if folder.exists() and not folder.is_dir():
        raise UserError(
            f"{typed_folder}: this is a file; name a folder, which is created if it does not exist."
        )
    inside = _resolve_prefix(folder)
    images_path = Path(images).expanduser()
    if images_path.is_dir() and inside.startswith(_resolve_prefix(images_path)):
        raise UserError(
            f"{typed_folder}: lies in images={truncate(images)}, where the maps would be read as "
            "images the next time; name a folder outside it."
        )
    for image_id, path in found:
        if _resolve_prefix(Path(path)).startswith(inside):
            raise UserError(
                f"{typed_folder}: contains images that are to be predicted; name another folder."
            )
        map_path = build_map_path(folder, image_id)
        if map_path.exists() and not _is_map(map_path):
            raise UserError(
                f"{typed_folder}: {truncate(map_path)} exists already and is not a map written "
                "by predict; choose another folder."
            )
    return folder


def build_map_path(folder: Path, image_id: str) -> Path:
    """Build the path of an image's map: ``a/b.jpg.png`` for ``a/b.jpg``, always in the folder."""
    parts = [part for part in PurePosixPath(image_id).parts if part not in {"/", "//", ".."}]
    return folder.joinpath(*parts[:-1], f"{parts[-1]}.png")


def write_map(path: Path, pixels: NDArray[np.uint8], heat: NDArray[np.float32]) -> None:
    """Write the heat map, float32 (s, s), 0 to 1, over an image, uint8 (s, s, 3), atomically."""
    metadata = PngInfo()
    metadata.add_text("Software", MARK)
    metadata.add_text("Comment", NOTICE)
    stream = io.BytesIO()
    Image.fromarray(overlay_heat_map(pixels, heat)).save(stream, "PNG", pnginfo=metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, stream.getvalue())


def _is_map(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return MARK.encode() in file.read(_MARK_WITHIN)


def _resolve_prefix(path: Path) -> str:
    """Resolve a path and end it with a separator; the paths of its contents begin with the result.

    Resolving follows symbolic links.
    """
    return os.path.join(os.path.realpath(path), "")  # noqa: PTH118 - pathlib drops the separator
