"""What ``--help`` prints; Hydra's own version reads every option and takes seconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf, open_dict

from melanoma_lab.config.compose import CONF_DIR, compose_unchecked

#: How Hydra calls the folder of a user's own presets and options on the command line.
CONFIG_DIR_FLAGS = ("--config-dir", "-cd")


def format_help(arguments: Sequence[str]) -> str:
    """The commands, every group with its options, and every key as the overrides leave it.

    Args:
        arguments: the command line, as Hydra takes it.

    Raises:
        HydraException: the overrides cannot be composed.
        UserError: the user's folder does not exist.
    """
    words = list(arguments)
    own = next((words[i + 1] for i, w in enumerate(words[:-1]) if w in CONFIG_DIR_FLAGS), None)
    own = next((w.partition("=")[2] for w in words if w.startswith("--config-dir=")), own)
    overrides = [word for word in words if not word.startswith("-") and word != own]
    composed = compose_unchecked(overrides, own, with_hydra=True)
    page = composed.hydra.help
    with open_dict(composed):
        del composed["hydra"]
    groups = [f"{group}: {', '.join(names)}" for group, names in _groups(own).items()]
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


def _groups(own: str | None) -> dict[str, list[str]]:
    """The options of every group, the lab's and the user's, by name."""
    found: dict[str, set[str]] = {}
    for folder in (CONF_DIR, *([Path(own)] if own else [])):
        for path in folder.rglob("*.yaml"):
            group = path.parent.relative_to(folder).as_posix()
            if group != ".":
                found.setdefault(group, set()).add(path.stem)
    return {group: sorted(found[group]) for group in sorted(found)}
