"""What a study compares: a preset plus the overrides that change what is trained."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from melanoma_lab.config.overrides import parse_overrides
from melanoma_lab.config.schema.tracking import mask_password
from melanoma_lab.core.errors import UserError, suggest_choice
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


def split_arm_name(arm: str) -> tuple[str, tuple[str, ...]]:
    """An arm's name as its preset and its overrides; commas inside a value do not separate."""
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
    """What each arm is called for reading: without the overrides that all of them share.

    An override that only says what all arms do tells none of them apart; one arm alone is called
    by its preset.
    """
    common = _common(arms)
    return {arm: _without(arm, common) for arm in arms}


def format_run_name(arm: str, seed: int, fold: int) -> str:
    """What a run is called: first what tells it from its neighbours in a narrow column.

    Args:
        arm: its name, in full or short.
        seed: of the run.
        fold: of the run; 0 where there are none.
    """
    preset, overrides = split_arm_name(arm)
    return " ".join([preset, f"seed={seed}", *([f"fold={fold}"] if fold else []), *overrides])


def find_references(
    named: Mapping[str, str], reference: str | None = None
) -> dict[str, str | None]:
    """What each arm of a study is compared with.

    Args:
        named: of each arm of the study, the reference that its runs name, or an empty string.
        reference: compare all arms with this one instead; its full or its short name.

    Returns:
        For each arm the arm that it is compared with; None where there is none in the study, and
        for what the others are compared with.

        A preset names a preset. Of that preset's arms the one counts that shares most overrides
        and has none of its own: ``dropout,training.epochs=1`` is compared with
        ``baseline,training.epochs=1``, and with plain ``baseline`` only where that is missing. An
        arm that names none is compared with its own preset with fewer overrides, and where that is
        missing too with the arm that has ``none`` where it has something:
        ``baseline,balancing=oversample`` with ``baseline,balancing=none``.

    Raises:
        UserError: the study has no arm of the name given.
    """
    if reference is not None:
        found = find_arm(reference, named, key="reference")
        return {arm: None if arm == found else found for arm in named}
    return {arm: _reference_of(arm, name, named) for arm, name in named.items()}


def _reference_of(arm: str, name: str, arms: Collection[str]) -> str | None:
    """The arm that one is compared with, given the reference that it names."""
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
    common = _common(arms)
    none = [o if o in common else f"{o.partition('=')[0]}=none" for o in overrides]
    plain = _join(preset, none)
    return plain if plain in arms and plain != arm else None


def find_arm(name: str, arms: Collection[str], *, key: str) -> str:
    """The arm of a full or short name.

    Args:
        name: as typed.
        arms: of the study.
        key: that it was typed for.

    Raises:
        UserError: the study has no such arm.
    """
    by_name = {short: arm for arm, short in shorten_arm_names(arms).items()} | {
        arm: arm for arm in arms
    }
    if name not in by_name:
        raise UserError(f"{key}={name}: the study has no such arm. {suggest_choice(name, by_name)}")
    return by_name[name]


def _common(arms: Collection[str]) -> set[str]:
    """Overrides that all arms have."""
    return set.intersection(*(set(split_arm_name(arm)[1]) for arm in arms))


def _without(arm: str, common: Collection[str]) -> str:
    preset, overrides = split_arm_name(arm)
    return _join(preset, [override for override in overrides if override not in common])


def _join(preset: str, overrides: Sequence[str]) -> str:
    return ",".join([preset, *overrides])
