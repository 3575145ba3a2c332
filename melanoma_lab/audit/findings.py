"""What an audit found in a dataset: plain data, and what a split of it would leak."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from melanoma_lab.audit.class_checks import ClassSize, SourceFindings
from melanoma_lab.core.atomic_files import replace_file
from melanoma_lab.core.checksums import hash_text

Group = list[str]


@dataclass(frozen=True)
class RandomSplitLeakage:
    """What random splits of files, not groups, would leak.

    Attributes:
        test_share: of the images.
        n_seeds: how many splits were drawn.
        leaking_share_mean: share of test images whose group has a training image, over the splits.
        leaking_share_min: the lowest.
        leaking_share_max: the highest.
    """

    test_share: float
    n_seeds: int
    leaking_share_mean: float
    leaking_share_min: float
    leaking_share_max: float


@dataclass(frozen=True)
class Findings:
    """Everything an audit found; ``as_json`` is ``audit.json``.

    Images are named by image_id, groups are sorted lists of them, every list is sorted. Files that
    cannot be read are counted in ``n_images`` and ``class_counts`` and are in no group.

    Attributes:
        dataset: name of the dataset option.
        n_images: files found.
        judged_split: ``published``, or ``random`` where the folder has no split of its own: then
            the split is the first of ``random_splits``.
        class_counts: split -> class -> images; the split is ``all`` where none was published.
        source_by_class: class -> source -> images; ``unknown`` where nothing says.
        class_sizes: what each class is good for.
        sources: how much the source of a photograph gives away of its class.
        random_splits: what a random split of files would leak.
        unreadable: image_id and reason.
        suspicious: image_id and reason, for files that can be read and yet look wrong.
        exact_duplicate_groups: files of the same bytes.
        pixel_duplicate_groups: files of different bytes that decode to the same pixels.
        near_duplicate_groups: copies of one photograph, at least two of them of different bytes.
        near_duplicate_pairs: first, second, score and kind (what was changed) of what ties them.
        label_conflicts: groups of the same bytes or pixels under different labels.
        near_label_conflicts: near_duplicate_groups under different labels.
        metadata_conflicts: image_id, label and diagnosis where the two differ.
        groups: images that a split must never separate: one lesion, or copies, transitively.
        cross_split_groups: those of them that the judged split separates.
        test_images_leaking: test images whose group has a training image.
        val_images_leaking: validation images whose group has a training image.
        classes_left_out: classes in the folder that are not in ``dataset.classes``.
        classes_without_images: classes of ``dataset.classes`` that are not in the folder.
        against: the other folder that was compared, as it was typed; empty where none was.
        shared_images: image_id, other (its path in the other folder), score and kind.
        unknown: what the audit cannot know for lack of metadata, a sentence each.
        missing_images: names in the metadata table that no file in the folder has.
        unlisted_images: files that the metadata table does not name and training leaves out.
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
        """Whether the published split, or most random ones, separate what belongs together."""
        if self.judged_split == "published":
            return bool(self.cross_split_groups)
        return bool(self.groups)

    def as_json(self) -> dict[str, Any]:
        """Plain containers; every list has a twin ``n_<name>`` before it."""
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
        """A short hash of everything that was found."""
        text = json.dumps(self.as_json(), sort_keys=True)
        return hash_text(text, 16)
