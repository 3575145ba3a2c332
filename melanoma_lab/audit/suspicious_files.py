"""Find files that can be read but look wrong."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Final

import pandas as pd

from melanoma_lab.data.image_files import IMAGE_FORMATS

#: Smallest side in pixels at which a lesion can be seen.
MIN_SIDE_PIXELS: Final = 32
#: Largest usual ratio between the sides of a photograph.
MAX_ASPECT_RATIO: Final = 3.0


def find_suspicious_files(readable: pd.DataFrame, files: pd.DataFrame) -> list[dict[str, str]]:
    """Find the files that look wrong, with reasons.

    Args:
        readable: table of readable images with the columns image_id and digest, sorted by
            image_id.
        files: table ``files`` of an inspection.

    Returns:
        image_id and reason; a file with several reasons occurs several times.
    """
    facts = files.loc[readable["digest"], ["format", "width", "height", "colours", "constant"]]
    return [
        {"image_id": image_id, "reason": reason}
        for image_id, fact in zip(
            readable["image_id"], facts.itertuples(index=False, name=None), strict=True
        )
        for reason in _reasons(image_id, fact)
    ]


def _reasons(image_id: str, fact: tuple[str, int, int, str, bool]) -> list[str]:
    kind, width, height, colours, constant = fact
    suffix = PurePosixPath(image_id).suffix.lower()
    reasons = []
    expected = IMAGE_FORMATS.get(suffix, kind)
    if kind != expected and (kind, expected) != ("MPO", "JPEG"):  # a JPEG of several pictures
        reasons.append(f"holds {kind}, not what {suffix} says")
    if min(width, height) < MIN_SIDE_PIXELS:
        reasons.append(f"tiny: {width}x{height} pixels")
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        reasons.append(f"extreme shape: {width}x{height} pixels")
    if colours:
        reasons.append(colours)
    if constant:
        reasons.append("a single colour")
    return reasons
