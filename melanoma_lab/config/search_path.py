"""Hydra's search path for the presets that hyperparameter searches write.

``+experiment=<study>_tuned`` is found in ``experiments/<study>/conf`` below the current folder,
in the same way as a preset of ``conf/``.
"""

from __future__ import annotations

from functools import cache, wraps
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin

from melanoma_lab.core.untrusted_files import check_yaml_file

#: Subfolder of a study that contains its presets.
STUDY_PRESETS = "conf"


class StudyPresets(SearchPathPlugin):
    """Plugin that adds every study's folder of presets to Hydra's search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the folders that exist."""
        for folder in sorted(Path("experiments").glob(f"*/{STUDY_PRESETS}")):
            search_path.append("study", f"file://{folder.resolve()}")


def register() -> None:
    """Register the plugin, and make Hydra check each file before reading it.

    Further calls change nothing.
    """
    Plugins.instance().register(StudyPresets)
    _check_config_files()


@cache
def _check_config_files() -> None:
    """Make Hydra refuse YAML files whose aliases would expand to gigabytes.

    Hydra's source of files cannot be replaced by another, so its method is wrapped.
    """
    sources = [s for s in Plugins.instance().discover(ConfigSource) if issubclass(s, ConfigSource)]
    source = next(s for s in sources if s.scheme() == "file")
    original = source.load_config

    @wraps(original)
    def load_config(self: ConfigSource, config_path: str) -> ConfigResult:
        name = config_path if config_path.endswith(".yaml") else f"{config_path}.yaml"
        path = Path(self.path, name)
        if path.is_file():  # if it is missing, Hydra's own message is better
            check_yaml_file(path)
        return original(self, config_path)

    source.load_config = load_config  # type: ignore[method-assign]
