"""Problems that follow from the findings of an audit: their effects on results and remedies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from melanoma_lab.audit.class_checks import CONFOUNDING_THRESHOLD
from melanoma_lab.audit.findings import Findings, Group
from melanoma_lab.config.overrides import format_override
from melanoma_lab.core.formatting import format_count, format_percent


class ProblemKind(StrEnum):
    """Kinds of problems, by what they affect."""

    leakage = "leakage"
    labels = "labels"
    bias = "bias"
    files = "files"


@dataclass(frozen=True)
class Remedy:
    """A way to resolve a problem.

    Attributes:
        line: overrides to add to the command; empty if no setting helps.
        effect: what the overrides do, or what to do instead.
    """

    line: str
    effect: str


@dataclass(frozen=True)
class Problem:
    """A problem of a dataset.

    Attributes:
        key: name of the attribute of ``Findings`` that the problem is about.
        kind: kind of the problem.
        title: what was found, with its number.
        effect: the effect of the problem on results.
        remedies: ways to resolve the problem.
        groups: groups of images to show side by side.
        notes: image_id or class -> note about it.
    """

    key: str
    kind: ProblemKind
    title: str
    effect: str
    remedies: tuple[Remedy, ...] = ()
    groups: list[Group] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)


def find_problems(findings: Findings) -> list[Problem]:
    """List all problems of a dataset, the most serious first.

    Args:
        findings: findings of an audit.
    """
    return [*_leakage(findings), *_labels(findings), *_bias(findings), *_files(findings)]


def _leakage(findings: Findings) -> Iterator[Problem]:
    splits = findings.random_splits
    share = (
        f"{format_percent(splits.leaking_share_mean)} of the test images "
        f"({format_percent(splits.leaking_share_min)} to "
        f"{format_percent(splits.leaking_share_max)} over "
        f"{splits.n_seeds} splits)"
    )
    joined = Remedy("dataset.groups=all", "keeps every group on one side (the default)")
    counts = findings.class_counts
    n_crossing = len(findings.cross_split_groups)
    if findings.judged_split == "published" and n_crossing:
        sides = [
            f"{len(leaking)} of {sum(counts[split].values())} {word} images"
            for split, word, leaking in (
                ("test", "test", findings.test_images_leaking),
                ("val", "validation", findings.val_images_leaking),
            )
            if leaking
        ]
        what = f"{' and '.join(sides)} belong together with training images"
        if not sides:
            what = (
                f"{format_count(n_crossing, 'group')} lie in both the validation and the test split"
            )
        yield Problem(
            key="cross_split_groups",
            kind=ProblemKind.leakage,
            title=f"The published split leaks: {what}.",
            effect="They show a lesion, or are a copy of a photograph, that the network has seen. "
            "Its accuracy there measures memory, not skill, and looks better than it is. "
            f"In all, {format_count(n_crossing, 'group')} of images that belong together "
            "are on both sides.",
            remedies=(
                Remedy("split=holdout", "divides anew, whole groups at a time"),
                Remedy(
                    "split=predefined split.leaking_test=drop",
                    "keeps the published split and leaves the leaking test images out",
                ),
            ),
            groups=findings.cross_split_groups,
        )
    if findings.groups:
        yield Problem(
            key="groups",
            kind=ProblemKind.leakage,
            title=f"A random split of files would leak: {share} would have a training image of "
            "the same lesion or photograph.",
            effect=f"{format_count(len(findings.groups), 'group holds', 'groups hold')} "
            f"{sum(map(len, findings.groups))} of the {findings.n_images} images. Whoever draws "
            "files instead of groups, for a test or a validation split, trains on a part of what "
            "is measured afterwards.",
            remedies=(
                Remedy("dataset.groups=all split=holdout", "never divides a group (the default)"),
            ),
            groups=[] if findings.judged_split == "published" else findings.cross_split_groups,
        )
    if findings.shared_images:
        shared = {row["image_id"]: f"is {row['other']}" for row in findings.shared_images}
        yield Problem(
            key="shared_images",
            kind=ProblemKind.leakage,
            title=f"{format_count(len(shared), 'image')} of {findings.n_images} are in "
            f"{findings.against} too.",
            effect="A network trained on the one is no stranger to the other: a test on these "
            "images says nothing about images from elsewhere.",
            remedies=(Remedy("", "leave them out of whichever of the two is the test set"),),
            groups=[[image_id] for image_id in shared],
            notes=shared,
        )
    identical = len(findings.exact_duplicate_groups), len(findings.pixel_duplicate_groups)
    if any(identical):
        yield Problem(
            key="exact_duplicate_groups",
            kind=ProblemKind.leakage,
            title=f"{format_count(identical[0], 'group')} of identical files"
            + (f", {identical[1]} more of identical pixels." if identical[1] else "."),
            effect="A picture that is there twice counts twice, in training and in every figure; "
            "on both sides of a split it leaks.",
            remedies=(joined,),
            groups=sorted([*findings.exact_duplicate_groups, *findings.pixel_duplicate_groups]),
        )
    if findings.near_duplicate_groups:
        yield Problem(
            key="near_duplicate_groups",
            kind=ProblemKind.leakage,
            title=f"{format_count(len(findings.near_duplicate_groups), 'group')} of "
            "near-duplicates: one photograph, or the next of the same lesion, cut, turned, "
            "mirrored, brightened or encoded anew.",
            effect="To a network these are the same picture: they leak as identical files do.",
            remedies=(joined,),
            groups=findings.near_duplicate_groups,
            notes={
                image_id: f"{pair['kind']} ({pair['score']:.2f})"
                for pair in findings.near_duplicate_pairs
                for image_id in [pair["second"]]
            },
        )


def _labels(findings: Findings) -> Iterator[Problem]:
    ways = (
        Remedy("dataset.conflicts=drop", "leaves the whole group out"),
        Remedy("dataset.conflicts=relabel", "takes the metadata's diagnosis; drops where none is"),
        Remedy("dataset.conflicts=keep", "as published; only to reproduce somebody's result"),
    )
    if findings.label_conflicts:
        n = sum(map(len, findings.label_conflicts))
        yield Problem(
            key="label_conflicts",
            kind=ProblemKind.labels,
            title=f"{format_count(len(findings.label_conflicts), 'group')} of identical images "
            f"under different labels ({n} images).",
            effect="At least one label of each group is wrong. No network can get all of them "
            "right, training on them pulls two ways, and the measured accuracy depends on which "
            "copy lies in the test split.",
            remedies=ways,
            groups=findings.label_conflicts,
        )
    if findings.near_label_conflicts:
        n = sum(map(len, findings.near_label_conflicts))
        yield Problem(
            key="near_label_conflicts",
            kind=ProblemKind.labels,
            title=f"{format_count(len(findings.near_label_conflicts), 'group')} of near-duplicates "
            f"under different labels ({n} images).",
            effect="One photograph, or one lesion, cannot have two diagnoses: at least one label "
            "of each group is wrong.",
            remedies=ways,
            groups=findings.near_label_conflicts,
        )
    if findings.metadata_conflicts:
        yield Problem(
            key="metadata_conflicts",
            kind=ProblemKind.labels,
            title=f"{format_count(len(findings.metadata_conflicts), 'label')} against the "
            "diagnosis in the metadata.",
            effect="The folder says one disease and the archive another. A network that is right "
            "about such an image is counted as wrong.",
            remedies=(
                Remedy("dataset=isic9_verified", "trusts the archive's diagnosis (ISIC folder)"),
                Remedy("dataset.labels=diagnosis", "the same for any folder with such a table"),
            ),
            groups=[[row["image_id"]] for row in findings.metadata_conflicts],
            notes={
                row["image_id"]: f"diagnosis: {row['diagnosis']}"
                for row in findings.metadata_conflicts
            },
        )


def _bias(findings: Findings) -> Iterator[Problem]:
    sources = findings.sources
    told_apart = sources.pairwise_accuracy or 0.0
    only = sources.single_source_classes
    if only or told_apart >= CONFOUNDING_THRESHOLD:
        yield Problem(
            key="sources",
            kind=ProblemKind.bias,
            title="The source gives the class away"
            + (
                f": {format_count(len(only), 'class', 'classes')} in one source only."
                if only
                else "."
            ),
            effect="Knowing nothing but where a photograph comes from tells two classes apart in "
            f"{format_percent(told_apart, 0)} of cases (guessing: 50 %; Cramér's V "
            f"{sources.cramers_v:.2f}). A network can learn the camera instead of the disease, "
            "and a test split from the same sources cannot tell the difference.",
            remedies=(
                Remedy(
                    "'dataset.classes=[...]'",
                    "compare classes that come from the same sources, and measure on images from "
                    "elsewhere",
                ),
            ),
            notes={name: f"from {source} only" for name, source in only.items()},
        )
    sizes = findings.class_sizes
    small = {name: size for name, size in sizes.items() if not size.measurable}
    if small:
        kept = [name for name in sizes if name not in small]
        yield Problem(
            key="class_sizes",
            kind=ProblemKind.bias,
            title=f"{format_count(len(small), 'class', 'classes')} too small to measure.",
            effect="So few test lesions make a sensitivity a matter of luck: its 95 % interval is "
            "wider than 20 points both ways. A class with fewer than three groups cannot be "
            "divided into train, val and test at all.",
            remedies=(
                Remedy("split=kfold", "tests every image once, in one of the folds"),
                *(
                    [Remedy(format_override("dataset.classes", kept), "leaves these classes out")]
                    if len(kept) > 1
                    else []
                ),
            ),
            notes={
                name: f"{format_count(size.test_groups, 'test lesion')}, {size.groups} in all: "
                + (
                    f"± {format_percent(size.margin, 0)}"
                    if size.splittable
                    else "cannot be divided"
                )
                for name, size in small.items()
            },
        )
    if findings.classes_left_out or findings.classes_without_images:
        notes = dict.fromkeys(findings.classes_left_out, "in the folder, not in dataset.classes")
        notes |= dict.fromkeys(findings.classes_without_images, "in dataset.classes, not found")
        yield Problem(
            key="classes_left_out",
            kind=ProblemKind.bias,
            title="The folder's classes are not those of dataset.classes.",
            effect="Training leaves images of other classes out, and refuses a class without "
            "images.",
            remedies=(Remedy("dataset.classes=null", "takes the folder's classes as they are"),),
            notes=notes,
        )


def _files(findings: Findings) -> Iterator[Problem]:
    if findings.unreadable:
        yield Problem(
            key="unreadable",
            kind=ProblemKind.files,
            title=f"{format_count(len(findings.unreadable), 'file')} cannot be read.",
            effect="Training refuses to start, so that nothing is left out without your knowing.",
            remedies=(Remedy("dataset.on_unreadable=skip", "leaves them out and says so"),),
            notes={row["image_id"]: row["reason"] for row in findings.unreadable},
        )
    if findings.missing_images:
        names = findings.missing_images
        yield Problem(
            key="missing_images",
            kind=ProblemKind.files,
            title=f"The metadata table names {format_count(len(names), 'image')} not in the "
            "folder.",
            effect="A download that broke off loses images, perhaps most of one class; a table of "
            "a larger collection does no harm. Only images that are there take part.",
            remedies=(Remedy("", "fetch them, if they were meant to be there"),),
            notes=dict.fromkeys(names, "named in the table, no such file"),
        )
    if findings.unlisted_images:
        names = findings.unlisted_images
        yield Problem(
            key="unlisted_images",
            kind=ProblemKind.files,
            title=f"{format_count(len(names), 'image')} in the folder not named in the "
            "metadata table.",
            effect="Nothing says what they show, so they are left out, of training and of all "
            "counts here.",
            remedies=(Remedy("", "add rows for them, or remove them"),),
            notes=dict.fromkeys(names, "no row in the table"),
        )
    if findings.suspicious:
        notes: dict[str, str] = {}
        for row in findings.suspicious:
            earlier = notes.get(row["image_id"])
            notes[row["image_id"]] = f"{earlier}; {row['reason']}" if earlier else row["reason"]
        yield Problem(
            key="suspicious",
            kind=ProblemKind.files,
            title=f"{format_count(len(notes), 'file')} can be read but look wrong.",
            effect="A picture of one colour or of a few pixels teaches nothing and is "
            "classified by luck; a wrong extension often means a failed download or export.",
            remedies=(Remedy("", "look at them, and mend or remove them"),),
            groups=[[image_id] for image_id in notes],
            notes=notes,
        )
