"""Build ensembles of the finished runs of an arm, and track each as a run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from melanoma_lab.config.arm import format_run_name
from melanoma_lab.config.schema.dataset import Resize
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
from melanoma_lab.evaluation.evaluated_run import EvaluatedRun, compare_with_chance, evaluate_run
from melanoma_lab.evaluation.predictions import Predictions
from melanoma_lab.inference import mlmodel
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
from melanoma_lab.reports.error_analysis.explained_images import (
    ImageExplainer,
    build_file_explainer,
)
from melanoma_lab.runs import run_messages
from melanoma_lab.runs.run_report import ReportedModel, ReportFigures, RunReport, log_report
from melanoma_lab.tracking.arm_runs import open_artifact
from melanoma_lab.tracking.client import connect_for_reading, translate_errors
from melanoma_lab.tracking.logged_model import MODEL_NAME, download_model, find_ready_models
from melanoma_lab.tracking.model_info import ModelInfo
from melanoma_lab.tracking.provenance import flatten_params
from melanoma_lab.tracking.tracker import Tracker, connect


def make_ensembles(
    study: str, *, arm: str | None, size: int | None, tracked: Tracking
) -> list[str]:
    """Build ensembles of the finished runs of an arm, as runs of the study; skip finished ones.

    The predictions tables are averaged without TensorFlow. It is loaded only to build the model, if
    all members saved theirs and ``tracking.model`` is true.

    Args:
        study: the study's name.
        arm: the arm's full name, or the short one that a comparison shows; None: the study's only
            arm.
        size: number of seeds of each ensemble; None: one ensemble of all.
        tracked: the settings of tracking.

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
    config = build_ensemble_config(members, [_load_config(client, member) for member in members])
    tags = build_ensemble_tags(members, predictions.table)
    run = evaluate_run(
        config,
        predictions,
        _load_manifest(client, members[0], predictions),
        audit=_load_audit(client, members[0]),
        positive_class=get_positive_class(config),
        sensitivity=config.get("evaluation", {}).get("sensitivity", Evaluation.sensitivity),
        costs=sum_costs(members),
    )
    name = format_run_name(tags["arm"], int(tags["seed"]), int(tags["fold"]))
    with tracker.run(name, tags, flatten_params(config)) as run_id:
        explainer, why_no_maps = _build_explainer(run.manifest, config, model)
        report = RunReport(
            run,
            tags={"outcome": compare_with_chance(predictions).verdict},
            figures=ReportFigures(explainer=explainer if images else None, why_no_maps=why_no_maps),
            model=model and _add_decision_rule(model, run),
        )
        log_report(report, tracker)
    run_messages.show_metrics(run.metrics)
    run_messages.show_clinical_evaluation(run.evaluation)
    run_messages.show_registered_model(tracker.registered)
    kept = f"kept in {tracker.kept}" if tracker.kept else f"run {run_id}"
    console.print(f"\ncosts {len(members)} times one network, to train and to apply   {kept}")
    return run_id


def _add_decision_rule(model: ReportedModel, run: EvaluatedRun) -> ReportedModel:
    """Return an ensemble's model with the decision rule among its files."""
    rule = run.evaluation.advice().text()
    return replace(model, files={**model.files, decision_rule.FILE: rule})


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
    from melanoma_lab.training.backend import choose_threads, start_backend

    start_backend(threads=choose_threads(None), seed=0, precision=Precision.float32)
    from melanoma_lab.inference.ensembles.mean_network import build_mean_network
    from melanoma_lab.models.safe_loading import load_safely

    networks, cards = [], []
    with tempfile.TemporaryDirectory() as scratch, show_progress("reading networks") as tell:
        for i, member in enumerate(members):
            try:
                uri = f"runs:/{member.run_id}/{MODEL_NAME}"
                folder = download_model(uri, Path(scratch) / str(i))
                path, card = mlmodel.read_model_folder(folder)
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
        detector = mlmodel.read_appearance(folder) if one_split else None
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


def _load_config(client: Any, member: EnsembleMember) -> dict[str, Any]:
    """Load the resolved configuration of a member."""
    with _open_artifact(client, member, "config.yaml") as path:
        return read_yaml(path)


def _load_manifest(client: Any, member: EnsembleMember, predictions: Predictions) -> pd.DataFrame:
    """Load a member's table of images, with the splits of the ensemble."""
    with _open_artifact(client, member, "manifest.csv") as path:
        manifest = read_manifest(path)
    split = predictions.table.set_index("image_id")["split"]
    # Images without predictions (evaluation.test=false) keep their split: no member has seen them.
    return manifest.assign(split=manifest["image_id"].map(split).fillna(manifest["split"]))


def _load_audit(client: Any, member: EnsembleMember) -> dict[str, Any] | None:
    """Load the audit of a member's dataset; None if it was not saved."""
    try:
        with _open_artifact(client, member, "audit.json") as path:
            return read_json(path)
    except UserError:
        return None


@contextmanager
def _open_artifact(client: Any, member: EnsembleMember, name: str) -> Iterator[Path]:
    """Yield the path of a member's artifact, or raise a UserError if it is missing."""
    try:
        with open_artifact(client, member.run, name) as path:
            yield path
    except OSError as error:
        raise UserError(f"{member} cannot be a member: {error}.") from error


def _format(members: Sequence[EnsembleMember]) -> str:
    """Format members by their seeds, and by their folds if there are any."""
    seeds = ", ".join(map(str, list_seeds(members)))
    folds = list_folds(members)
    return f"seeds {seeds}" + (f", folds {', '.join(map(str, folds))}" if any(folds) else "")
