"""Load the finished runs of a study from MLflow, with their predictions and metrics."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.core.errors import UserError, get_first_line
from melanoma_lab.core.files import hash_text
from melanoma_lab.core.formatting import format_count, format_list, slugify
from melanoma_lab.evaluation import metrics
from melanoma_lab.evaluation.influence import Estimate, estimate_run
from melanoma_lab.tracking.arm_runs import (
    FOLDS_TAG,
    SEEDS_TAG,
    RunKey,
    find_arm_runs,
    load_predictions,
    read_covered_repetitions,
    read_run_key,
)

#: Metrics whose values by epoch are drawn as learning curves.
CURVES = ("train_accuracy", "val_accuracy")
#: Metrics of a run that are reported as its costs.
COSTS = ("fit_seconds", "optimizer_steps", "parameters", "best_epoch")


@dataclass(frozen=True)
class StudyRun:
    """A finished run of a study.

    Attributes:
        costs: those of ``COSTS`` that it recorded, and ``images_per_second`` of its last epoch.
        estimates: metric -> value, with the influence of each test lesion for its uncertainty.
        judged: the split on which it is evaluated: ``test``, or ``val`` if test was not predicted.
        confusion: counts of evaluated images by true class (row) and predicted class; int64, shape
            (K, K).
        judged_images: a digest of the evaluated images, their groups and their labels.
        lone_classes: classes with a single group in the evaluated split.
        curves: name from ``CURVES`` -> a value for each epoch.
    """

    run_id: str
    key: RunKey
    tags: Mapping[str, str]
    costs: Mapping[str, float]
    estimates: Mapping[str, Estimate]
    slugs: tuple[str, ...]
    judged: str
    confusion: NDArray[np.int64]
    judged_images: str
    lone_classes: tuple[str, ...]
    curves: Mapping[str, Sequence[float]]

    @property
    def is_ensemble(self) -> bool:
        """Whether it is an ensemble: the mean of other runs' predictions."""
        return SEEDS_TAG in self.tags

    @cached_property
    def covers(self) -> frozenset[tuple[int, int]]:
        """The (seed, fold) of its training; for an ensemble, those of all its members."""
        return read_covered_repetitions(self.tags)

    def __str__(self) -> str:
        return f"{self.key} (run {self.run_id})"


@dataclass(frozen=True)
class Study:
    """The runs of a study.

    Attributes:
        runs: the newest finished run of each arm, seed and fold, sorted in that order.
        unfinished: arm, seed and fold without a finished run -> status of the newest run.
        remarks: sentences for the reader about runs that were left out.
        positive_class: the slug of the positive class; None if the dataset names none.
        root: the dataset folder of the first run; None if the dataset needs none.
    """

    name: str
    runs: tuple[StudyRun, ...]
    unfinished: Mapping[RunKey, str]
    remarks: tuple[str, ...]
    positive_class: str | None
    root: str | None

    @property
    def judged(self) -> str:
        """The split on which its runs are evaluated."""
        return self.runs[0].judged

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms that have finished runs, in alphabetical order."""
        return tuple(dict.fromkeys(run.key.arm for run in self.runs))


def load_study(client: Any, name: str, progress: Callable[[int, int], None] | None = None) -> Study:
    """Read the finished runs of a study and their predictions.

    Raises:
        UserError: there is no such study, it has no finished run, no run has a predictions table,
            or the runs have different data or, for the same seed and fold, different splits.
    """
    tracked = find_arm_runs(client, name)
    finished: dict[RunKey, list[Any]] = defaultdict(list)
    unfinished: dict[RunKey, str] = {}
    for run in tracked:  # newest first
        key = read_run_key(run)
        if run.info.status == "FINISHED":
            finished[key].append(run)
        else:
            reason = run.data.tags.get("reason", "")
            unfinished.setdefault(key, f"{run.info.status}{f': {reason}' if reason else ''}")
    if not tracked:
        raise UserError(
            f"study={name}: no arm has been trained in it; evaluations and searches are not "
            "compared."
        )
    if not finished:
        raise UserError(f"study={name}: no run of it has finished yet.")
    newest = {key: finished[key][0] for key in sorted(finished)}
    _check_data(newest)
    _check_splits(newest)
    remarks = list(_describe_older_runs(finished))
    positive_class = _find_melanoma_slug(newest.values())
    runs = []
    shared: dict[bytes, NDArray[np.str_]] = {}
    for done, (key, run) in enumerate(newest.items(), start=1):
        try:
            runs.append(_read_run(client, key, run, positive_class, shared))
        except (OSError, ValueError) as error:
            reason = get_first_line(error)
            remarks.append(f"{key} (run {run.info.run_id}) is left out: {reason}")
        if progress:
            progress(done, len(newest))
    if not runs:
        raise UserError(f"study={name}: no run of it has predictions to compare.\n{remarks[0]}")
    _check_images(runs)
    root = next(iter(newest.values())).data.params.get("dataset.root", "null")
    return Study(
        name=name,
        runs=tuple(runs),
        unfinished={k: unfinished[k] for k in sorted(unfinished) if k not in finished},
        remarks=tuple(remarks),
        positive_class=positive_class,
        root=None if root == "null" else str(root),
    )


def _describe_older_runs(finished: Mapping[RunKey, Sequence[Any]]) -> Iterator[str]:
    """Yield a remark on each run's older runs that have another fingerprint."""
    for key, runs in finished.items():
        newest, *older = (run.data.tags.get("fingerprint") for run in runs)
        if n_others := sum(fingerprint != newest for fingerprint in older):
            yield (
                f"{key}: {format_count(n_others, 'older run')} of this name had another "
                "configuration (fingerprint); the newest is used."
            )


