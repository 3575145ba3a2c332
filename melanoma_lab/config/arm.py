"""Arms of a study: a preset plus the overrides that change what is trained."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from melanoma_lab.config.overrides import parse_overrides
from melanoma_lab.config.schema.tracking import mask_password
from melanoma_lab.core.errors import UserError, suggest_choice
from melanoma_lab.core.formatting import truncate

#: Name that stands for the preset of an arm without one.
CUSTOM_PRESET = "custom"
#: Keys that are no part of an arm's name: they choose a repetition, a path or how to record a run.
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
#: Beginnings of other keys that are no part of an arm's name.
NON_ARM_PREFIXES = ("audit.", "demo.", "tracking.", "tuner.", "hydra")
#: Stands for the value of a deleted key; no override has this value.
DELETED_VALUE = "~"


@dataclass(frozen=True)
class Arm:
    """An arm of a study.

    Attributes:
        name: the preset, then the overrides in alphabetical order: ``baseline,balancing=none``.
        preset: the preset alone; ``custom`` if none was chosen.
    """

    name: str
    preset: str


def parse_arm(overrides: Sequence[str]) -> Arm:
    """Return the arm that a command's overrides describe, in whatever order they were typed.

    If a key is given twice, the last value counts, as in Hydra.

    Args:
        overrides: Hydra overrides, such as ``["+experiment=dropout", "seed=3"]``.
    """
    return _build_arm(_parse_values(overrides))


def check_jobs_distinct(jobs: Sequence[Sequence[str]]) -> None:
    """Refuse jobs that a study could not tell apart, so that one would hide the other.

    Such jobs differ in a key that is no part of an arm's name, such as ``dataset.root=A,B``. Jobs
    that are identical are allowed.

    Raises:
        UserError: two jobs cannot be told apart; the message names the keys that differ.
    """
    seen: dict[tuple[str, ...], dict[str, str]] = {}
    parsed = [_parse_values(job) for job in jobs]
    for values in parsed:
        task = values.get("task", "train")
        if task not in {"train", "tune"}:
            continue
        distinguishing = ["study", "seed", "split.fold"]
        if task == "tune":  # each tuner runs a separate search
            distinguishing += sorted(key for key in values if key.split(".")[0] == "tuner")
        run = (
            task,
            _build_arm(values).name,
            *(f"{key}={values.get(key)}" for key in distinguishing),
        )
        other = seen.setdefault(run, values)
        if keys := [key for key in values if values[key] != other.get(key)]:
            listed = []
            for key in keys:  # values as they were typed, without Hydra's backslashes
                typed = dict.fromkeys(each.get(key, "") for each in parsed)
                shown = ",".join(mask_password(value.replace("\\", "")) for value in typed)
                listed.append(f"{key}={truncate(shown)}")
            raise UserError(
                f"{' '.join(listed)}: a study distinguishes runs by arm, seed and fold only, not "
                f"by {' or '.join(keys)}: of several values it would show one. Give one value, "
                "or run one command for each value, with its own study=."
            )


def _parse_values(overrides: Sequence[str]) -> dict[str, str]:
    """Map keys to values as text, in the order of first occurrence; a deleted key maps to ``~``."""
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


def split_arm_name(arm: str) -> tuple[str, tuple[str, ...]]:
    """Split an arm's name into its preset and overrides; commas inside a value do not separate."""
    parts, depth, quote = [""], 0, ""
    for character in arm:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        depth += 0 if quote else (character in "[{(") - (character in "]})")
        if character == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += character
    return parts[0], tuple(parts[1:])


def shorten_arm_names(arms: Collection[str]) -> dict[str, str]:
    """Map arm names to short names, without the overrides that all arms share.

    An override that all arms share does not distinguish them. The short name of a single arm is
    its preset.
    """
    common = _common_overrides(arms)
    parts = {arm: split_arm_name(arm) for arm in arms}
    return {
        arm: ",".join([preset, *(override for override in overrides if override not in common)])
        for arm, (preset, overrides) in parts.items()
    }


def format_run_name(arm: str, seed: int, fold: int) -> str:
    """Format the name of a run; seed and fold come early, for narrow columns.

    Args:
        fold: the run's fold, which is left out if it is 0; 0 if the split has no folds.
    """
    preset, overrides = split_arm_name(arm)
    return " ".join([preset, f"seed={seed}", *([f"fold={fold}"] if fold else []), *overrides])


def find_references(
    named: Mapping[str, str], reference: str | None = None
) -> dict[str, str | None]:
    """Find the arm that each arm of a study is compared with.

    Args:
        named: arm of the study -> the reference that its runs name, or an empty string.
        reference: full or short name of one arm to compare all others with instead; None: use the
            references that the runs name.

    Returns:
        Arm -> the arm that it is compared with; None if the study has no such arm, and for the
        ``reference`` itself.

        A preset names another preset. Of that preset's arms, the one is used that shares most
        overrides and has no additional ones: ``dropout,training.epochs=1`` is compared with
        ``baseline,training.epochs=1``, and with plain ``baseline`` only if that is missing. An
        arm that names no reference is compared with the arm of its own preset that has fewer
        overrides. If that is missing too, it is compared with the arm that has ``none`` for its
        overrides: ``baseline,balancing=oversample`` with ``baseline,balancing=none``.

    Raises:
        UserError: the study has no arm of the name ``reference``.
    """
    if reference is not None:
        found = find_arm(reference, named, key="reference")
        return {arm: None if arm == found else found for arm in named}
    return {arm: _find_reference(arm, name, named) for arm, name in named.items()}


def _find_reference(arm: str, name: str, arms: Collection[str]) -> str | None:
    """Find the arm that one arm is compared with, given the reference that it names."""
    if name in arms and name != arm and split_arm_name(name)[1]:
        return name  # an arm, not a preset
    preset, overrides = split_arm_name(arm)
    preset = name or preset
    nearest_arms = [
        other
        for other in arms
        if other != arm
        and split_arm_name(other)[0] == preset
        and set(split_arm_name(other)[1]) <= set(overrides)
    ]
    if nearest_arms:
        return max(nearest_arms, key=lambda other: len(split_arm_name(other)[1]))
    common = _common_overrides(arms)
    none = [o if o in common else f"{o.partition('=')[0]}=none" for o in overrides]
    plain = ",".join([preset, *none])
    return plain if plain in arms and plain != arm else None


def find_arm(name: str, arms: Collection[str], *, key: str) -> str:
    """Return the full name of an arm, given its full or short name.

    Args:
        key: configuration key whose value the name is, for the error message.

    Raises:
        UserError: the study has no such arm.
    """
    by_name = {short: arm for arm, short in shorten_arm_names(arms).items()} | {
        arm: arm for arm in arms
    }
    if name not in by_name:
        raise UserError(f"{key}={name}: the study has no such arm. {suggest_choice(name, by_name)}")
    return by_name[name]


def _common_overrides(arms: Collection[str]) -> set[str]:
    """Return the overrides that all arms have."""
    return set.intersection(*(set(split_arm_name(arm)[1]) for arm in arms))
