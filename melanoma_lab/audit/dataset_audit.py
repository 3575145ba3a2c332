"""The audit: compute the findings from the table of images and the inspection of their files."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, Final

import numpy as np
import pandas as pd

from melanoma_lab.audit.findings import (
    MAX_MARGIN,
    ClassSize,
    Findings,
    Group,
    RandomSplitLeakage,
    SourceFindings,
)
from melanoma_lab.audit.inspection import Inspection
from melanoma_lab.config.schema.data import GroupingRule
from melanoma_lab.data.image_files import IMAGE_FORMATS
from melanoma_lab.data.listing import Listing
from melanoma_lab.data.split import SPLITS, TEST, TRAIN, VAL, assign_photographs, group_images

#: Share of test images in random splits of single files, as the course project made them. They
#: replace the published split if there is none.
TEST_SHARE: Final = 0.2
N_RANDOM_SPLITS: Final = 20
#: Share of a class in the test split if no split was published (``split=holdout``).
DEFAULT_TEST_SHARE: Final = 0.15
#: Smallest side in pixels at which a lesion can be seen.
MIN_SIDE_PIXELS: Final = 32
#: Largest usual ratio between the sides of a photograph.
MAX_ASPECT_RATIO: Final = 3.0


def audit_images(
    listing: Listing,
    inspection: Inspection,
    *,
    name: str,
    classes: Sequence[str] | None,
) -> tuple[Findings, pd.DataFrame]:
    """Audit a dataset as it was published.

    Args:
        listing: listing of the dataset, with the column digest in its images; labels are those of
            the folders.
        name: name of the option of the group ``dataset``.
        classes: value of ``dataset.classes``; None: all classes that are found.

    Returns:
        The findings, and the readable images with the columns photograph, pixels, group and
        judged (their part of the audited split, which is published or random).
    """
    manifest = listing.images.sort_values("image_id", ignore_index=True)
    reason = manifest["digest"].map(inspection.unreadable)
    readable = manifest.loc[reason.isna()].reset_index(drop=True)
    readable["photograph"] = assign_photographs(list(readable["digest"]), inspection.pairs)
    pixels = readable["digest"].map(inspection.files["pixels"])
    readable["pixels"] = pixels.where(pixels != "", readable["digest"])
    readable["group"] = group_images(readable, GroupingRule.all)
    published = len(set(readable["published"]) - {""}) > 1
    random_splits, example = _draw_random_splits(readable["group"])
    readable["judged"] = readable["published"] if published else example
    found = sorted(set(manifest["label"]))
    near = _groups(readable, "photograph", _has_several(readable, "photograph", "digest"))
    return Findings(
        dataset=name,
        n_images=len(manifest),
        judged_split="published" if published else "random",
        class_counts=_counts(
            manifest["published"].replace("", "none")
            if published
            else pd.Series("all", manifest.index),
            manifest["label"],
        ),
        source_by_class=_counts(manifest["label"], manifest["source"].replace("", "unknown")),
        class_sizes=measure_class_sizes(readable, published=published),
        sources=measure_source_confounding(readable["label"], readable["source"]),
        random_splits=random_splits,
        unreadable=[
            {"image_id": image_id, "reason": why}
            for image_id, why in zip(manifest["image_id"], reason, strict=True)
            if isinstance(why, str)
        ],
        suspicious=find_suspicious_files(readable, inspection.files),
        exact_duplicate_groups=_groups(readable, "digest"),
        pixel_duplicate_groups=_groups(
            readable, "pixels", _has_several(readable, "pixels", "digest")
        ),
        near_duplicate_groups=near,
        near_duplicate_pairs=_named_pairs(readable, inspection.pairs),
        label_conflicts=_groups(readable, "pixels", _has_several(readable, "pixels", "label")),
        near_label_conflicts=_groups(
            readable,
            "photograph",
            _has_several(readable, "photograph", "digest")
            & _has_several(readable, "photograph", "label"),
        ),
        metadata_conflicts=[
            {"image_id": image_id, "label": label, "diagnosis": diagnosis}
            for image_id, label, diagnosis in manifest[
                ["image_id", "label", "diagnosis"]
            ].itertuples(index=False, name=None)
            if diagnosis not in ("", label)
        ],
        groups=_groups(readable, "group"),
        cross_split_groups=_groups(
            readable,
            "group",
            _has_several(readable.loc[readable["judged"] != ""], "group", "judged"),
        ),
        test_images_leaking=_find_leaking(readable, TEST),
        val_images_leaking=_find_leaking(readable, VAL),
        classes_left_out=[] if classes is None else sorted(set(found) - set(classes)),
        classes_without_images=sorted(set(classes or ()) - set(found)),
        unknown=[*_describe_unknown(manifest, listing.grouped_by), *listing.notes],
        missing_images=list(listing.unmatched.missing),
        unlisted_images=list(listing.unmatched.unlisted),
    ), readable


def _has_several(table: pd.DataFrame, by: str, column: str) -> pd.Series:
    """Return whether each image's group has several values of a column; bool, shape (n,)."""
    return table.groupby(by)[column].transform("nunique") > 1


