"""Problems that follow from the findings of an audit: their effects on results and remedies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path

from rich.markup import escape

from melanoma_lab.audit.findings import CONFOUNDING_THRESHOLD, Findings, Group
from melanoma_lab.config.overrides import format_override
from melanoma_lab.core.console import console
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
        title: what was found, with its number.
        effect: the effect of the problem on results.
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
    """List all problems of a dataset, the most serious first."""
    return [*_leakage(findings), *_labels(findings), *_bias(findings), *_files(findings)]


def _leakage(findings: Findings) -> Iterator[Problem]:
    problem = partial(Problem, kind=ProblemKind.leakage)
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
        yield problem(
            key="cross_split_groups",
            title=f"The published split leaks: {what}.",
            effect="They show a lesion of the training images, or are copies of one of them. "
            "The accuracy on them measures what the network has memorised, and is too "
            f"optimistic. In all, {format_count(n_crossing, 'group')} of images that belong "
            "together are on both sides.",
            remedies=(
                Remedy("split=holdout", "makes a new split that keeps every group on one side"),
                Remedy(
                    "split=predefined split.leaking_test=drop",
                    "keeps the published split and leaves the leaking test images out",
                ),
            ),
            groups=findings.cross_split_groups,
        )
    if findings.groups:
        yield problem(
            key="groups",
            title=f"A random split of files would leak: {share} would have a training image of "
            "the same lesion or photograph.",
            effect=f"{format_count(len(findings.groups), 'group holds', 'groups hold')} "
            f"{sum(map(len, findings.groups))} of the {findings.n_images} images. A test or "
            "validation split that is drawn by file, not by group, contains lesions that the "
            "network was trained on.",
            remedies=(
                Remedy(
                    "dataset.groups=all split=holdout",
                    "never separates the images of a group (the default)",
                ),
            ),
            groups=[] if findings.judged_split == "published" else findings.cross_split_groups,
        )
    if findings.shared_images:
        shared = {row["image_id"]: f"same as {row['other']}" for row in findings.shared_images}
        yield problem(
            key="shared_images",
            title=f"{format_count(len(shared), 'image')} of {findings.n_images} are also in "
            f"{findings.against}.",
            effect="A network trained on one of the two datasets has seen images of the other: a "
            "test on these images is no external validation.",
            remedies=(Remedy("", "leave them out of the dataset that is used for testing"),),
            groups=[[image_id] for image_id in shared],
            notes=shared,
        )
    identical = len(findings.exact_duplicate_groups), len(findings.pixel_duplicate_groups)
    if any(identical):
        yield problem(
            key="exact_duplicate_groups",
            title=f"{format_count(identical[0], 'group')} of identical files"
            + (f", {identical[1]} more of identical pixels." if identical[1] else "."),
            effect="An image that occurs twice counts twice, in training and in every metric; on "
            "both sides of a split it leaks.",
            remedies=(joined,),
            groups=sorted([*findings.exact_duplicate_groups, *findings.pixel_duplicate_groups]),
        )
    if findings.near_duplicate_groups:
        yield problem(
            key="near_duplicate_groups",
            title=f"{format_count(len(findings.near_duplicate_groups), 'group')} of "
            "near-duplicates: the same photograph, or another of the same lesion, cropped, "
            "rotated, mirrored, brightened or re-encoded.",
            effect="To a network these are the same image: they leak as identical files do.",
            remedies=(joined,),
            groups=findings.near_duplicate_groups,
            notes={
                pair["second"]: f"{pair['kind']} ({pair['score']:.2f})"
                for pair in findings.near_duplicate_pairs
            },
        )


def _labels(findings: Findings) -> Iterator[Problem]:
    problem = partial(Problem, kind=ProblemKind.labels)
    ways = (
        Remedy("dataset.conflicts=drop", "leaves the whole group out"),
        Remedy(
            "dataset.conflicts=relabel",
            "uses the metadata's diagnosis; leaves out groups without one",
        ),
        Remedy(
            "dataset.conflicts=keep",
            "keeps the labels as published; only to reproduce a published result",
        ),
    )
    if findings.label_conflicts:
        n = sum(map(len, findings.label_conflicts))
        yield problem(
            key="label_conflicts",
            title=f"{format_count(len(findings.label_conflicts), 'group')} of identical images "
            f"under different labels ({n} images).",
            effect="At least one label of each group is wrong. No network can get all of them "
            "right, they give training contradictory targets, and the measured accuracy depends "
            "on which copy is in the test split.",
            remedies=ways,
            groups=findings.label_conflicts,
        )
    if findings.near_label_conflicts:
        n = sum(map(len, findings.near_label_conflicts))
        yield problem(
            key="near_label_conflicts",
            title=f"{format_count(len(findings.near_label_conflicts), 'group')} of near-duplicates "
            f"under different labels ({n} images).",
            effect="One photograph, or one lesion, cannot have two diagnoses: at least one label "
            "of each group is wrong.",
            remedies=ways,
            groups=findings.near_label_conflicts,
        )
    if findings.metadata_conflicts:
        yield problem(
            key="metadata_conflicts",
            title=format_count(
                len(findings.metadata_conflicts), "label contradicts", "labels contradict"
            )
            + " the diagnosis in the metadata.",
            effect="The folder names one disease and the archive another. A network that "
            "classifies such an image correctly is counted as wrong.",
            remedies=(
                Remedy("dataset=isic9_verified", "uses the archive's diagnosis (ISIC folder)"),
                Remedy(
                    "dataset.labels=diagnosis", "does the same for any folder with such a table"
                ),
            ),
            groups=[[row["image_id"]] for row in findings.metadata_conflicts],
            notes={
                row["image_id"]: f"diagnosis: {row['diagnosis']}"
                for row in findings.metadata_conflicts
            },
        )


def _bias(findings: Findings) -> Iterator[Problem]:
    problem = partial(Problem, kind=ProblemKind.bias)
    sources = findings.sources
    told_apart = sources.pairwise_accuracy or 0.0
    only = sources.single_source_classes
    if only or told_apart >= CONFOUNDING_THRESHOLD:
        yield problem(
            key="sources",
            title="The source predicts the class"
            + (
                f": {format_count(len(only), 'class', 'classes')} in one source only."
                if only
                else "."
            ),
            effect="The source of a photograph alone distinguishes two classes in "
            f"{format_percent(told_apart, 0)} of cases (chance: 50 %; Cramér's V "
            f"{sources.cramers_v:.2f}). A network can learn the camera instead of the disease, "
            "and a test split from the same sources cannot reveal it.",
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
        yield problem(
            key="class_sizes",
            title=f"{format_count(len(small), 'class', 'classes')} too small to measure.",
            effect="With so few test lesions a sensitivity is very uncertain: its 95 % interval "
            "is more than 20 points wide on either side. A class with fewer than three lesions "
            "cannot be divided into train, val and test.",
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
        yield problem(
            key="classes_left_out",
            title="The folder's classes are not those of dataset.classes.",
            effect="Training ignores images of other classes, and stops if a class has no images.",
            remedies=(Remedy("dataset.classes=null", "uses all classes of the folder"),),
            notes=notes,
        )


def _files(findings: Findings) -> Iterator[Problem]:
    problem = partial(Problem, kind=ProblemKind.files)
    if findings.unreadable:
        yield problem(
            key="unreadable",
            title=f"{format_count(len(findings.unreadable), 'file')} cannot be read.",
            effect="Training does not start, so that no image is left out unnoticed.",
            remedies=(Remedy("dataset.on_unreadable=skip", "leaves them out and prints how many"),),
            notes={row["image_id"]: row["reason"] for row in findings.unreadable},
        )
    if findings.missing_images:
        names = findings.missing_images
        yield problem(
            key="missing_images",
            title=f"The metadata table names {format_count(len(names), 'image')} not in the "
            "folder.",
            effect="An interrupted download lacks images, perhaps most of one class; a table of "
            "a larger collection is harmless. Only images in the folder are used.",
            remedies=(Remedy("", "download them if they should be in the folder"),),
            notes=dict.fromkeys(names, "named in the table, no such file"),
        )
    if findings.unlisted_images:
        names = findings.unlisted_images
        yield problem(
            key="unlisted_images",
            title=f"{format_count(len(names), 'image')} in the folder not named in the "
            "metadata table.",
            effect="They have no label, so they are left out of training and of all counts here.",
            remedies=(Remedy("", "add rows for them, or remove them"),),
            notes=dict.fromkeys(names, "no row in the table"),
        )
    if findings.suspicious:
        notes: dict[str, str] = {}
        for row in findings.suspicious:
            earlier = notes.get(row["image_id"])
            notes[row["image_id"]] = f"{earlier}; {row['reason']}" if earlier else row["reason"]
        yield problem(
            key="suspicious",
            title=f"{format_count(len(notes), 'file')} can be read but look wrong.",
            effect="An image of one colour or of a few pixels shows no lesion; a wrong extension "
            "often means a failed download or export.",
            remedies=(Remedy("", "inspect them, then repair or remove them"),),
            groups=[[image_id] for image_id in notes],
            notes=notes,
        )


def show_findings(findings: Findings, problems: Sequence[Problem], folder: Path) -> None:
    """Print the summary of an audit, whose report is in ``folder``."""
    counts = findings.class_counts
    parts = ", ".join(f"{sum(classes.values())} {part}" for part, classes in counts.items())
    split = (
        f"published as {parts}" if findings.judged_split == "published" else "no published split"
    )
    n_classes = len({name for classes in counts.values() for name in classes})
    console.print(
        f"[bold]{findings.dataset}[/]: {findings.n_images} images, {n_classes} classes, {split}\n"
    )
    for number, problem in enumerate(problems, 1):
        console.print(f"[bold]{number}. {escape(problem.title)}[/]")
        console.print(f"   {problem.effect}", markup=False)
        example = _example(problem)
        if example:
            console.print(f"   For example {example}", markup=False, style="dim")
        for remedy in problem.remedies:
            line = f"[green]{escape(remedy.line)}[/]  " if remedy.line else ""
            console.print(f"   -> {line}{escape(remedy.effect)}")
        console.print()
    if not problems:
        console.print("[green]No problem was found.[/]\n")
    for sentence in findings.unknown:
        console.print(f"Unknown: {sentence}", style="dim", markup=False)
    console.print(
        f"page with images: [bold]{folder / 'audit.html'}[/]   all findings: "
        f"{folder / 'audit.json'}\n"
        "[dim]Research use only: not a medical device.[/]"
    )


def _example(problem: Problem) -> str:
    """Describe the first image or group of a problem in one line; empty if there is none."""
    if problem.notes:
        name, note = next(iter(problem.notes.items()))
        return f"{name}: {note}"
    return "  and  ".join(problem.groups[0]) if problem.groups else ""
