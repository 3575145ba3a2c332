"""Resolve the label of every image, the folder's or the archive's, and name the classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from melanoma_lab.config.schema.data import LabelSource, OnConflict
from melanoma_lab.core.errors import UserError, suggest_choice
from melanoma_lab.core.formatting import RESERVED_SLUGS, format_count, format_list, slugify

#: Column of the manifest whose equal values mean copies -> the kind of copies, the surest first.
DUPLICATE_COLUMNS = {"identical": "identical", "photograph": "copies of one photograph"}

#: Largest length of a class's slug: MLflow allows 250 for a whole metric name.
MAX_SLUG_LENGTH = 200


@dataclass(frozen=True)
class ResolvedLabels:
    """A manifest after conflicting labels have been resolved.

    Attributes:
        classes: class names in the order of the network's outputs.
        notes: what was changed or left out, a sentence each.
    """

    manifest: pd.DataFrame
    classes: tuple[str, ...]
    notes: tuple[str, ...]


def resolve_labels(
    manifest: pd.DataFrame,
    *,
    labels: LabelSource,
    conflicts: OnConflict,
    classes: Sequence[str] | None,
) -> ResolvedLabels:
    """Choose every image's label, resolve conflicts between copies, and keep the chosen classes.

    Args:
        manifest: table with the columns image_id, label, diagnosis, identical and photograph.
        conflicts: treatment of identical images and near-duplicates with different labels.
            ``error`` refuses identical images only; near-duplicates, which may be a mistake of the
            program, are then kept and noted.
        classes: class names in the order of the network's outputs; None: those found, sorted.

    Raises:
        UserError: identical images have different labels and ``conflicts`` is ``error``, a class
            has no image, or fewer than two classes are left.
    """
    notes: list[str] = []
    if labels is LabelSource.diagnosis:
        differs = (manifest["diagnosis"] != "") & (manifest["diagnosis"] != manifest["label"])
        manifest = manifest.assign(label=manifest["diagnosis"].where(differs, manifest["label"]))
        if differs.any():
            changed = format_count(int(differs.sum()), "image")
            notes.append(f"{changed} relabelled to the archive's diagnosis.")
    for column, what in DUPLICATE_COLUMNS.items():
        if conflicts is OnConflict.keep and column == "identical":
            continue  # the groups of the next column include these
        manifest, note = _resolve_conflicts(manifest, conflicts, column, what)
        notes.extend(note)
    found = sorted(set(manifest["label"]))
    if classes is None:
        classes = found
    absent = [name for name in classes if name not in found]
    if absent:
        plural = "es" if len(absent) > 1 else ""
        raise UserError(
            f"dataset.classes: no image of class{plural} "
            f"{format_list([repr(name) for name in absent])}. "
            f"{suggest_choice(absent[0], found)} Leave the class{plural} out or correct "
            "dataset.root."
        )
    if len(classes) < 2:
        raise UserError(
            f"dataset: only one class, {''.join(classes)!r}; expected images of at least two."
        )
    kept = manifest["label"].isin(list(classes))
    left_out = manifest.loc[~kept, "label"].value_counts().sort_index()
    if len(left_out):
        names = format_list([f"{name!r} ({n})" for name, n in left_out.items()], 5)
        total = format_count(int(left_out.sum()), "image")
        notes.append(
            f"{total} left out, because their classes are not in dataset.classes: {names}."
        )
    return ResolvedLabels(manifest.loc[kept].reset_index(drop=True), tuple(classes), tuple(notes))


def _resolve_conflicts(
    manifest: pd.DataFrame, conflicts: OnConflict, column: str, copies: str
) -> tuple[pd.DataFrame, list[str]]:
    """Apply ``dataset.conflicts`` to the groups of a column; return the manifest and notes."""
    group = manifest[column]
    wrong = manifest.groupby(column)["label"].transform("nunique") > 1
    if not wrong.any():
        return manifest, []
    n_images, n_groups = int(wrong.sum()), int(group[wrong].nunique())
    groups = format_count(n_groups, "group")
    what = f"{n_images} images in {groups} are {copies} but labelled differently"
    if conflicts is OnConflict.error and column == "identical":
        example = format_list(list(manifest.loc[group == group[wrong].iloc[0], "image_id"]))
        raise UserError(
            f"{what}, such as {example}. Choose with dataset.conflicts: keep (as published), "
            "drop (leave them out), relabel (the metadata's diagnosis, drop where it has none)."
        )
    if conflicts in {OnConflict.error, OnConflict.keep}:
        return manifest, [f"{what}; kept as published."]
    if conflicts is OnConflict.drop:
        return manifest.loc[~wrong].reset_index(drop=True), [f"{what}; left out."]
    diagnoses = manifest["diagnosis"].where(manifest["diagnosis"] != "").groupby(group)
    # A single diagnosis for the whole group resolves the conflict; none or several do not.
    diagnosis = diagnoses.transform("first").where(diagnoses.transform("nunique") == 1)
    relabelled = wrong & diagnosis.notna()
    dropped = wrong & diagnosis.isna()
    resolved = manifest.assign(label=diagnosis.where(relabelled, manifest["label"]))
    note = (
        f"{what}; {relabelled.sum()} got the metadata's diagnosis, "
        f"{dropped.sum()} without one were left out."
    )
    return resolved.loc[~dropped].reset_index(drop=True), [note]


def check_class_names(classes: Sequence[str], positive_class: str | None) -> None:
    """Check that the slugs of class names are valid, and that the positive class is one of them.

    Raises:
        UserError: a slug is empty, too long or equal to another, or no class has the positive
            class's slug.
    """
    seen: dict[str, str] = {}
    for name in classes:
        if not slugify(name):
            raise UserError(f"dataset.classes: {name!r} has no letters or digits to name it by.")
        if len(slugify(name)) > MAX_SLUG_LENGTH:
            raise UserError(
                f"dataset.classes: {name!r} is too long to name a metric by; rename it to at most "
                f"{MAX_SLUG_LENGTH} letters."
            )
        if slugify(name) in seen:
            raise UserError(
                f"dataset.classes: {seen[slugify(name)]!r} and {name!r} would share the column "
                f"prob/{slugify(name)}; rename one."
            )
        seen[slugify(name)] = name
    if positive_class and slugify(positive_class) in RESERVED_SLUGS:
        raise UserError(
            f"dataset.positive_class={positive_class}: its metrics would have the names of others, "
            "such as macro_auroc; rename the class."
        )
    if positive_class and slugify(positive_class) not in seen:
        raise UserError(
            f"dataset.positive_class={positive_class}: the images have no such class. "
            f"{suggest_choice(positive_class, classes)}"
        )


def get_positive_class(config: Mapping[str, Any]) -> str | None:
    """Return the slug of the positive class of a run's resolved configuration; None if none."""
    name = config.get("dataset", {}).get("positive_class")
    return slugify(name) if name else None
