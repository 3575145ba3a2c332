"""Console output of ``evaluate``: the dataset, its overlap with the training, and the metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import pandas as pd

from melanoma_lab.core.console import console
from melanoma_lab.core.formatting import format_percent
from melanoma_lab.data.labels import slugify
from melanoma_lab.data.split import TEST, TRAIN, VAL
from melanoma_lab.evaluation.confidence_intervals import IntervalEstimate
from melanoma_lab.evaluation.out_of_distribution import WITHIN
from melanoma_lab.inference.external_validation.training_overlap import ImageRoles
from melanoma_lab.inference.known_images import TRAINED_ON_KEY, TrainingRun
from melanoma_lab.input_pipeline.prepare import PreparedData
from melanoma_lab.runs import run_messages

LOUD: Final = "bold red"
NOTE: Final = "yellow"


def show_dataset(data: PreparedData, name: str, matched: Mapping[str, str | None]) -> None:
    """Print the dataset's size, its notes, and its classes that are mapped or left out."""
    groups = data.manifest["group"].nunique()
    console.print(
        f"{name}: {len(data.manifest):,} images in {groups:,} groups, {len(data.classes)} classes",
        markup=False,
    )
    notes = [*data.notes, *([data.unresolved] if data.unresolved else [])]
    sizes = data.manifest["label"].value_counts()
    for class_name, to in matched.items():
        images = f"{class_name!r} ({sizes.get(class_name, 0):,} images)"
        if to is None:
            notes.append(f"{images} are left out: the model does not have this class.")
        elif to != slugify(class_name):
            notes.append(f"{images} are mapped to the model's {to}.")
    for note in notes:
        console.print(f"  {note}", style=NOTE, markup=False)


def show_training_overlap(
    roles: ImageRoles | None, known: pd.DataFrame | None, *, kept: bool
) -> None:
    """Print which images the model has seen in its training.

    Args:
        roles: the role of each image in the model's training; None if that is unknown.
        known: the images of the model's training, from ``find_known_images``; None if unknown.
        kept: whether seen images are evaluated all the same.
    """
    if roles is None or known is None:
        console.print(
            "  Overlap with the training images was not checked: the model's training images "
            "are unknown. Metrics may include images that the model has seen. Name their "
            f"folder: {TRAINED_ON_KEY}=DIR.",
            style=LOUD,
            markup=False,
        )
        return
    n = int(roles.seen.sum())
    splits = ", ".join(f"{(roles.role == role).sum():,} {role}" for role in (TRAIN, VAL))
    if n:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in roles.counts().items())
        console.print(
            f"  {n:,} of {len(roles.seen):,} images overlap with the model's training or "
            f"validation images ({splits}): {kinds}. "
            + (
                "They are kept (evaluation.overlap=keep): metrics are too optimistic."
                if kept
                else "They are left out."
            ),
            style=LOUD if kept else NOTE,
            markup=False,
        )
    else:
        console.print(
            "  None of these images overlaps with the model's training or validation images."
        )
    n_own = int((roles.role == TEST).sum())
    if n_own:
        console.print(
            "  Of lesions in its own test split, never seen but from the same source: "
            f"{n_own:,} images.",
            style=NOTE,
        )
    missing = int((known["path"] == "").sum())
    if missing:
        console.print(
            f"  Near-identical images were not searched among {missing:,} of the "
            f"{len(known):,} images of the model's run: they have been moved or changed. "
            "Identical files, archive ids and lesions were compared. Name the folder of the "
            f"images: {TRAINED_ON_KEY}=DIR.",
            style=LOUD,
            markup=False,
        )


def show_evaluation_metrics(
    metrics: Mapping[str, float], run: TrainingRun, name: str, interval: IntervalEstimate
) -> None:
    """Print the metrics, next to those of the model's own test split if they are known."""
    columns = {name: _select_test_metrics(metrics)}
    if own := _select_test_metrics(run.metrics):
        columns["its own test split"] = own
    run_messages.show_metric_table(columns)
    if not np.isnan(interval.value):
        console.print(
            f"\nbalanced accuracy {format_percent(interval.value)}, 95 % interval over lesions "
            f"{format_percent(interval.low)} to {format_percent(interval.high)}"
        )


def _select_test_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics of the test split by name without ``test/``."""
    return {key.removeprefix("test/"): value for key, value in metrics.items() if "test/" in key}


def show_unlike_share(n_unlike: int, n_images: int) -> None:
    """Print how many images do not resemble those that the model was trained on."""
    console.print(
        f"{n_unlike:,} of {n_images:,} images ({format_percent(n_unlike / n_images)}) look "
        f"unlike the training images; {format_percent(1 - WITHIN, 0)} are expected of images "
        "like those.",
        style=NOTE if n_unlike > 2 * (1 - WITHIN) * n_images else "",
    )
