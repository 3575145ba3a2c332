"""Mapping of a dataset's classes to a model's: by the user's setting, else by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import OmegaConf

from melanoma_lab.core.errors import UserError, suggest_choice
from melanoma_lab.core.formatting import format_list
from melanoma_lab.data.labels import slugify

CLASSES_KEY = "evaluation.classes"


def match_classes(
    classes: Sequence[str],
    slugs: Sequence[str],
    mapping: Mapping[str, str | None],
    *,
    others: Sequence[str] = (),
    shipped: Path | None = None,
) -> dict[str, str | None]:
    """Find each class of a dataset among a model's classes.

    Args:
        classes: names of the dataset's classes.
        slugs: slugs of the model's classes.
        mapping: the user's setting, class of the model by class of the dataset, or None to leave it
            out; as names or slugs. It overrides equal names.
        others: names of classes without images in the dataset, which ``mapping`` may contain too.
        shipped: folder of mapping files that come with the lab; the error suggests one that fits.

    Returns:
        Slug of the model's class by name of the dataset's class; None if it is left out. Several
        may be mapped to one.

    Raises:
        UserError: a class has neither an equal name nor a mapping, ``mapping`` has an unknown name,
            or all classes are left out.
    """
    by_slug = {slugify(name): None if to is None else slugify(to) for name, to in mapping.items()}
    known = [slugify(name) for name in (*classes, *others)]
    for name, to in by_slug.items():
        if name not in known:
            raise UserError(
                f"{CLASSES_KEY}: the dataset has no class {name}. {suggest_choice(name, known)}"
            )
        if to is not None and to not in slugs:
            raise UserError(
                f"{CLASSES_KEY}.{name}: the model has no class {to}. {suggest_choice(to, slugs)}"
            )
    own = {name: slugify(name) for name in classes}
    missing = [name for name in own.values() if name not in by_slug and name not in slugs]
    if missing:
        raise UserError(_explain_missing(missing, slugs, shipped))
    matched = {name: by_slug.get(own[name], own[name]) for name in classes}
    if not any(matched.values()):
        raise UserError(f"{CLASSES_KEY}: leaves out all of the dataset's classes.")
    return matched


def _explain_missing(missing: Sequence[str], slugs: Sequence[str], shipped: Path | None) -> str:
    """Describe which classes have no match, and what to type to map them."""
    line = ", ".join(f"{name}: null" for name in missing)
    option = _find_mapping(missing, slugs, shipped)
    return (
        f"The model has no class called {format_list(missing)}. It has {format_list(slugs, 10)}. "
        + (f"mapping={option} maps them. Or map them yourself: " if option else "Map them: ")
        + f"'{CLASSES_KEY}={{{line}}}' leaves them out; write one of the model's classes instead "
        "of null to map to it."
    )


def _find_mapping(missing: Sequence[str], slugs: Sequence[str], shipped: Path | None) -> str | None:
    """Return the option of the group ``mapping`` that maps all missing classes, or None."""
    for path in sorted(shipped.glob("*.yaml")) if shipped else ():
        content = OmegaConf.to_container(OmegaConf.load(path))
        classes = content.get("classes", {}) if isinstance(content, dict) else {}
        if set(missing) <= set(classes) and all(to in {None, *slugs} for to in classes.values()):
            return path.stem
    return None
