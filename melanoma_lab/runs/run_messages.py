"""Console output of a training command: the data, the hardware, the progress and the results."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from melanoma_lab.config.schema import Config
from melanoma_lab.config.schema.tracking import DEFAULT_TRACKING_URI, mask_password
from melanoma_lab.config.schema.training import Precision
from melanoma_lab.core.console import console, show_note
from melanoma_lab.core.formatting import (
    format_difference,
    format_list,
    format_metric,
    format_percent,
    label_metric,
    split_positive_class_metric,
)
from melanoma_lab.core.shell_commands import format_lab_command, format_program
from melanoma_lab.data.split import SPLITS
from melanoma_lab.input_pipeline.prepare import PreparedData
from melanoma_lab.training.hardware import Hardware

if TYPE_CHECKING:  # these imports would load SciPy and delay the first step
    from melanoma_lab.evaluation.clinical_evaluation import ClinicalEvaluation
    from melanoma_lab.evaluation.evaluated_run import ChanceCheck

SINGLE_SEED_ADVICE = (
    "One seed is a single sample: compare arms over several seeds (seed=0,1,2,3,4)."
)
#: The most classes whose sizes are printed; a dataset may have hundreds.
MAX_CLASSES = 20
#: Explains a dataset without names of lesions and patients.
UNGROUPED_WARNING = (
    "The dataset names no lesions or patients: photographs of one lesion may be on both sides of "
    "the split, so metrics may be too optimistic."
)
#: Metrics in the first rows of the final table, and in the last; between are the positive class's.
FIRST_ROWS = ("balanced_accuracy", "accuracy", "macro_f1", "macro_auroc")
LAST_ROWS = ("log_loss", "ece")


def show_data(data: PreparedData) -> None:
    """Print the dataset's size, its split, its classes, and notes on what was changed in it."""
    counts = data.manifest["split"].value_counts()
    groups = data.manifest["group"].nunique()
    console.print(
        f"{len(data.manifest)} images in {groups} groups: "
        + ", ".join(f"{counts.get(split, 0)} {split}" for split in SPLITS),
        markup=False,
    )
    sizes = data.manifest["label"].value_counts()
    classes = [f"{name} {sizes.get(name, 0)}" for name in data.classes]
    console.print(f"{len(classes)} classes: {format_list(classes, MAX_CLASSES)}", markup=False)
    if data.columns:
        console.print(data.columns, markup=False)
    for note in data.notes:
        show_note(f"  {note}")
    _show_protocol(data)
    if data.unresolved:
        show_note(f"  {data.unresolved}")


def _show_protocol(data: PreparedData) -> None:
    """Print whether images that belong together are in the same split."""
    if data.protocol == "leaking":
        console.print(
            "  Protocol: leaking. Metrics of val and test are too optimistic.",
            style="bold red",
        )
    elif data.protocol == "ungrouped":
        console.print(f"  Protocol: ungrouped. {UNGROUPED_WARNING}", style="bold yellow")
    else:
        by = " and ".join(data.grouped_by)
        console.print(
            f"Protocol: grouped by {by}; a group is always in one split",
            markup=False,
        )


def show_hardware(
    machine: Hardware, precision: Precision, devices: int, *, depthwise: bool
) -> None:
    """Print the hardware and the precision, and a faster precision if there is one."""
    best = machine.best_precision(depthwise=depthwise)
    hint = precision is Precision.float32 is not best
    console.print(
        f"{precision.value} on {machine.describe(devices)}"
        + (f" [dim](training.precision=auto: {best.value}, faster)[/]" if hint else "")
    )


def show_skipped(run_id: str) -> None:
    """Print that a run with the same configuration and data has finished before."""
    console.print(
        f"  Skipped: run {run_id} of this study has finished with the same configuration and data."
    )


def show_waiting(who: str) -> None:
    """Print that this process waits for another one that trains this run."""
    console.print(f"  Waiting: {who} is training this run.")


def show_resume(run_id: str, done: int) -> None:
    """Print that an interrupted run is resumed."""
    console.print(f"Resuming run {run_id} from epoch {done + 1}.", style="bold")


def show_restart(run_id: str, differences: Sequence[str]) -> None:
    """Print why an interrupted run is trained from the start instead of being resumed."""
    show_note(
        f"Starting over: run {run_id} was interrupted, and cannot be resumed with the same "
        f"result, because these have changed: {', '.join(differences)}."
    )


