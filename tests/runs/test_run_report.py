"""What a report keeps with a run, and in which order; nothing is trained or drawn."""

import numpy as np
import pandas as pd
import pytest

from melanoma_lab.evaluation.decision_rule import DecisionRule, Temperature
from melanoma_lab.evaluation.evaluated_run import evaluate_external_run, evaluate_run
from melanoma_lab.evaluation.metrics import compute_run_metrics, compute_split_metrics
from melanoma_lab.evaluation.predictions import Predictions
from melanoma_lab.reports.model_card import PAGES
from melanoma_lab.runs.run_report import ReportedModel, ReportFigures, RunReport, log_report
from melanoma_lab.tracking.logged_model import ModelInfo
from melanoma_lab.tracking.run_reader import RunIdentity
from tests.support.evaluation_cases import random_case, table_of
from tests.support.undrawn import undrawn_runs

pytestmark = pytest.mark.unit

SLUGS = ("melanoma", "nevus", "scar")
TABLES = {"config.yaml", "predictions.csv", "calibration.json", "operating_points.json"}


class FakeTracker:
    """Notes what it is told."""

    run_name = "an arm seed=0"

    def __init__(self):
        self.tags, self.calls, self.files, self.metrics, self.model = {}, [], {}, {}, ()

    @property
    def identity(self):
        return RunIdentity("abc", 0, self.tags)

    def log_metrics(self, metrics):
        self.calls.append("metrics")
        self.metrics = dict(metrics)

    def set_tags(self, tags):
        self.calls.append("tags")
        self.tags |= tags

    def log_folder(self, folder):
        self.calls.append("folder")
        self.files = {file.name: file.read_text() for file in folder.iterdir()}

    def log_network(self, *model):
        self.calls.append("network")
        self.model = model


def predictions_of(*splits):
    cases = [(*random_case(40, 2, i), split) for i, split in enumerate(splits)]
    parts = [
        table_of((y_true, np.c_[y_score * 0.9, np.full(40, 0.1)]), split, SLUGS)
        for y_true, y_score, split in cases
    ]
    return Predictions(pd.concat(parts, ignore_index=True))


def manifest_of(predictions):
    return predictions.table[["image_id", "group", "split"]].assign(
        label=predictions.table["y_true"], sex=np.resize(["f", "m"], len(predictions.table))
    )


@pytest.fixture
def run():
    predictions = predictions_of("train", "val", "test")
    return evaluate_run(
        {"dataset": {"name": "drawn"}},
        predictions,
        manifest_of(predictions),
        audit=None,
        positive_class="melanoma",
        sensitivity=0.9,
        costs={"parameters": 7.0},
    )


def logged(report):
    tracker = FakeTracker()
    with undrawn_runs():
        log_report(report, tracker)
    return tracker


def test_a_trial_keeps_its_tables_alone(run):
    tracker = logged(RunReport(run, tags={"outcome": "learned"}))
    assert tracker.calls == ["metrics", "tags", "folder"]
    assert set(tracker.files) == TABLES | {"subgroups.csv"}
    assert tracker.files["config.yaml"] == "dataset:\n  name: drawn\n"


def test_a_whole_run_has_a_card_and_its_network_comes_last(run):
    model = ReportedModel("a network", ModelInfo(SLUGS), {"advice.json": "{}"})
    tracker = logged(
        RunReport(run, figures=ReportFigures(), model=model, files={"audit.json": "{}\n"})
    )
    assert tracker.calls == ["metrics", "tags", "folder", "network"]
    kept = {"subgroups.csv", "manifest.csv", "audit.json", *PAGES}
    assert set(tracker.files) == TABLES | kept
    assert tracker.model == (model.network, model.info, model.files)
    assert "abc" in tracker.files["model_card.md"]
    assert tracker.files["audit.json"] == "{}\n"


def test_absent_classes_are_tagged_split_by_split(run):
    tracker = logged(RunReport(run, tags={"outcome": "learned"}))
    absent = {f"absent/{split}": "scar" for split in ("train", "val", "test")}
    assert tracker.tags == {"outcome": "learned"} | absent


def test_metrics_come_in_one_order(run):
    expected = ["parameters", *compute_run_metrics(run.predictions, "melanoma")]
    assert list(run.metrics) == [*expected, *run.evaluation.metrics()]
    assert list(logged(RunReport(run)).metrics) == list(run.metrics)


def test_of_splits_that_were_not_met_nothing_is_said():
    predictions = predictions_of("train", "val")
    run = evaluate_run(
        {},
        predictions,
        manifest_of(predictions),
        audit=None,
        positive_class=None,
        sensitivity=0.9,
        splits=("train", "val"),
        costs={},
    )
    assert not [name for name in run.metrics if name.startswith("test/")]
    assert set(run.absent_classes) == {"train", "val"}


def test_an_external_evaluation_measures_test_and_adds_columns_to_its_manifest():
    predictions = predictions_of("train", "test")
    manifest = manifest_of(predictions)
    rule = DecisionRule(Temperature(2.0, 100), "melanoma", 0.3, 0.9)
    run = evaluate_external_run(
        {},
        predictions,
        manifest,
        audit=None,
        positive_class="melanoma",
        rule=rule,
        counts={"images": 40.0},
    )
    measured = compute_split_metrics(predictions.split("test"), "melanoma")
    assert list(run.metrics) == [*measured, *run.evaluation.metrics(), "images"]
    assert run.evaluation.temperature == rule.temperature
    assert set(run.absent_classes) == {"test"}
    columns = {"known_as": ["new"] * 80, "known_by": [""] * 80}
    tracker = logged(RunReport(run, figures=ReportFigures(), manifest_columns=columns))
    head = tracker.files["manifest.csv"].partition("\n")[0]
    assert head == "image_id,group,split,label,sex,known_as,known_by"
    assert "known_as" not in run.manifest
