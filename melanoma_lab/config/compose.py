"""From overrides to a checked configuration, without a command line."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.version import VersionBase
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from melanoma_lab.config import search_path
from melanoma_lab.config.arm import Arm, parse_arm
from melanoma_lab.config.overrides import parse_overrides, quote_override_text
from melanoma_lab.config.required_keys import check_dataset_root
from melanoma_lab.config.schema import Config
from melanoma_lab.config.validation import explain_hydra_error, validate_config
from melanoma_lab.core.errors import UserError

_PACKAGE = Path(__file__).resolve().parent.parent
#: In a wheel conf/ lies inside the package, in a clone beside it.
CONF_DIR = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"

search_path.register()


def compose_config(
    overrides: Sequence[str], config_dir: str | Path | None = None
) -> tuple[Config, Arm]:
    """Compose and check what overrides ask for.

    Args:
        overrides: as on the command line.
        config_dir: a folder of the user's own presets and options, ``--config-dir`` there.

    Returns:
        The configuration, and what a study calls it.

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


def compose_unchecked(
    overrides: Sequence[str], config_dir: str | Path | None, *, with_hydra: bool = False
) -> DictConfig:
    """Compose what overrides ask for, unchecked.

    Args:
        overrides: as on the command line.
        config_dir: a folder of the user's own presets and options.
        with_hydra: Hydra's own configuration too.

    Raises:
        HydraException: they cannot be composed.
        UserError: there is no such folder, or an option's name is no name.
    """
    words = [*overrides, *_search_path(config_dir)]
    with _use_hydra():
        try:
            return compose("config", words, return_hydra_config=with_hydra)
        except (HydraException, OmegaConfBaseException):
            raise
        except ValueError as error:  # Hydra's own for architecture=0
            raise UserError(explain_hydra_error(error)) from error


def load_preset_reference(preset: str) -> str | None:
    """What one of the lab's presets names to be compared with.

    Args:
        preset: its name; None is the answer for one that the lab does not have.
    """
    path = CONF_DIR / "experiment" / f"{preset}.yaml"
    named = OmegaConf.select(OmegaConf.load(path), "reference") if path.is_file() else None
    return None if named is None else str(named)


def expand_multirun(overrides: Sequence[str]) -> list[list[str]]:
    """The jobs of a multirun: every combination of the values that overrides list.

    Args:
        overrides: as on the command line, such as ``["+experiment=a,b", "seed=range(3)"]``.

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
    """Hydra with the lab's conf/ inside the block; what the caller made of it comes back after."""
    callers, version = GlobalHydra.instance(), VersionBase.instance()
    hydra, base = callers.hydra, version.version_base
    callers.clear()
    try:
        with initialize_config_dir(str(CONF_DIR), job_name="melanoma_lab", version_base="1.3"):
            yield
    finally:
        callers.hydra, version.version_base = hydra, base
        GlobalHydra.set_instance(callers)


def _search_path(config_dir: str | Path | None) -> list[str]:
    """The override that lets Hydra look into a folder too."""
    if config_dir is None:
        return []
    folder = Path(config_dir).expanduser().resolve()
    if not folder.is_dir():
        raise UserError(f"config_dir={config_dir}: no such folder.")
    return [f"hydra.searchpath=[{quote_override_text(f'file://{folder}')}]"]
