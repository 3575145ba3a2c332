"""Build ensembles of the finished runs of an arm, and track each as a run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from melanoma_lab.config.arm import format_run_name
from melanoma_lab.config.schema.data import Resize
from melanoma_lab.config.schema.evaluation import Evaluation
from melanoma_lab.config.schema.tracking import Tracking
from melanoma_lab.config.schema.training import Precision
from melanoma_lab.core.console import console, show_note, show_progress
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.shell_commands import format_lab_command
from melanoma_lab.core.untrusted_files import read_json, read_yaml
from melanoma_lab.data.labels import get_positive_class
from melanoma_lab.data.tables import read_manifest
from melanoma_lab.evaluation import decision_rule, out_of_distribution
from melanoma_lab.evaluation.evaluated_run import compare_with_chance, evaluate_run
from melanoma_lab.evaluation.predictions import Predictions
from melanoma_lab.inference import model_source
from melanoma_lab.inference.ensembles.average import average_predictions
from melanoma_lab.inference.ensembles.members import (
    EnsembleMember,
    build_ensemble_config,
    build_ensemble_tags,
    divide_into_ensembles,
    find_members,
    fingerprint_members,
    list_folds,
    list_seeds,
    load_member_predictions,
    name_ensemble,
    sum_costs,
)
from melanoma_lab.reports.explained_images import ImageExplainer, build_file_explainer
from melanoma_lab.runs import run_messages
from melanoma_lab.runs.run_report import ReportedModel, ReportFigures, RunReport, log_report
from melanoma_lab.tracking.arm_runs import open_artifact
from melanoma_lab.tracking.client import connect_for_reading, translate_errors
from melanoma_lab.tracking.logged_model import (
    MODEL_NAME,
    ModelInfo,
    download_model,
    find_ready_models,
)
from melanoma_lab.tracking.tracker import Tracker, connect
from melanoma_lab.tracking.upload import flatten_params

_Content = TypeVar("_Content")


def make_ensembles(
    study: str, *, arm: str | None, size: int | None, tracked: Tracking
) -> list[str]:
    """Build ensembles of the finished runs of an arm, as runs of the study; skip finished ones.

    The predictions tables are averaged without TensorFlow. It is loaded only to build the model, if
    all members saved theirs and ``tracking.model`` is true. ``arm`` and ``size`` are as for
    ``find_members`` and ``divide_into_ensembles``.

    Returns:
        The ids of the ensembles' MLflow runs, in order of their seeds.

    Raises:
        UserError: there is no such study or arm, or its runs cannot form an ensemble.
        RunError: not everything could be sent to MLflow.
    """
    client = connect_for_reading(tracked)
    with translate_errors(tracked.uri):
        found = find_members(client, study, arm)
    ensembles = divide_into_ensembles(found, size)
    tracker = connect(tracked, study).result()
    finished_runs = [
        tracker.find_finished({"fingerprint": fingerprint_members(members)})
        for members in ensembles
    ]
    averages = [
        None if finished else average_predictions(load_member_predictions(client, members))
        for members, finished in zip(ensembles, finished_runs, strict=True)
    ]
    console.print(
        f"[bold]{found[0].key.arm}[/]  study {study}  {len(found)} finished runs", soft_wrap=True
    )
    run_ids = []
    for members, finished, predictions in zip(ensembles, finished_runs, averages, strict=True):
        console.print(f"\n[bold]{name_ensemble(members)}[/]  {_format(members)}")
        if finished is not None:
            run_messages.show_skipped(finished.run_id)
            run_ids.append(finished.run_id)
        elif predictions is not None:
            model = _build_model(client, members, predictions.slugs) if tracked.model else None
            run_ids.append(
                _record_run(client, tracker, members, predictions, model, images=tracked.images)
            )
    left = found[sum(map(len, ensembles)) :]
    if left:
        show_note(f"Not used, too few for another ensemble: {_format(left)}.")
    console.print(f"\ncompare them: [bold]{format_lab_command('compare', f'study={study}')}[/]")
    return run_ids


def _record_run(
    client: Any,
    tracker: Tracker,
    members: Sequence[EnsembleMember],
    predictions: Predictions,
    model: ReportedModel | None,
    *,
    images: bool,
) -> str:
    """Evaluate an ensemble, track it as a run and print its metrics; return the run's id."""
    configs = [_read_artifact(client, member, "config.yaml", read_yaml) for member in members]
    config = build_ensemble_config(members, configs)
    manifest = _read_artifact(client, members[0], "manifest.csv", read_manifest)
    # Images without predictions (evaluation.test=false) keep their split: no member has seen them.
    split = manifest["image_id"].map(predictions.table.set_index("image_id")["split"])
    try:
        audit = _read_artifact(client, members[0], "audit.json", read_json)
    except UserError:
        audit = None
    tags = build_ensemble_tags(members, predictions.table)
    run = evaluate_run(
        config,
        predictions,
        manifest.assign(split=split.fillna(manifest["split"])),
        audit=audit,
        positive_class=get_positive_class(config),
        sensitivity=config.get("evaluation", {}).get("sensitivity", Evaluation.sensitivity),
        costs=sum_costs(members),
    )
    if model is not None:
        rule = run.evaluation.advice().text()
        model = replace(model, files={**model.files, decision_rule.FILE: rule})
    name = format_run_name(tags["arm"], int(tags["seed"]), int(tags["fold"]))
    with tracker.run(name, tags, flatten_params(config)) as run_id:
        explainer, why_no_maps = _build_explainer(run.manifest, config, model)
        report = RunReport(
            run,
            tags={"outcome": compare_with_chance(predictions).verdict},
            figures=ReportFigures(explainer=explainer if images else None, why_no_maps=why_no_maps),
            model=model,
        )
        log_report(report, tracker)
    run_messages.show_metrics(run.metrics)
    run_messages.show_clinical_evaluation(run.evaluation)
    run_messages.show_registered_model(tracker.registered)
    kept = f"kept in {tracker.kept}" if tracker.kept else f"run {run_id}"
    console.print(f"\ncosts {len(members)} times one network, to train and to apply   {kept}")
    return run_id


