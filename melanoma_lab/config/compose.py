"""Compose a checked configuration from overrides, without a command line."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.version import VersionBase
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from melanoma_lab.config.arm import Arm, parse_arm
from melanoma_lab.config.compatibility import check_dataset_root
from melanoma_lab.config.overrides import parse_overrides, quote_override_text
from melanoma_lab.config.schema import Config
from melanoma_lab.config.validation import explain_hydra_error, validate_config
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.untrusted_files import check_yaml_file

#: Subfolder of a study that contains its presets.
STUDY_PRESETS = "conf"


class StudyPresets(SearchPathPlugin):
    """Plugin that adds the presets that hyperparameter searches write to Hydra's search path.

    ``+experiment=<study>_tuned`` is found in ``experiments/<study>/conf`` below the current folder,
    in the same way as a preset of ``conf/``.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the folders that exist."""
        for folder in sorted(Path("experiments").glob(f"*/{STUDY_PRESETS}")):
            search_path.append("study", f"file://{folder.resolve()}")


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


_PACKAGE = Path(__file__).resolve().parent.parent
#: The folder ``conf/``: inside the package in a wheel, next to the package in a clone.
CONF_DIR = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"

Plugins.instance().register(StudyPresets)
_check_config_files()


def compose_config(
    overrides: Sequence[str], config_dir: str | Path | None = None
) -> tuple[Config, Arm]:
    """Compose and check the configuration that overrides describe.

    Args:
        config_dir: folder of the user's own presets and options, like ``--config-dir`` of the
            command line; None: there is none.

    Returns:
        The configuration, and the arm that it belongs to.

    Raises:
        UserError: an override, a key, a value or the dataset's folder is wrong.
    """
    try:
        composed = compose_unchecked(overrides, config_dir)
        arm = parse_arm(overrides)
    except HydraException as error:
        raise UserError(explain_hydra_error(error)) from error
    config = validate_config(composed)
    check_dataset_root(config.dataset)
    return config, arm


def compose_unchecked(overrides: Sequence[str], config_dir: str | Path | None) -> DictConfig:
    """Compose the configuration that overrides describe, without checking it.

    Raises:
        HydraException: the overrides cannot be composed.
        UserError: there is no such folder, or the name of an option is not a text.
    """
    words = list(overrides)
    if config_dir is not None:
        folder = resolve_config_dir(config_dir)
        words.append(f"hydra.searchpath=[{quote_override_text(f'file://{folder}')}]")
    with _use_hydra():
        try:
            return compose("config", words)
        except (HydraException, OmegaConfBaseException):
            raise
        except ValueError as error:  # Hydra raises it for architecture=0
            raise UserError(explain_hydra_error(error)) from error


def resolve_config_dir(config_dir: str | Path) -> Path:
    """Return the absolute path of a folder of the user's own presets and options.

    Raises:
        UserError: there is no such folder.
    """
    folder = Path(config_dir).expanduser().resolve()
    if not folder.is_dir():
        raise UserError(f"config_dir={config_dir}: no such folder.")
    return folder


def load_preset_reference(preset: str) -> str | None:
    """Return the reference that one of the lab's presets names.

    Returns:
        The reference; None if the preset names none or the lab has no such preset.
    """
    path = CONF_DIR / "experiment" / f"{preset}.yaml"
    reference = OmegaConf.select(OmegaConf.load(path), "reference") if path.is_file() else None
    return None if reference is None else str(reference)


def expand_multirun(overrides: Sequence[str]) -> list[list[str]]:
    """Expand a multirun into its jobs: every combination of the values that overrides list.

    Args:
        overrides: Hydra overrides, as on the command line, such as
            ``["+experiment=a,b", "seed=range(3)"]``.

    Returns:
        The overrides of each job; the last key that lists values varies fastest.

    Raises:
        UserError: an override cannot be read, or names an interval instead of values.
    """
    try:
        with _use_hydra():
            loader = GlobalHydra.instance().config_loader()
            choices: dict[str, list[str]] = {}
            for entry in parse_overrides(overrides, loader):
                key = entry.get_key_element()
                if not entry.is_sweep_override():
                    choices[key] = [str(entry.input_line)]
                elif entry.is_discrete_sweep():
                    choices[key] = [f"{key}={value}" for value in entry.sweep_string_iterator()]
                else:
                    raise UserError(f"{entry.input_line}: expected values, such as a,b or range(3)")
    except HydraException as error:
        raise UserError(explain_hydra_error(error)) from error
    return [list(job) for job in itertools.product(*choices.values())]


@contextmanager
def _use_hydra() -> Iterator[None]:
    """Initialise Hydra with the lab's conf/ in the block; then restore the caller's Hydra."""
    instance, version = GlobalHydra.instance(), VersionBase.instance()
    hydra, base = instance.hydra, version.version_base
    instance.clear()
    try:
        with initialize_config_dir(str(CONF_DIR), job_name="melanoma_lab", version_base="1.3"):
            yield
    finally:
        instance.hydra, version.version_base = hydra, base
        GlobalHydra.set_instance(instance)
