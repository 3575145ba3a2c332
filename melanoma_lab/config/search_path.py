"""Where Hydra finds presets beside the lab's own: what a search has written for its study.

``+experiment=<study>_tuned`` is found in ``experiments/<study>/conf`` below the folder in which a
command is typed, as a preset of ``conf/`` is.
"""

from __future__ import annotations

from functools import cache, wraps
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin

from melanoma_lab.core.untrusted_files import check_yaml_file

#: The folder of a study that is searched.
STUDY_PRESETS = "conf"


class StudyPresets(SearchPathPlugin):
    """Adds every study's folder of presets to Hydra's search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add those that there are."""
        for folder in sorted(Path("experiments").glob(f"*/{STUDY_PRESETS}")):
            search_path.append("study", f"file://{folder.resolve()}")


def register() -> None:
    """Make Hydra use it, and read no file that is a bomb; it may be called more than once."""
    Plugins.instance().register(StudyPresets)
    _check_config_files()


@cache
def _check_config_files() -> None:
    """Check every file that Hydra is about to read: it writes out what YAML's aliases stand for.

    Hydra takes no other source for files in the place of its own, so that gets a check in front.
    """
    sources = [s for s in Plugins.instance().discover(ConfigSource) if issubclass(s, ConfigSource)]
    source = next(s for s in sources if s.scheme() == "file")
    read = source.load_config

    @wraps(read)
    def load_config(self: ConfigSource, config_path: str) -> ConfigResult:
        name = config_path if config_path.endswith(".yaml") else f"{config_path}.yaml"
        path = Path(self.path, name)
        if path.is_file():  # where it is not, Hydra says so better
            check_yaml_file(path)
        return read(self, config_path)

    source.load_config = load_config  # type: ignore[method-assign]
