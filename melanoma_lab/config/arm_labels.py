"""Which arm is compared with which, and what an arm is called where space is short."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from melanoma_lab.core.errors import UserError, suggest_choice


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
