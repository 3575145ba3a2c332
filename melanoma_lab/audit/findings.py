"""The findings of an audit as plain data, with the leakage of its split."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from melanoma_lab.config.schema.data import Dataset, Isic9Dataset, LabelSource, OnConflict
from melanoma_lab.core.files import hash_text, replace_file
from melanoma_lab.core.formatting import format_count
from melanoma_lab.core.shell_commands import format_lab_command

Group = list[str]

#: Largest uncertainty of a class's sensitivity, both ways, at which the class can be measured.
MAX_MARGIN: Final = 0.2
#: Balanced accuracy of distinguishing two classes by source alone from which on it is a problem.
CONFOUNDING_THRESHOLD: Final = 0.6


@dataclass(frozen=True)
class ClassSize:
    """The size of a class, and whether it can be split and measured.

    Attributes:
        images: number of readable images.
        groups: number of groups; images that belong together count once.
        test_groups: number of groups in the published test split, or in that of a default holdout.
        margin: half the width of the 95 % Wilson interval of a sensitivity of about 80 % measured
            on ``test_groups`` lesions; 0.2 is twenty percentage points both ways.
        splittable: whether there is at least one group for each of train, val and test.
        measurable: whether the margin is at most ``MAX_MARGIN``.
    """

    images: int
    groups: int
    test_groups: int
    margin: float
    splittable: bool
    measurable: bool


@dataclass(frozen=True)
class SourceFindings:
    """How well the source of an image predicts its class.

    Attributes:
        n_known: number of images whose source is known; the other values are for these images.
        n_sources: number of different sources.
        balanced_accuracy: balanced accuracy of the rule that predicts, for every source, the class
            with the largest share of its images in that source. No rule from source alone is
            better on these images. It cannot predict more classes than there are sources. None
            with fewer than two sources or two classes, as are the next three.
        chance: balanced accuracy of guessing, 1 / number of classes.
        pairwise_accuracy: balanced accuracy of distinguishing two classes by source alone, the
            mean over all pairs of classes; chance is 0.5.
        cramers_v: Cramér's V between class and source, 0 (independent) to 1.
        told_apart: class -> balanced accuracy of distinguishing it from another class by source
            alone, the mean over the other classes.
        single_source_classes: class -> its only source, for classes with a single source.
    """

    n_known: int
    n_sources: int
    balanced_accuracy: float | None
    chance: float | None
    pairwise_accuracy: float | None
    cramers_v: float | None
    told_apart: dict[str, float]
    single_source_classes: dict[str, str]


@dataclass(frozen=True)
class RandomSplitLeakage:
    """The leakage of random splits of single files instead of groups.

    Attributes:
        test_share: share of test images in a split.
        leaking_share_mean: share of test images whose group has a training image, the mean over
            the splits.
    """

    test_share: float
    n_seeds: int
    leaking_share_mean: float
    leaking_share_min: float
    leaking_share_max: float


@dataclass(frozen=True)
class Findings:
    """All findings of an audit; ``as_json`` returns the content of ``audit.json``.

    Images are named by image_id, groups are sorted lists of them, and all lists are sorted. Files
    that cannot be read are counted in ``n_images`` and ``class_counts`` and are in no group.

    Attributes:
        dataset: name of the option of the group ``dataset``.
        n_images: number of files found.
        judged_split: the split that was audited: ``published``, or ``random`` if none was
            published; then it is the first of ``random_splits``.
        class_counts: split -> class -> number of images; the split is ``all`` if none was
            published.
        source_by_class: class -> source -> number of images; ``unknown`` if the source is missing.
        class_sizes: class -> its size, and whether it can be measured.
        unreadable: image_id and reason.
        suspicious: image_id and reason, for files that can be read but look wrong.
        exact_duplicate_groups: files with identical bytes.
        pixel_duplicate_groups: files with different bytes that decode to identical pixels.
        near_duplicate_groups: copies of one photograph, at least two of them with different bytes.
        near_duplicate_pairs: first, second, score and kind (the changes) of the pairs that connect
            these groups.
        label_conflicts: groups with identical bytes or pixels and different labels.
        near_label_conflicts: groups of near-duplicates with different labels.
        metadata_conflicts: image_id, label and diagnosis if these two differ.
        groups: images that a split must never separate: one lesion, or copies, transitively.
        cross_split_groups: groups that the audited split separates.
        test_images_leaking: test images whose group has a training image.
        val_images_leaking: validation images whose group has a training image.
        classes_left_out: classes in the folder that are not in ``dataset.classes``.
        classes_without_images: classes of ``dataset.classes`` that are not in the folder.
        against: the folder that the dataset was compared with, as typed; empty if there is none.
        shared_images: image_id, other (its path in the other folder), score and kind.
        unknown: what the audit cannot find without metadata, a sentence each.
        missing_images: names in the metadata table without a file in the folder.
        unlisted_images: files that the metadata table does not name; training leaves them out.
    """

    dataset: str
    n_images: int
    judged_split: str
    class_counts: dict[str, dict[str, int]]
    source_by_class: dict[str, dict[str, int]]
    class_sizes: dict[str, ClassSize]
    sources: SourceFindings
    random_splits: RandomSplitLeakage
    unreadable: list[dict[str, str]]
    suspicious: list[dict[str, str]]
    exact_duplicate_groups: list[Group]
    pixel_duplicate_groups: list[Group]
    near_duplicate_groups: list[Group]
    near_duplicate_pairs: list[dict[str, Any]]
    label_conflicts: list[Group]
    near_label_conflicts: list[Group]
    metadata_conflicts: list[dict[str, str]]
    groups: list[Group]
    cross_split_groups: list[Group]
    test_images_leaking: list[str]
    val_images_leaking: list[str]
    classes_left_out: list[str]
    classes_without_images: list[str]
    unknown: list[str]
    missing_images: list[str] = field(default_factory=list)
    unlisted_images: list[str] = field(default_factory=list)
    against: str = ""
    shared_images: list[dict[str, Any]] = field(default_factory=list)

    @property
    def leaks(self) -> bool:
        """Whether the published split separates a group; without one, whether there are groups."""
        if self.judged_split == "published":
            return bool(self.cross_split_groups)
        return bool(self.groups)

    def as_json(self) -> dict[str, Any]:
        """Convert the findings to plain containers; ``n_<name>`` precedes each list ``<name>``."""
        plain: dict[str, Any] = {}
        for name, value in dataclasses.asdict(self).items():
            if isinstance(value, list):
                plain[f"n_{name}"] = len(value)
            plain[name] = value
        return plain

    def to_text(self) -> str:
        """Return ``as_json`` as the text of ``audit.json``."""
        return json.dumps(self.as_json(), indent=1) + "\n"

    def write(self, path: Path) -> None:
        """Write ``as_json`` to a file; replace an older one."""
        replace_file(path, self.to_text())

    @property
    def digest(self) -> str:
        """A short hash of all findings."""
        text = json.dumps(self.as_json(), sort_keys=True)
        return hash_text(text, 16)


def describe_unresolved(findings: Findings, dataset: Dataset, protocol: str) -> str:
    """Describe in one line the problems that a run does not resolve; empty if there are none.

    The protocol is ``grouped``, ``ungrouped`` or ``leaking``.
    """
    parts = []
    if protocol == "leaking":
        parts.append("images that belong together lie on both sides of the split")
    kept = {
        OnConflict.keep: [*findings.label_conflicts, *findings.near_label_conflicts],
        OnConflict.error: findings.near_label_conflicts,  # identical images are refused
    }
    conflicts = len(kept.get(dataset.conflicts, []))
    if conflicts:
        groups = format_count(conflicts, "group")
        choice = f"dataset.conflicts={dataset.conflicts}"
        parts.append(f"{groups} of copies under different labels ({choice})")
    trusts_folder = isinstance(dataset, Isic9Dataset) and dataset.labels is LabelSource.folder
    if findings.metadata_conflicts and trusts_folder:
        parts.append(
            f"{len(findings.metadata_conflicts)} labels contradict the metadata's diagnosis "
            "(dataset.labels=folder)"
        )
    if not parts:
        return ""
    where = f" dataset.root={dataset.root}" if dataset.root else ""
    see = format_lab_command("audit", f"dataset={dataset.name}{where}")
    return f"Unresolved: {'; '.join(parts)}. See: {see}"