def _build_explainer(
    manifest: pd.DataFrame, config: dict[str, Any], model: ReportedModel | None
) -> tuple[ImageExplainer | None, str]:
    """Return the explainer of an ensemble's images, and why it has no heat maps, if it has none."""
    dataset = config.get("dataset", {})
    size, resize = dataset.get("image_size"), Resize(dataset.get("resize", Resize.squash))
    if size is None or "path" not in manifest:
        return None, "The folder of its images is not known."
    if model is None:
        return build_file_explainer(manifest, size, None, resize), (
            "No Grad-CAM map: not all of its networks are available."
        )
    if model.info.encoding is not None:
        return build_file_explainer(manifest, size, None, resize), (
            "No Grad-CAM map: its networks also take patient metadata."
        )
    return build_file_explainer(manifest, size, model.network, resize), ""


def _build_model(
    client: Any, members: Sequence[EnsembleMember], slugs: tuple[str, ...]
) -> ReportedModel | None:
    """Build one network of the members' networks; None if some have none or inputs differ."""
    without = [member for member in members if not find_ready_models(client, member.run)]
    if without:
        show_note(
            f"No model: {_format(without)} saved none (a trivial classifier, or "
            "tracking.model=false). The predictions are averaged nevertheless."
        )
        return None
    from melanoma_lab.training.hardware import choose_threads, start_backend

    start_backend(threads=choose_threads(None), seed=0, precision=Precision.float32)
    from melanoma_lab.inference.ensembles.average import build_mean_network
    from melanoma_lab.models.safe_loading import load_safely

    networks, cards = [], []
    with tempfile.TemporaryDirectory() as scratch, show_progress("reading networks") as tell:
        for i, member in enumerate(members):
            try:
                uri = f"runs:/{member.run_id}/{MODEL_NAME}"
                folder = download_model(uri, Path(scratch) / str(i))
                path, card = model_source.read_model_folder(folder)
                networks.append(load_safely(path))
            except (OSError, UserError) as error:
                raise UserError(
                    f"The model of {member} cannot be read: {error} Train it again, or set "
                    "tracking.model=false to build the ensemble without a model."
                ) from error
            cards.append(card or ModelInfo(slugs))
            tell(i + 1, len(members))
        # Members of one split have the same training images. Of several folds, no member has seen
        # all training images of the ensemble, so there is no detector.
        one_split = len({member.tags.get("split_hash") for member in members}) == 1
        detector = model_source.read_appearance(folder) if one_split else None
    if len({(card.image_size, card.resize) for card in cards}) > 1:
        show_note(
            "No model: the members see images of another size or other proportions "
            "(dataset.image_size, dataset.resize). The predictions are averaged nevertheless."
        )
        return None
    if any(card.encoding != cards[0].encoding for card in cards):
        show_note(
            "No model: the members encode patient metadata differently, each by its own training "
            "images. The predictions are averaged nevertheless."
        )
        return None
    files = {} if detector is None else {out_of_distribution.FILE: detector.text()}
    return ReportedModel(build_mean_network(networks), cards[0], files)


def _read_artifact(
    client: Any, member: EnsembleMember, name: str, read: Callable[[Path], _Content]
) -> _Content:
    """Read an artifact of a member, or raise a UserError if it is missing."""
    try:
        with open_artifact(client, member.run, name) as path:
            return read(path)
    except OSError as error:
        raise UserError(f"{member} cannot be a member: {error}.") from error


def _format(members: Sequence[EnsembleMember]) -> str:
    """Format members by their seeds, and by their folds if there are any."""
    seeds = ", ".join(map(str, list_seeds(members)))
    folds = list_folds(members)
    return f"seeds {seeds}" + (f", folds {', '.join(map(str, folds))}" if any(folds) else "")
