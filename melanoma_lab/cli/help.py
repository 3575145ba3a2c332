"""The text of ``--help``; Hydra's own version reads every option and takes seconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf, open_dict

from melanoma_lab.config.compose import CONF_DIR, compose_unchecked

#: Hydra's flags for the folder of a user's own presets and options.
CONFIG_DIR_FLAGS = ("--config-dir", "-cd")


def format_help(arguments: Sequence[str]) -> str:
    """Format the help: all commands, groups with their options, and keys with their values.

    Args:
        arguments: words of the command line in Hydra's form; their overrides change the values.

    Raises:
        HydraException: the overrides cannot be composed.
        UserError: the user's folder does not exist.
    """
    words = list(arguments)
    folder = next((words[i + 1] for i, w in enumerate(words[:-1]) if w in CONFIG_DIR_FLAGS), None)
    folder = next((w.partition("=")[2] for w in words if w.startswith("--config-dir=")), folder)
    overrides = [word for word in words if not word.startswith("-") and word != folder]
    composed = compose_unchecked(overrides, folder, with_hydra=True)
    page = composed.hydra.help
    with open_dict(composed):
        del composed["hydra"]
    groups = [f"{group}: {', '.join(names)}" for group, names in _list_groups(folder).items()]
    return "\n".join(
        [
            page.header,
            "Groups (group=option):",
            "",
            *groups,
            "",
            "Keys (key=value):",
            "",
            OmegaConf.to_yaml(composed),
            page.footer,
        ]
    )


def _list_groups(user_folder: str | None) -> dict[str, list[str]]:
    """List the options of every group, including those in the user's folder, sorted by name."""
    options: dict[str, set[str]] = {}
    for folder in (CONF_DIR, *([Path(user_folder)] if user_folder else [])):
        for path in folder.rglob("*.yaml"):
            group = path.parent.relative_to(folder).as_posix()
            if group != ".":
                options.setdefault(group, set()).add(path.stem)
    return {group: sorted(options[group]) for group in sorted(options)}
