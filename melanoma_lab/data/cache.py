"""The cache folder, and small results in it that take long to compute."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import platformdirs

from melanoma_lab.core.checksummed_files import (
    load_or_compute,
    read_checksummed_json,
    write_checksummed_json,
)
from melanoma_lab.core.files import hash_text


def get_cache_folder(chosen: str | None) -> Path:
    """Return the cache folder.

    Args:
        chosen: value of the key ``cache``; None: the user's cache folder.
    """
    return Path(chosen or platformdirs.user_cache_dir("melanoma_lab")).expanduser()


def load_or_compute_json(folder: Path, question: object, find: Callable[[], Any]) -> Any:
    """Load a result from the cache, or compute and store it.

    A result whose file is damaged is computed again. If several processes need the same result,
    one computes it and the others wait.

    Args:
        folder: folder of the results; it is made if it is missing.
        question: everything that the result depends on, as JSON can represent it.
        find: computes the result, as JSON can represent it.

    Returns:
        The result.
    """
    key = hash_text(json.dumps(question), 32)
    path = folder / f"{key}.json"
    return load_or_compute(
        path, lambda: read_checksummed_json(path), lambda: write_checksummed_json(path, find())
    )
