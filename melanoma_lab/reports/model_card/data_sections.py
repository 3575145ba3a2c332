"""The model card's sections on the data: size, sources, split and findings of the audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from melanoma_lab.data.labels import slugify
from melanoma_lab.data.patient_metadata import AGE_COLUMN
from melanoma_lab.data.split import SPLITS
from melanoma_lab.evaluation.clinical_evaluation import SUBGROUP_COLUMNS, split_into_subgroups

#: Text of a finding by its key in the audit; the number follows the text.
_FINDINGS = {
    "n_unreadable": "files that cannot be read",
    "n_exact_duplicate_groups": "groups of identical files",
    "n_near_duplicate_groups": "groups of near-duplicates",
    "n_label_conflicts": "groups of identical images under different labels",
    "n_near_label_conflicts": "groups of near-duplicates under different labels",
    "n_metadata_conflicts": "labels that contradict the archive's diagnosis",
}
#: Text of the number of groups that a split separates, by the audited split.
_SEPARATED = {
    "published": "lesions on both sides of the published split",
    "random": "lesions that a random split of files would separate",
}


def list_splits(manifest: pd.DataFrame) -> list[str]:
    """Return the splits that have images."""
    present = set(manifest["split"])
    return [split for split in SPLITS if split in present]


def build_dataset_rows(manifest: pd.DataFrame, tags: Mapping[str, str]) -> list[list[str]]:
    """Describe the dataset in a few rows."""
    size = f"{len(manifest):,} images of {manifest['group'].nunique():,} lesions"
    rows = [
        ["dataset", str(tags.get("dataset", "unknown"))],
        ["digest", str(tags.get("dataset_digest", ""))],
        ["size", size],
        ["digest of the split", str(tags.get("split_hash", ""))],
    ]
    return [row for row in rows if row[1]]


def build_class_count_rows(manifest: pd.DataFrame, slugs: Sequence[str]) -> list[list[str]]:
    """Count images, and groups, of each class in each split."""
    labels = manifest["label"].map(slugify)
    splits = list_splits(manifest)
    rows = [
        [name.replace("_", " "), *_format_counts(manifest[labels == name], splits)]
        for name in slugs
    ]
    return [*rows, ["all", *_format_counts(manifest, splits)]]


def _format_counts(images: pd.DataFrame, splits: Sequence[str]) -> list[str]:
    """Format the number of images, and of groups, in each split."""
    groups = images.groupby("split")["group"]
    n_images, n_groups = groups.size(), groups.nunique()
    return [f"{n_images.get(split, 0):,} ({n_groups.get(split, 0):,})" for split in splits]


def build_source_rows(manifest: pd.DataFrame) -> list[list[str]]:
    """Count images of each source in each split; return no rows if no source is known."""
    if "source" not in manifest or not (manifest["source"] != "").any():
        return []
    sources = manifest["source"].where(manifest["source"] != "", "not known")
    return [
        [
            name,
            *(
                f"{((sources == name) & (manifest['split'] == s)).sum():,}"
                for s in list_splits(manifest)
            ),
        ]
        for name in sources.value_counts().index
    ]


def describe_split_protocol(config: Mapping[str, Any], tags: Mapping[str, str]) -> str:
    """Describe how images were divided, and whether groups were kept together."""
    split = config.get("split", {})
    how = {
        "holdout": "at random",
        "kfold": f"into {split.get('k')} folds; fold {split.get('fold')} is the test split",
        "cross_val": f"into {split.get('k')} folds for validation, with one test split for all",
        "predefined": "as published",
    }.get(split.get("name"), "by the user's own method")
    if tags.get("protocol") == "leaking":
        return (
            f"Leaking: divided {how}, and images that belong together are on both sides. Metrics "
            "on the test split are too optimistic."
        )
    if tags.get("protocol") == "ungrouped":
        return (
            f"Ungrouped: divided {how}; the dataset names no lesions or patients. Identical "
            "files and near-duplicates are on one side of every split; other photographs of one "
            "lesion may be on both."
        )
    by = tags.get("grouped_by")
    return (
        f"Grouped{f' by {by}' if by else ''}: divided {how}; images of one lesion, with "
        "identical files and near-duplicates, are on one side of every split."
    )


def describe_audit(audit: Mapping[str, Any] | None, tags: Mapping[str, str]) -> list[str]:
    """Describe the findings of the audit in the dataset as published, and what was done about them.

    Args:
        audit: the result of the audit, as in ``audit.json``; None if it was not saved.
        tags: the run's tags.

    Returns:
        A list of paragraphs.
    """
    paragraphs = []
    if audit is not None:
        separated = _SEPARATED.get(audit.get("judged_split", ""), _SEPARATED["published"])
        texts = _FINDINGS | {"n_cross_split_groups": separated}
        found = [f"{text}: {audit[key]:,}" for key, text in texts.items() if audit.get(key)]
        findings = "; ".join(found) or "no problem"
        paragraphs.append(f"Found in the dataset as published: {findings}.")
    if tags.get("notes"):
        paragraphs.append(tags["notes"])
    if tags.get("source_tells_class"):
        auroc = float(tags["source_tells_class"])
        paragraphs.append(
            "The source of a photograph alone distinguishes two classes with an accuracy of "
            f"{auroc:.2f} (0.5: chance; 1: perfectly)."
        )
    return paragraphs


def describe_factors(manifest: pd.DataFrame) -> str:
    """Describe by which columns subgroups are measured, and which facts are not known."""
    known = [
        c for c in SUBGROUP_COLUMNS if c in manifest and list(split_into_subgroups(manifest[c]))
    ]
    names = {AGE_COLUMN: "age", "site": "body site"}
    factors = ", ".join(names.get(column, column) for column in known)
    measured = (
        f"Measured by {factors}. " if factors else "The dataset has no columns for subgroups. "
    )
    unknown = [names.get(c, c) for c in SUBGROUP_COLUMNS if c not in known]
    also = f" Not known here, or the same for all: {', '.join(unknown)}." if unknown else ""
    return (
        f"{measured}Relevant, but recorded in none of the lab's datasets: skin tone, camera and "
        f"dermatoscope, hair and artefacts, why a lesion was photographed.{also}"
    )
