"""Which of a model's classes a dataset's are: by name, else as the user says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import OmegaConf

from melanoma_lab.core.errors import UserError, suggest_choice
from melanoma_lab.core.formatting import format_list
from melanoma_lab.input_pipeline.prepare import slugify

CLASSES_KEY = "evaluation.classes"


def match_classes(
    classes: Sequence[str],
    slugs: Sequence[str],
    said: Mapping[str, str | None],
    *,
    others: Sequence[str] = (),
    shipped: Path | None = None,
) -> dict[str, str | None]:
    """Find each class of a dataset among a model's.

    Args:
        classes: names of the dataset's classes.
        slugs: of the model's classes.
        said: class of the dataset -> class of the model, or None to leave it out; names or slugs.
            What it says goes before names.
        others: names that the dataset knows and has no image of, which ``said`` may name too.
        shipped: folder of such files, one of which may be told of.

    Returns:
        Name of each class -> slug of the model's; None where it is left out. Several may be one.

    Raises:
        UserError: a class is neither found nor said, a name is none of either side's, or nothing
            is left.
    """
    told = {slugify(name): None if to is None else slugify(to) for name, to in said.items()}
    known = [slugify(name) for name in (*classes, *others)]
    for name, to in told.items():
        if name not in known:
            raise UserError(
                f"{CLASSES_KEY}: the dataset has no class {name}. {suggest_choice(name, known)}"
            )
        if to is not None and to not in slugs:
            raise UserError(
                f"{CLASSES_KEY}.{name}: the model has no class {to}. {suggest_choice(to, slugs)}"
            )
    own = {name: slugify(name) for name in classes}
    missing = [name for name in own.values() if name not in told and name not in slugs]
    if missing:
        raise UserError(_unmatched(missing, slugs, shipped))
    matched = {name: told.get(own[name], own[name]) for name in classes}
    if not any(matched.values()):
        raise UserError(f"{CLASSES_KEY}: leaves out all of the dataset's classes.")
    return matched


def _unmatched(missing: Sequence[str], slugs: Sequence[str], shipped: Path | None) -> str:
    """What to type where names are not enough."""
    line = ", ".join(f"{name}: null" for name in missing)
    option = _shipped_for(missing, slugs, shipped)
    return (
        f"The model has no class called {format_list(missing)}. It has {format_list(slugs, 10)}. "
        + (f"mapping={option} says what is what. Or say it yourself: " if option else "Say it: ")
        + f"'{CLASSES_KEY}={{{line}}}' leaves out; instead of null, one of the model's classes "
        "maps to it."
    )


def _shipped_for(missing: Sequence[str], slugs: Sequence[str], shipped: Path | None) -> str | None:
    """The option of the group ``mapping`` that says all that is missing."""
    for path in sorted(shipped.glob("*.yaml")) if shipped else ():
        said = OmegaConf.to_container(OmegaConf.load(path))
        classes = said.get("classes", {}) if isinstance(said, dict) else {}
        if set(missing) <= set(classes) and all(to in {None, *slugs} for to in classes.values()):
            return path.stem
    return None
