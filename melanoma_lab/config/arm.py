"""What a study compares: a preset plus the overrides that change what is trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from melanoma_lab.config.overrides import parse_overrides
from melanoma_lab.config.schema.tracking import mask_password
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.formatting import truncate

#: The preset of an arm for which none was chosen.
CUSTOM_PRESET = "custom"
#: Overrides that say which repetition, where, or how it is recorded; not what is compared.
NON_ARM_KEYS = frozenset(
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
#: What others of that kind begin with.
NON_ARM_PREFIXES = ("audit.", "demo.", "tracking.", "tuner.", "hydra")
#: What stands for the value of a key that was deleted; no value is read as it.
DELETED_VALUE = "~"


@dataclass(frozen=True)
class Arm:
    """An arm of a study.

    Attributes:
        name: the preset's, then the overrides in alphabetical order: ``baseline,balancing=none``.
        preset: the preset's alone; ``custom`` where none was chosen.
    """

    name: str
    preset: str


def parse_arm(overrides: Sequence[str]) -> Arm:
    """Name the arm that a command's overrides describe, whatever order they were typed in.

    Of a key that is given twice the last value counts, as in Hydra.

    Args:
        overrides: Hydra overrides, such as ``["+experiment=dropout", "seed=3"]``.
    """
    return _build_arm(_parse_values(overrides))


def check_jobs_distinct(jobs: Sequence[Sequence[str]]) -> None:
    """Refuse different jobs that would be the same run or search: one would be lost in the other.

    They list values of a key that is no part of an arm's name, such as ``dataset.root=A,B``. Jobs
    that are the same in everything are no loss.

    Args:
        jobs: the overrides of each job of a multirun.

    Raises:
        UserError: naming the keys.
    """
    seen: dict[tuple[str, ...], dict[str, str]] = {}
    parsed = [_parse_values(job) for job in jobs]
    for values in parsed:
        task = values.get("task", "train")
        if task not in {"train", "tune"}:
            continue
        told_apart_by = ["study", "seed", "split.fold"]
        if task == "tune":  # each tuner makes a search of its own
            told_apart_by += sorted(key for key in values if key.split(".")[0] == "tuner")
        run = (
            task,
            _build_arm(values).name,
            *(f"{key}={values.get(key)}" for key in told_apart_by),
        )
        other = seen.setdefault(run, values)
        if keys := [key for key in values if values[key] != other.get(key)]:
            listed = [
                f"{key}={_format_values(dict.fromkeys(each.get(key, '') for each in parsed))}"
                for key in keys
            ]
            raise UserError(
                f"{' '.join(listed)}: a study tells runs apart by arm, seed and fold, and "
                f"{' and '.join(keys)} {'is' if len(keys) == 1 else 'are'} none of these: of "
                "several values it would show one. Name one value, or give each a command with a "
                "study= of its own."
            )


def _format_values(values: Iterable[str]) -> str:
    """Values as they were typed, without Hydra's backslashes and without passwords."""
    return truncate(",".join(mask_password(value.replace("\\", "")) for value in values))


def _parse_values(overrides: Sequence[str]) -> dict[str, str]:
    """Key -> value as text, in the order that they were first given; of a deleted key, ``~``."""
    values = {}
    for override in parse_overrides(overrides):
        value = override.get_value_element_as_str()
        values[str(override.key_or_group)] = DELETED_VALUE if override.is_delete() else value
    return values


def _build_arm(values: Mapping[str, str]) -> Arm:
    preset = values.get("experiment", CUSTOM_PRESET)
    parts = [
        f"~{key}" if value == DELETED_VALUE else f"{key}={value}"
        for key, value in values.items()
        if key != "experiment" and key not in NON_ARM_KEYS and not key.startswith(NON_ARM_PREFIXES)
    ]
    return Arm(",".join([preset, *sorted(parts)]), preset)
