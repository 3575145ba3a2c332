"""What a study compares: a preset plus the overrides that change what is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.override_parser.overrides_parser import OverridesParser

#: The preset of an arm for which none was chosen.
CUSTOM = "custom"
#: Overrides that say which repetition, where, or how it is recorded; not what is compared.
NOT_AN_ARM = frozenset(
    {
        "against",
        "arm",
        "cache",
        "dataset.outside_root",
        "dataset.root",
        "formats",
        "images",
        "members",
        "metric",
        "model",
        "output",
        "reference",
        "seed",
        "split.fold",
        "split.seed",
        "study",
        "task",
        "training.devices",
        "training.threads",
        "tuner",
    }
)


@dataclass(frozen=True)
class Arm:
    """An arm of a study.

    Attributes:
        name: the preset's, then the overrides in alphabetical order: ``baseline,balancing=none``.
        preset: the preset's alone; ``custom`` where none was chosen.
    """

    name: str
    preset: str


def describe_arm(overrides: Sequence[str]) -> Arm:
    """Name the arm that a command's overrides describe, whatever order they were typed in.

    Of a key that is given twice the last value counts, as in Hydra.

    Args:
        overrides: Hydra overrides, such as ``["+experiment=dropout", "seed=3"]``.
    """
    preset = CUSTOM
    parts: dict[str, str] = {}
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key = str(override.key_or_group)
        value = override.get_value_element_as_str()
        if key == "experiment":
            preset = value
        elif key not in NOT_AN_ARM and not key.startswith(
            ("audit.", "demo.", "tracking.", "tuner.", "hydra")
        ):
            parts[key] = f"~{key}" if override.is_delete() else f"{key}={value}"
    return Arm(",".join([preset, *sorted(parts.values())]), preset)
