"""Where the lab keeps what it can always make again."""

from __future__ import annotations

from pathlib import Path

import platformdirs


def get_cache_folder(chosen: str | None) -> Path:
    """The cache folder.

    Args:
        chosen: the key ``cache`` of the configuration; None: the user's cache folder.
    """
    return Path(chosen or platformdirs.user_cache_dir("melanoma_lab")).expanduser()
