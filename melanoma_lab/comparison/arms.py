"""Which arm is compared with which, and what an arm is called where space is short."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from melanoma_lab.errors import UserError, nearest


def parts_of(arm: str) -> tuple[str, tuple[str, ...]]:
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


def shorten(arms: Collection[str]) -> dict[str, str]:
    """What each arm is called for reading: without the overrides that all of them share.

    An override that only says what all arms do tells none of them apart; with one arm nothing is
    shortened.
    """
    common = _common(arms)
    return {arm: _without(arm, common) for arm in arms}


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

        A preset names a preset. What an arm changes besides is changed in its reference too:
        ``dropout,training.epochs=1`` is compared with ``baseline,training.epochs=1``, and with
        plain ``baseline`` only where that is missing. An arm that names none is compared with its
        preset without overrides of its own, and where that is missing too with the arm that has
        ``none`` where it has something: ``baseline,balancing=oversample`` with
        ``baseline,balancing=none``.

    Raises:
        UserError: the study has no arm of the name given.
    """
    if reference is not None:
        found = _find(reference, named)
        return {arm: None if arm == found else found for arm in named}
    common = _common(named)
    references = {}
    for arm, name in named.items():
        candidates = _candidates(arm, name, common)
        references[arm] = next((c for c in candidates if c in named and c != arm), None)
    return references


def _candidates(arm: str, name: str, common: Collection[str]) -> list[str]:
    """What an arm might be compared with, best first."""
    preset, overrides = parts_of(arm)
    if name:
        return [_join(name, overrides), name]
    none = [o if o in common else f"{o.partition('=')[0]}=none" for o in overrides]
    shared = [override for override in overrides if override in common]
    return [_join(preset, shared), _join(preset, none)]


def _find(name: str, arms: Collection[str]) -> str:
    """The arm of a full or short name."""
    by_name = {short: arm for arm, short in shorten(arms).items()} | {arm: arm for arm in arms}
    if name not in by_name:
        raise UserError(f"reference={name}: the study has no such arm. {nearest(name, by_name)}")
    return by_name[name]


def _common(arms: Collection[str]) -> set[str]:
    """Overrides that all arms have; none where there is one arm only."""
    if len(arms) < 2:
        return set()
    return set.intersection(*(set(parts_of(arm)[1]) for arm in arms))


def _without(arm: str, common: Collection[str]) -> str:
    preset, overrides = parts_of(arm)
    return _join(preset, [override for override in overrides if override not in common])


def _join(preset: str, overrides: Sequence[str]) -> str:
    return ",".join([preset, *overrides])