def _check_data(runs: Mapping[RunKey, Any]) -> None:
    """Refuse to compare runs on different data."""
    images = _group_by_tag(runs, "dataset_digest")
    what = "These runs saw different images or labels (dataset_digest)"
    _refuse_several(images, what, "dataset")
    metadata = _group_by_tag(runs, "metadata_digest")
    metadata.pop("", None)  # arms that use no patient metadata
    what = "These runs used different metadata of the same patients (metadata_digest)"
    _refuse_several(metadata, what, "dataset")


def _group_by_tag(runs: Mapping[RunKey, Any], tag: str) -> dict[str, list[str]]:
    """Group the runs by the value of a tag."""
    found: dict[str, list[str]] = defaultdict(list)
    for key, run in runs.items():
        found[run.data.tags.get(tag, "")].append(f"{key} ({run.info.run_id})")
    return found


def _refuse_several(found: Mapping[str, list[str]], what: str, shared: str) -> None:
    """Refuse runs that differ in a property that all must share."""
    if len(found) > 1:
        raise UserError(
            f"{what} and cannot be compared: "
            + "; ".join(f"{digest}: {format_list(names, 4)}" for digest, names in found.items())
            + f". Give each {shared} its own study."
        )


def _check_splits(runs: Mapping[RunKey, Any]) -> None:
    """Refuse to pair runs whose splits differ."""
    by_pair: dict[tuple[int, int], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for key, run in runs.items():
        if "," in run.data.tags.get(FOLDS_TAG, ""):
            continue  # an ensemble over folds has its own split; ``_check_images`` checks it
        split = run.data.tags.get("split_hash", "")
        by_pair[key.seed, key.fold][split].append(f"{key} ({run.info.run_id})")
    for (seed, fold), splits in by_pair.items():
        what = f"Runs of seed {seed}, fold {fold} have different splits (split_hash)"
        _refuse_several(splits, what, "split")


def _check_images(runs: Iterable[StudyRun]) -> None:
    """Refuse runs that are evaluated on different splits, or on different images of one split."""
    runs = tuple(runs)
    by_split: dict[str, list[str]] = defaultdict(list)
    for run in runs:
        by_split[run.judged].append(f"{run}")
    if len(by_split) > 1:
        raise UserError(
            "Some of these runs did not use the test split (evaluation.test=false), such as "
            f"{format_list(by_split['val'], 1)}, others did, such as "
            f"{format_list(by_split['test'], 1)}: they are not evaluated on the same images. "
            "Give each kind its own study."
        )
    seen: dict[tuple[int, int], StudyRun] = {}
    for run in runs:
        first = seen.setdefault((run.key.seed, run.key.fold), run)
        if (first.judged_images, first.slugs) != (run.judged_images, run.slugs):
            raise UserError(
                f"The predictions of {first} and {run} are not of the same images, groups, "
                "labels and classes, although their split is the same: one was edited."
            )


def _find_melanoma_slug(runs: Iterable[Any]) -> str | None:
    """Return the slug of the positive class that the runs' configuration names, or None."""
    names = {run.data.params.get("dataset.positive_class", "null") for run in runs} - {"null"}
    return slugify(names.pop()) if len(names) == 1 else None


def _read_run(
    client: Any,
    key: RunKey,
    run: Any,
    positive_class: str | None,
    shared: dict[bytes, NDArray[np.str_]],
) -> StudyRun:
    """Read a run with its predictions and learning curves.

    Args:
        shared: the names of groups of the runs read before; equal arrays are held only once, which
            saves memory with many runs.

    Raises:
        OSError: the predictions table is missing.
        ValueError: the file is not a predictions table, or lacks the melanoma class.
    """
    predictions = load_predictions(client, run)
    evaluated = predictions.evaluated
    table = predictions.table
    images = table[table["split"] == evaluated.name]
    labelled = images.sort_values("image_id")[["image_id", "group", "y_true"]]
    groups = images.drop_duplicates(["group", "y_true"])["y_true"].value_counts()
    recorded = run.data.metrics
    costs = {name: recorded[name] for name in COSTS if name in recorded}
    if "epoch/images_per_second" in recorded:
        costs["images_per_second"] = recorded["epoch/images_per_second"]
    return StudyRun(
        run_id=run.info.run_id,
        key=key,
        tags=run.data.tags,
        costs=costs,
        estimates={
            metric: replace(
                estimate, groups=shared.setdefault(estimate.groups.tobytes(), estimate.groups)
            )
            for metric, estimate in estimate_run(predictions, positive_class).items()
        },
        slugs=predictions.slugs,
        judged=evaluated.name,
        confusion=metrics.confusion_matrix(evaluated.y_true, evaluated.y_score),
        judged_images=hash_text(labelled.to_csv(index=False)),
        lone_classes=tuple(name for name in predictions.slugs if groups.get(name, 0) == 1),
        curves={name: _read_curve(client, run.info.run_id, f"epoch/{name}") for name in CURVES},
    )


def _read_curve(client: Any, run_id: str, metric: str) -> tuple[float, ...]:
    points = client.get_metric_history(run_id, metric)
    return tuple(point.value for point in sorted(points, key=lambda point: point.step))