def show_results(
    metrics: Mapping[str, float],
    data: PreparedData,
    *,
    epochs: int,
    absent: Mapping[str, Sequence[str]],
) -> None:
    """Print the table of metrics for the three splits, and the costs of the training.

    Args:
        epochs: number of epochs; 0 for a trivial classifier.
        absent: slugs of classes without images, by split.
    """
    show_metrics(metrics)
    steps = (
        f"kept epoch {metrics['best_epoch']:.0f} of {epochs}   "
        f"{metrics['optimizer_steps']:.0f} steps in {metrics['fit_seconds']:.0f} s"
        if epochs
        else f"no optimizer steps ({metrics['fit_seconds']:.1f} s): optimizer and training are "
        "not used"
    )
    gap = format_difference("generalisation_gap", metrics["generalisation_gap"])
    console.print(
        f"\ngeneralisation gap {gap} points (train - val accuracy)   "
        f"{steps}   {metrics['parameters']:,.0f} parameters"
    )
    show_absent_classes(absent, len(data.classes))


def show_absent_classes(absent: Mapping[str, Sequence[str]], n_classes: int) -> None:
    """Print which classes have no images in a split, and over how many classes means are."""
    for split, names in absent.items():
        console.print(
            f"{split} has no {format_list(names, 10)}: its macro means are over "
            f"{n_classes - len(names)} of {n_classes} classes.",
            style="yellow",
        )


def show_metrics(metrics: Mapping[str, float]) -> None:
    """Print the table of metrics, with a column for each split."""
    show_metric_table(
        {
            split: {
                name.removeprefix(f"{split}/"): value
                for name, value in metrics.items()
                if name.startswith(f"{split}/")
            }
            for split in SPLITS
        }
    )


def show_metric_table(columns: Mapping[str, Mapping[str, float]]) -> None:
    """Print a table of metrics.

    Args:
        columns: values by title of the column and name of the metric, without its split.
    """
    table = Table(title=None, show_edge=False, pad_edge=False, header_style="bold")
    table.add_column("")
    for title in columns:
        table.add_column(title, justify="right")
    names = dict.fromkeys(name for column in columns.values() for name in column)
    of_class = [name for name in names if split_positive_class_metric(name)]
    for key in (*FIRST_ROWS, *of_class, *LAST_ROWS):
        values = [column.get(key) for column in columns.values()]
        if any(value is not None for value in values):
            cells = ["" if value is None else format_metric(key, value) for value in values]
            table.add_row(label_metric(key), *cells)
    console.print()
    console.print(table)


def show_clinical_evaluation(evaluation: ClinicalEvaluation) -> None:
    """Print the effect of calibration and the rates at the operating point, on the evaluated split.

    If test was not predicted, these are values of val, which are too optimistic.
    """
    split = evaluation.split
    temperature = evaluation.temperature
    if temperature.why_not:
        line = f"not calibrated: {temperature.why_not}"
    else:
        before, after = evaluation.uncalibrated[split], evaluation.calibrated[split]
        line = f"temperature {temperature.value:.2f} (from val): {split} " + ", ".join(
            f"{name} {format_metric(key, before[key])} -> {format_metric(key, after[key])}"
            for key, name in (("log_loss", "log loss"), ("ece", "calibration error"))
        )
    console.print(line)
    point = evaluation.point
    if point is None:
        return
    if math.isnan(point.threshold):
        console.print(f"no operating point: val has no {point.slug}", style="yellow")
        return
    rates = point.rates[split]
    console.print(
        f"operating point: {point.slug} if its probability is at least {point.threshold:.3g} "
        f"(chosen on val for a sensitivity of {format_percent(point.target, 0)}); {split} "
        + ", ".join(
            f"{name} {format_percent(rate.value)} "
            f"({format_percent(rate.low)} to {format_percent(rate.high)})"
            for name, rate in (
                ("sensitivity", rates.sensitivity),
                ("specificity", rates.specificity),
            )
            if not math.isnan(rate.value)
        )
    )


def show_chance_check(outcome: ChanceCheck) -> None:
    """Print a warning if a run is at chance."""
    if outcome.verdict == "at_chance":
        console.print(f"This run is at chance: {outcome.reason}", style="bold red")


def show_run_location(
    config: Config, run_id: str, *, kept: Path | None, advice: str = SINGLE_SEED_ADVICE
) -> None:
    """Print where the run is stored and how to open or send it.

    Args:
        kept: the run's folder if it was not sent to MLflow; None: it was sent.
    """
    uri = mask_password(config.tracking.uri)
    opened_by = f"{format_program('mlflow')} ui"
    if uri.startswith(("http://", "https://")):
        opened_by = uri
    elif uri != DEFAULT_TRACKING_URI:
        opened_by += f" --backend-store-uri {uri}"
    location = f"run {run_id}   open it with: [bold]{opened_by}[/]"
    if kept is not None:
        location = f"saved in {kept}   send it with: [bold]{format_lab_command('sync')}[/]"
    console.print(f"\n{location}\n{advice}\n[dim]Research use only: not a medical device.[/]")


def show_registered_model(registered: str | None) -> None:
    """Print the name of a run's registered model.

    Args:
        registered: ``NAME/VERSION``; None if the model is not registered, or not yet.
    """
    if registered is not None:
        console.print(f"registered: model=models:/{registered}", markup=False)
