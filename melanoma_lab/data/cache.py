"""The cache folder, and results in it that take long to compute and fit on a page."""

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
from melanoma_lab.core.checksums import hash_text


def get_cache_folder(chosen: str | None) -> Path:
    """The cache folder.

    Args:
        chosen: the key ``cache`` of the configuration; None: the user's cache folder.
    """
    return Path(chosen or platformdirs.user_cache_dir("melanoma_lab")).expanduser()


def load_or_compute_json(folder: Path, question: object, find: Callable[[], Any]) -> Any:
    """The answer to a question, found first where the folder does not have it.

    Of several processes with the same question one finds the answer and the others wait.

    An answer whose file was damaged is found anew.

    Args:
        folder: where answers are kept; made if it is not there.
        question: all that the answer depends on, as JSON can write it.
        find: gives the answer, as JSON can write it.
    """
    key = hash_text(json.dumps(question), 32)
    path = folder / f"{key}.json"
    return load_or_compute(
        path, lambda: read_checksummed_json(path), lambda: write_checksummed_json(path, find())
    )
