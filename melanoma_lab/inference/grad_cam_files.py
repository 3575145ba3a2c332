"""Maps of where a network looked, one over each image, as PNG files in a folder."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from melanoma_lab.core.atomic_files import replace_file
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.formatting import truncate
from melanoma_lab.plots.heat_map_overlay import overlay_heat_map
from melanoma_lab.tracking.model_info import NOTICE

#: What tells an earlier result from somebody's own picture; it stands in the first of its bytes.
MARK: Final = "melanoma_lab grad_cam"
_BEGINNING: Final = 512


def check_map_folder(typed: str, images: str, found: Iterable[tuple[str, str]]) -> Path:
    """The folder for the maps; an earlier result's will be replaced, and no other file.

    Args:
        typed: as typed.
        images: what ``images=`` names, as typed.
        found: (image_id, path) of all images.

    Raises:
        UserError: it is no folder, its files would be among the images, or one of them is there
            already and is no map.
    """
    folder = Path(typed).expanduser()
    said = f"grad_cam={truncate(typed)}"
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{said}: this is a file; name a folder, which is made where it is not.")
    inside = _absolute(folder)
    asked = Path(images).expanduser()
    if asked.is_dir() and inside.startswith(_absolute(asked)):
        raise UserError(
            f"{said}: lies in images={truncate(images)}, where the maps would be taken for images "
            "the next time; name a folder outside it."
        )
    for image_id, path in found:
        if _absolute(Path(path)).startswith(inside):
            raise UserError(f"{said}: has images in it that are asked for; name another folder.")
        place = build_map_path(folder, image_id)
        if place.exists() and not _is_map(place):
            raise UserError(
                f"{said}: {truncate(place)} is there already and is no map of predict; choose "
                "another folder."
            )
    return folder


def build_map_path(folder: Path, image_id: str) -> Path:
    """Where an image's map is written: ``a/b.jpg.png`` of ``a/b.jpg``, always in the folder."""
    parts = [part for part in PurePosixPath(image_id).parts if part not in {"/", "//", ".."}]
    return folder.joinpath(*parts[:-1], f"{parts[-1]}.png")


def write_map(path: Path, pixels: NDArray[np.uint8], heat: NDArray[np.float32]) -> None:
    """Write the map over an image, whole or not at all.

    Args:
        path: as ``build_map_path`` gives it.
        pixels: uint8, shape (s, s, 3).
        heat: float32, shape (s, s), 0 to 1.
    """
    facts = PngInfo()
    facts.add_text("Software", MARK)
    facts.add_text("Comment", NOTICE)
    stream = io.BytesIO()
    Image.fromarray(overlay_heat_map(pixels, heat)).save(stream, "PNG", pnginfo=facts)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, stream.getvalue())


def _is_map(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return MARK.encode() in file.read(_BEGINNING)


def _absolute(path: Path) -> str:
    """A path with links followed, ended so that it begins those of what lies in it."""
    return os.path.join(os.path.realpath(path), "")  # noqa: PTH118 - pathlib drops the separator