def _groups(table: pd.DataFrame, by: str, chosen: pd.Series | None = None) -> list[Group]:
    """List the groups of at least two images with a chosen one, as sorted lists of image_id."""
    rows = (
        table if chosen is None else table[table[by].isin(table[by].reindex(chosen[chosen].index))]
    )
    several = rows[rows[by].duplicated(keep=False)]
    return sorted(sorted(ids) for _, ids in several.groupby(by)["image_id"])


def _find_leaking(table: pd.DataFrame, part: str) -> list[str]:
    """List the images of a part of the audited split whose group has a training image."""
    trained = set(table.loc[table["judged"] == TRAIN, "group"])
    leaking = (table["judged"] == part) & table["group"].isin(trained)
    return sorted(table.loc[leaking, "image_id"])


def _draw_random_splits(group: pd.Series) -> tuple[RandomSplitLeakage, list[str]]:
    """Draw random splits of single files; return their leakage, and the parts of the first one."""
    codes, names = pd.factorize(group)
    n_test = round(TEST_SHARE * len(codes))
    shares, example = [], [TRAIN] * len(codes)
    for seed in range(N_RANDOM_SPLITS):
        is_test = np.zeros(len(codes), bool)
        is_test[np.random.default_rng(seed).permutation(len(codes))[:n_test]] = True
        trained = np.bincount(codes[~is_test], minlength=len(names)) > 0
        shares.append(float(trained[codes[is_test]].mean()) if n_test else 0.0)
        if seed == 0:
            example = [TEST if test else TRAIN for test in is_test]
    figures = (float(np.mean(shares)), min(shares), max(shares))
    return RandomSplitLeakage(TEST_SHARE, N_RANDOM_SPLITS, *(round(f, 4) for f in figures)), example


def _counts(outer: pd.Series, inner: pd.Series) -> dict[str, dict[str, int]]:
    """Count how often each pair of values occurs, as sorted nested dictionaries."""
    nested: dict[str, dict[str, int]] = {}
    for (a, b), n in sorted(Counter(zip(outer, inner, strict=True)).items()):
        nested.setdefault(a, {})[b] = n
    return nested


def _named_pairs(table: pd.DataFrame, pairs: pd.DataFrame) -> list[dict[str, Any]]:
    """List the pairs by image_id; the first of identical files stands for all of them."""
    first_of = table.drop_duplicates("digest").set_index("digest")["image_id"]
    rows = [
        (*sorted((first_of[a], first_of[b])), round(score, 3), kind)
        for a, b, score, kind in pairs.itertuples(index=False, name=None)
    ]
    return [
        dict(zip(("first", "second", "score", "kind"), row, strict=True)) for row in sorted(rows)
    ]


def _describe_unknown(manifest: pd.DataFrame, grouped_by: Sequence[str]) -> list[str]:
    """Describe what cannot be found without metadata, a sentence each."""
    sentences = []
    if not grouped_by:
        sentences.append(
            "Which images show the same lesion: the dataset names no lesions or patients, so "
            "only copies of one photograph are known to belong together, not two photographs of "
            "one lesion."
        )
    if (manifest["diagnosis"] == "").all():
        sentences.append("Whether the labels are right: the folders are the only source of labels.")
    if (manifest["source"] == "").all():
        sentences.append(
            "Whether the source (clinic, camera) predicts the class: the dataset does not name "
            "the sources of its images."
        )
    return sentences


