"""Where Hydra finds presets beside the lab's own: what a search has written for its study.

``+experiment=<study>_tuned`` is found in ``experiments/<study>/conf`` below the folder in which a
command is typed, as a preset of ``conf/`` is.
"""

from __future__ import annotations

from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

#: The folder of a study that is searched.
STUDY_PRESETS = "conf"


class StudyPresets(SearchPathPlugin):
    """Adds every study's folder of presets to Hydra's search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add those that there are."""
        for folder in sorted(Path("experiments").glob(f"*/{STUDY_PRESETS}")):
            search_path.append("study", f"file://{folder.resolve()}")


def register() -> None:
    """Make Hydra use it; it may be called more than once."""
    Plugins.instance().register(StudyPresets)
