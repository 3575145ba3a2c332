"""What a model card says of the data: which, how many, from where, how divided, how sound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from melanoma_lab.data.patient_metadata import AGE_COLUMN
from melanoma_lab.data.split import SPLITS
from melanoma_lab.evaluation.subgroups import SUBGROUP_COLUMNS, split_into_subgroups
from melanoma_lab.input_pipeline.prepare import slugify

#: What of an audit a card repeats -> how; the number comes after.
_FOUND = {
    "n_unreadable": "files that cannot be read",
    "n_exact_duplicate_groups": "groups of identical files",
    "n_near_duplicate_groups": "groups of near-duplicates",
    "n_label_conflicts": "groups of identical images under different labels",
    "n_near_label_conflicts": "groups of near-duplicates under different labels",
    "n_metadata_conflicts": "labels against the archive's diagnosis",
}
_SEPARATED = {
    "published": "groups (a lesion, or copies) on both sides of the published split",
    "random": "groups (a lesion, or copies) that a random split of files would separate",
}


def list_splits(manifest: pd.DataFrame) -> list[str]:
    """Return the splits that have images."""
    there = set(manifest["split"])
    return [split for split in SPLITS if split in there]


def build_dataset_rows(manifest: pd.DataFrame, tags: Mapping[str, str]) -> list[list[str]]:
    """Describe the dataset in a few rows."""
    size = f"{len(manifest):,} images in {manifest['group'].nunique():,} groups"
    rows = [
        ["dataset", str(tags.get("dataset", "unknown"))],
        ["digest", str(tags.get("dataset_digest", ""))],
        ["size", f"{size} (images of one lesion, and copies of one another)"],
        ["digest of the split", str(tags.get("split_hash", ""))],
    ]
    return [row for row in rows if row[1]]


def build_class_count_rows(manifest: pd.DataFrame, slugs: Sequence[str]) -> list[list[str]]:
    """Count images, and groups, of each class in each split."""
    of_class = manifest["label"].map(slugify)
    splits = list_splits(manifest)
    rows = [
        [name.replace("_", " "), *_counts(manifest[of_class == name], splits)] for name in slugs
    ]
    return [*rows, ["all", *_counts(manifest, splits)]]


def _counts(images: pd.DataFrame, splits: Sequence[str]) -> list[str]:
    """Of some images, how many, and of how many groups, there are in each split."""
    groups = images.groupby("split")["group"]
    n_images, n_groups = groups.size(), groups.nunique()
    return [f"{n_images.get(split, 0):,} ({n_groups.get(split, 0):,})" for split in splits]


def build_source_rows(manifest: pd.DataFrame) -> list[list[str]]:
    """Count images of each source in each split; none where the dataset does not say."""
    if "source" not in manifest or not (manifest["source"] != "").any():
        return []
    found = manifest["source"].where(manifest["source"] != "", "not known")
    return [
        [
            name,
            *(
                f"{((found == name) & (manifest['split'] == s)).sum():,}"
                for s in list_splits(manifest)
            ),
        ]
        for name in found.value_counts().index
    ]


def describe_split_protocol(config: Mapping[str, Any], tags: Mapping[str, str]) -> str:
    """Say how images were divided."""
    split = config.get("split", {})
    how = {
        "holdout": "at random",
        "kfold": f"into {split.get('k')} folds; fold {split.get('fold')} is the test split",
        "cross_val": f"into {split.get('k')} folds for validation, with one test split for all",
        "predefined": "as published",
    }.get(split.get("name"), "in a way of the user's own")
    if tags.get("protocol") == "leaking":
        return (
            f"Leaking: divided {how}, and images that belong together lie on both sides. Figures "
            "on the test split are too good."
        )
    if tags.get("protocol") == "ungrouped":
        return (
            f"Ungrouped: divided {how}; nothing names lesions or patients. Identical files and "
            "near-duplicates are on one side of every split, other photographs of one lesion may "
            "be on both."
        )
    by = tags.get("grouped_by")
    return (
        f"Grouped{f' by {by}' if by else ''}: divided {how}; what belongs together, identical "
        "files and near-duplicates are on one side of every split."
    )


def describe_audit(audit: Mapping[str, Any] | None, tags: Mapping[str, str]) -> list[str]:
    """Say what the audit found in the dataset as published, and what was made of it."""
    said = []
    if audit is not None:
        separated = _SEPARATED.get(audit.get("judged_split", ""), _SEPARATED["published"])
        asked = _FOUND | {"n_cross_split_groups": separated}
        found = [f"{text}: {audit[key]:,}" for key, text in asked.items() if audit.get(key)]
        listed = "; ".join(found) or "nothing of what it looks for"
        said.append(f"Found in the dataset as published: {listed}.")
    if tags.get("notes"):
        said.append(tags["notes"])
    if tags.get("source_tells_class"):
        auroc = float(tags["source_tells_class"])
        said.append(
            f"The source of a photograph tells its class apart from another's with {auroc:.2f} "
            "(0.5: not at all; 1: fully)."
        )
    return said


def describe_factors(manifest: pd.DataFrame) -> str:
    """Say what divides the images, and what is not known of them."""
    known = [
        c for c in SUBGROUP_COLUMNS if c in manifest and list(split_into_subgroups(manifest[c]))
    ]
    names = {AGE_COLUMN: "age", "site": "body site"}
    told = ", ".join(names.get(column, column) for column in known)
    measured = f"Measured by {told}. " if told else "Nothing is known that would divide them. "
    unknown = [names.get(c, c) for c in SUBGROUP_COLUMNS if c not in known]
    also = f" Not known here, or the same for all: {', '.join(unknown)}." if unknown else ""
    return (
        f"{measured}Relevant and recorded by no dataset of the lab: skin tone, camera and "
        f"dermatoscope, hair and artefacts, how a lesion came to be photographed.{also}"
    )