def find_suspicious_files(readable: pd.DataFrame, files: pd.DataFrame) -> list[dict[str, str]]:
    """Find the files that can be read but look wrong, with reasons.

    Args:
        readable: table of readable images with the columns image_id and digest, sorted by
            image_id.
        files: table ``files`` of an inspection.

    Returns:
        image_id and reason; a file with several reasons occurs several times.
    """
    facts = files.loc[readable["digest"], ["format", "width", "height", "colours", "constant"]]
    return [
        {"image_id": image_id, "reason": reason}
        for image_id, fact in zip(
            readable["image_id"], facts.itertuples(index=False, name=None), strict=True
        )
        for reason in _explain_suspicion(image_id, fact)
    ]


def _explain_suspicion(image_id: str, fact: tuple[str, int, int, str, bool]) -> list[str]:
    kind, width, height, colours, constant = fact
    suffix = PurePosixPath(image_id).suffix.lower()
    reasons = []
    expected = IMAGE_FORMATS.get(suffix, kind)
    if kind != expected and (kind, expected) != ("MPO", "JPEG"):  # a JPEG of several pictures
        reasons.append(f"holds {kind}, not what {suffix} says")
    if min(width, height) < MIN_SIDE_PIXELS:
        reasons.append(f"tiny: {width}x{height} pixels")
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        reasons.append(f"extreme shape: {width}x{height} pixels")
    if colours:
        reasons.append(colours)
    if constant:
        reasons.append("a single colour")
    return reasons


def measure_class_sizes(readable: pd.DataFrame, *, published: bool) -> dict[str, ClassSize]:
    """Check whether each class has enough images to be split and measured.

    Args:
        readable: table of readable images with the columns label, group and judged.
        published: whether ``judged`` is a published split.
    """
    sizes = {}
    for label, rows in readable.groupby("label"):
        groups = rows["group"].nunique()
        test = rows.loc[rows["judged"] == TEST, "group"].nunique()
        if not (published and test):
            test = round(DEFAULT_TEST_SHARE * groups)
        margin = _margin(test)
        sizes[str(label)] = ClassSize(
            images=len(rows),
            groups=groups,
            test_groups=test,
            margin=round(margin, 3),
            splittable=groups >= len(SPLITS),
            measurable=margin <= MAX_MARGIN,
        )
    return sizes


def _margin(n: int) -> float:
    """Return half the width of Wilson's 95 % interval (JASA 22, 1927) for a share of 0.8 of n."""
    if n == 0:
        return 0.5
    z, share = 1.959964, 0.8
    spread = math.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2)
    return z * spread / (1 + z**2 / n)


def measure_source_confounding(labels: pd.Series, sources: pd.Series) -> SourceFindings:
    """Measure how well the source of an image predicts its class.

    Args:
        labels: class of each image, str, shape (n,).
        sources: source of each image, str, shape (n,); empty if unknown.
    """
    known = sources != ""
    table = pd.crosstab(labels[known], sources[known])
    if min(table.shape) < 2:
        return SourceFindings(int(known.sum()), table.shape[1], None, None, None, None, {}, {})
    share = table.div(table.sum(axis=1), axis=0)
    # The best rule for two classes has accuracy (1 + total variation distance) / 2.
    rows = share.to_numpy()
    distance = np.abs(rows[:, None] - rows[None]).sum(axis=2) / 2
    told_apart = (1 + distance.sum(axis=1) / (len(rows) - 1)) / 2
    only = table[(table > 0).sum(axis=1) == 1]
    # Cramér's V, Cramér (1946), section 21.9; importing SciPy's takes a second.
    counts = table.to_numpy()
    n = counts.sum()
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / n
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    return SourceFindings(
        n_known=int(known.sum()),
        n_sources=table.shape[1],
        # Balanced accuracy is the mean over classes of the share predicted correctly, so each
        # source contributes the largest share that any class has in it.
        balanced_accuracy=round(float(share.max(axis=0).sum() / len(share)), 4),
        chance=round(1 / len(share), 4),
        pairwise_accuracy=round(float(told_apart.mean()), 4),
        cramers_v=round(float(np.sqrt(chi_squared / n / (min(table.shape) - 1))), 4),
        told_apart={
            str(label): round(float(value), 4)
            for label, value in zip(share.index, told_apart, strict=True)
        },
        single_source_classes={str(label): str(row.idxmax()) for label, row in only.iterrows()},
    )
