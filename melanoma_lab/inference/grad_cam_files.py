"""Write Grad-CAM heat maps over images as PNG files, one for each image."""

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
from melanoma_lab.plots.grad_cam import overlay_heat_map
from melanoma_lab.tracking.model_info import NOTICE

#: The text in the metadata of every map; other pictures lack it and are never overwritten.
MARK: Final = "melanoma_lab grad_cam"
#: The mark is within this many first bytes of a map's file.
_BEGINNING: Final = 512


def check_map_folder(typed: str, images: str, found: Iterable[tuple[str, str]]) -> Path:
    """Return the folder for the maps, if writing there replaces nothing but earlier maps.

    Args:
        typed: the value of ``grad_cam``.
        images: the value of ``images``.
        found: (image_id, path) of all images.

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
    """Write the heat map over an image atomically.

    Args:
        path: the path from ``build_map_path``.
        pixels: the image; uint8, shape (s, s, 3).
        heat: the heat map; float32, shape (s, s), 0 to 1.
    """
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
        return MARK.encode() in file.read(_BEGINNING)


def _resolve_prefix(path: Path) -> str:
    """Resolve a path and end it with a separator; the paths of its contents begin with the result.

    Resolving follows symbolic links.
    """
    return os.path.join(os.path.realpath(path), "")  # noqa: PTH118 - pathlib drops the separator
