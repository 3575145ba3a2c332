"""The model card's statements on the model, its training, its data and their limitations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from melanoma_lab.config.schema.data import Resize
from melanoma_lab.core.formatting import format_count, format_percent, label_split, slugify
from melanoma_lab.data.patient_metadata import AGE_COLUMN
from melanoma_lab.data.split import SPLITS
from melanoma_lab.evaluation.clinical_evaluation import (
    FEW_LESIONS,
    SUBGROUP_COLUMNS,
    split_into_subgroups,
)
from melanoma_lab.evaluation.evaluated_run import EvaluatedRun
from melanoma_lab.tracking.run_reader import RunIdentity

#: Fields of an option that do not affect the model.
_IRRELEVANT_FIELDS = frozenset({"name", "cache_features"})
#: How images of each option of ``resize`` are made square.
_SQUARED = {
    Resize.squash: "stretching, which changes their proportions",
    Resize.crop: "cropping to the middle of the longer side",
    Resize.pad: "padding the shorter side with black",
}
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
#: Datasets of photographs through a dermatoscope.
_DERMOSCOPIC = frozenset({"isic9", "isic9_verified", "ham10000", "leaky_protocol"})
#: Losses that make rare classes look more frequent than they are.
_BALANCED_LOSSES = frozenset({"logit_adjusted"})
#: Sentences on the limitations of runs that have a tag of this name and value.
_TAGGED_LIMITATIONS = {
    ("outcome", "at_chance"): (
        "This run stayed at chance: the network does not distinguish the classes."
    ),
    ("outcome", "diverged"): "This run diverged; the weights kept are from before.",
    ("protocol", "leaking"): (
        "Test lesions, or copies of their images, are in the training split: metrics are too "
        "optimistic."
    ),
    ("protocol", "ungrouped"): (
        "The dataset names no lesions or patients: photographs of one lesion may be in training "
        "and in test, so metrics may be too optimistic."
    ),
}


def describe_model(run: EvaluatedRun, identity: RunIdentity) -> list[list[str]]:
    """Describe the model and where it comes from."""
    config, tags = run.config, identity.tags
    size = _get(config, "dataset", "image_size")
    resize = _get(config, "dataset", "resize") or Resize.squash
    parameters = run.metrics.get("parameters")
    count = "" if parameters is None else f", {parameters:,.0f} parameters"
    network = _get(config, "architecture", "name") or "unknown"
    code = f"melanoma_lab {tags.get('melanoma_lab', '')}"
    members = tags.get("members")
    mean_of = (
        f"the mean of {len(members.split(','))} networks (seeds {members}), " if members else ""
    )
    rows = [
        ["network", f"{mean_of}{network}{count}"],
        ["input", f"raw pixels, uint8, {size} x {size}, RGB; scaling is part of the model"],
        ["images made square by", _SQUARED[Resize(resize)]],
        ["output", f"probabilities of {len(run.predictions.slugs)} classes"],
        ["run", f"{identity.run_id}, started {identity.day}, study {tags.get('study', 'unknown')}"],
        ["arm", f"{tags.get('arm', 'unknown')}, seed {tags.get('seed', '?')}"],
        ["outcome", tags.get("outcome", "unknown").replace("_", " ")],
        ["code", code + (f", commit {tags['git_commit']}" if tags.get("git_commit") else "")],
        ["machine", tags.get("device", "")],
    ]
    return [row for row in rows if row[1]]


def describe_training(run: EvaluatedRun, tags: Mapping[str, str]) -> list[list[str]]:
    """Describe the settings of a training; leave out those that are not used."""
    config = run.config
    best_epoch = run.metrics.get("best_epoch")
    kept = f", weights of epoch {best_epoch:.0f} kept" if best_epoch else ""
    weights, sha = _get(config, "architecture", "weights"), tags.get("weights_sha256", "")
    rate = _get(config, "optimizer", "learning_rate")
    optimizer = _get(config, "optimizer", "name")
    columns = _get(config, "metadata", "columns") if _get(config, "metadata", "name") else ""
    rows = [
        [
            "initial weights",
            f"{weights}{f' (SHA-256 {sha[:16]}...)' if sha else ''}" if weights else "random",
        ],
        ["fine-tuning", _describe_option(config, "finetuning")],
        ["loss", _get(config, "loss", "name")],
        ["optimizer", f"{optimizer}, learning rate {rate:g}" if rate else optimizer],
        ["schedule", _get(config, "schedule", "name")],
        ["regularisation", _describe_option(config, "regularisation")],
        ["augmentation", _describe_option(config, "augmentation")],
        ["balancing", _describe_option(config, "balancing")],
        ["averaged weights (EMA)", _get(config, "optimizer", "ema")],
        ["metadata", ", ".join(columns)],
        ["test-time augmentation", _get(config, "evaluation", "tta")],
        ["trained for", f"{_get(config, 'training', 'epochs')} epochs{kept}"],
        ["batch", _get(config, "training", "batch_size")],
        ["precision", tags.get("precision") or _get(config, "training", "precision")],
    ]
    return [[name, str(value)] for name, value in rows if value]


def _get(config: Mapping[str, Any], group: str, key: str) -> Any:
    """Return a value of the configuration; an empty text if it is missing, None or ``none``."""
    options = config.get(group)
    value = options.get(key) if isinstance(options, dict) else None
    return "" if value in (None, "none") else value


def _describe_option(config: Mapping[str, Any], group: str) -> str:
    """Describe the option of a group with its values; return an empty text for ``none``."""
    name = _get(config, group, "name")
    if not name:
        return ""
    values = [
        f"{key} {value}"
        for key, value in config[group].items()
        if key not in _IRRELEVANT_FIELDS and not isinstance(value, dict) and value is not None
    ]
    return f"{name} ({', '.join(values)})" if values else str(name)


def list_splits(manifest: pd.DataFrame) -> list[str]:
    """Return the splits that have images."""
    present = set(manifest["split"])
    return [split for split in SPLITS if split in present]


def describe_dataset(manifest: pd.DataFrame, tags: Mapping[str, str]) -> list[list[str]]:
    """Describe the dataset in a few rows."""
    size = f"{len(manifest):,} images of {manifest['group'].nunique():,} lesions"
    rows = [
        ["dataset", tags.get("dataset", "unknown")],
        ["digest", tags.get("dataset_digest", "")],
        ["size", size],
        ["digest of the split", tags.get("split_hash", "")],
    ]
    return [row for row in rows if row[1]]


def count_classes(manifest: pd.DataFrame, slugs: Sequence[str]) -> list[list[str]]:
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


def count_sources(manifest: pd.DataFrame) -> list[list[str]]:
    """Count images of each source in each split; return no rows if no source is known."""
    if "source" not in manifest or not (manifest["source"] != "").any():
        return []
    sources = manifest["source"].where(manifest["source"] != "", "not known")
    counts = pd.crosstab(sources, manifest["split"])
    return [
        [name, *(f"{counts.loc[name, split]:,}" for split in list_splits(manifest))]
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

    ``audit`` is its result, as in ``audit.json``; None if it was not saved.
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


def describe_limitations(run: EvaluatedRun, tags: Mapping[str, str]) -> Iterator[str]:
    """Yield sentences on the limitations of a run's metrics, most serious first."""
    split = run.predictions.evaluated
    for (tag, value), sentence in _TAGGED_LIMITATIONS.items():
        if tags.get(tag) == value:
            yield sentence
    if split.name != "test":
        yield (
            "It was not applied to its test split; the metrics here are of the validation "
            "split, by which its weights were chosen."
        )
    yield (
        "Not validated externally: test images are from the same dataset as the training images. "
        "Expect lower performance on images from elsewhere."
    )
    yield from _describe_images(run.manifest, tags.get("dataset", ""))
    if run.positive_class is not None:
        positive, _ = split.one_vs_rest(run.positive_class)
        yield (
            f"{format_percent(float(np.mean(positive)))} of the {label_split(split.name)} images "
            f"are of the positive class ({run.positive_class.replace('_', ' ')}). Predictive "
            "values and calibrated probabilities hold for this prevalence, which is not that of a "
            "clinic; and such a dataset contains only lesions that somebody chose to photograph, "
            "and often to excise."
        )
    yield (
        "One network: another seed gives other metrics. Intervals cover the sampling of lesions "
        "only, not of seeds."
        if "members" not in tags
        else "Its intervals cover the sampling of lesions, not the seeds of its members."
    )
    few = [
        f"{slug.replace('_', ' ')} ({n})"
        for slug in split.slugs
        if (n := len(np.unique(split.groups[split.one_vs_rest(slug)[0]]))) < FEW_LESIONS
    ]
    if few:
        yield (
            f"Classes with few {label_split(split.name)} lesions, whose metrics are uncertain: "
            f"{', '.join(few)}."
        )
    # Balancing and these losses make rare classes look more frequent than they are.
    if (
        _get(run.config, "balancing", "name")
        or _get(run.config, "loss", "name") in _BALANCED_LOSSES
    ):
        yield (
            "It was trained as if classes were more balanced than they are, and overestimates "
            "rare ones, after calibration too: read its probabilities as a ranking."
        )
    yield (
        "It returns a class for any image, whatever the image shows. The lab's predict warns of "
        "images unlike the training images; an exported file does not."
    )


def _describe_images(manifest: pd.DataFrame, name: str) -> Iterator[str]:
    if name in _DERMOSCOPIC:
        yield (
            "Dermoscopic photographs only: it was not trained on photographs taken with a phone "
            "or a camera without a dermatoscope."
        )
    elif name == "synthetic":
        yield "Trained on images that the lab generated: it has seen no real skin."
    else:
        yield "It was trained on the kind of photographs in its dataset, and on no other."
    if "source" in manifest and (manifest["source"] != "").any():
        n = manifest.loc[manifest["source"] != "", "source"].nunique()
        yield f"Its images come from {format_count(n, 'source')}; others may look different."
    else:
        yield "The dataset does not name the clinics or cameras of its images."
