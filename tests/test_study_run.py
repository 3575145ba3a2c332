"""A study is one run in MLflow, above its runs."""

import os
from pathlib import Path

import pytest

from melanoma_lab.comparison.study_report import report_study
from melanoma_lab.tracking.parent_runs import COLOUR_TAG, NOTE_TAG, PARENT_TAG, STUDY_TAG
from tests.support.fake_studies import FakeStudies, tracking_in

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    made = FakeStudies.in_database(tmp_path_factory.mktemp("studies"))
    made.client.search_experiments()  # makes the database's tables
    return made


def compare(tracked, study, folder):
    return report_study(
        study,
        reference=None,
        metric="balanced_accuracy",
        tracked=tracking_in(tracked.folder),
        folder=Path(folder),
    )


def runs_of(tracked, study):
    experiment = tracked.client.get_experiment_by_name(study).experiment_id
    return tracked.client.search_runs([experiment])


def test_runs_lie_under_the_study_and_the_report_is_its_artifact(tracked, tmp_path):
    study = tracked.fill({"baseline": (1.0, ""), "dropout": (3.0, "baseline")})
    result = compare(tracked, study, tmp_path)
    again = compare(tracked, study, tmp_path)
    (parent,) = [run for run in runs_of(tracked, study) if STUDY_TAG in run.data.tags]
    children = [run for run in runs_of(tracked, study) if "arm" in run.data.tags]
    assert len(children) == 6
    assert {run.data.tags[PARENT_TAG] for run in children} == {parent.info.run_id}
    assert parent.info.status == "FINISHED"
    assert parent.info.run_name == f"study {study}"
    assert "dropout helps, compared with baseline" in parent.data.tags[NOTE_TAG]
    kept = {item.path for item in tracked.client.list_artifacts(parent.info.run_id)}
    assert kept == {"comparison.json", "report.md", "report.html", "figures"}
    page = tracked.client.download_artifacts(parent.info.run_id, "report.html")
    assert Path(page).read_text() == result.report.read_text()
    assert again.verdicts == result.verdicts  # the study's own run is no arm


def test_mlflow_shows_what_tells_runs_apart_before_anything_is_chosen(tracked, tmp_path):
    study = tracked.fill(
        {"baseline,e=9": (1.0, ""), "baseline,e=9,x=1": (1.2, "")}, seeds=(0, 1), dataset="drawn"
    )
    compare(tracked, study, tmp_path)
    runs = {run.info.run_name: run for run in runs_of(tracked, study)}
    assert set(runs) == {
        f"study {study}",
        "baseline seed=0",
        "baseline seed=1",
        "baseline seed=0 x=1",
        "baseline seed=1 x=1",
    }
    for run in runs.values():
        (used,) = run.inputs.dataset_inputs
        assert (used.dataset.name, used.dataset.digest) == ("drawn", "data")
    colours = {name: run.data.tags.get(COLOUR_TAG) for name, run in runs.items()}
    assert colours["baseline seed=0"] == colours["baseline seed=1"]
    assert colours["baseline seed=0"] != colours["baseline seed=0 x=1"]
    experiment = tracked.client.get_experiment_by_name(study)
    assert experiment.tags[NOTE_TAG] == runs[f"study {study}"].data.tags[NOTE_TAG]


def test_what_a_user_wrote_into_mlflow_stays(tracked, tmp_path):
    study = tracked.fill({"baseline,e=9": (1.0, "")}, seeds=(0, 1))
    mine, other = (run.info.run_id for run in runs_of(tracked, study))
    tracked.client.update_run(mine, name="the good one")
    tracked.client.set_tag(mine, COLOUR_TAG, "#123456")
    experiment = tracked.client.get_experiment_by_name(study).experiment_id
    tracked.client.set_experiment_tag(experiment, NOTE_TAG, "ask Ada")
    for _ in range(2):
        compare(tracked, study, tmp_path)
    run = tracked.client.get_run(mine)
    assert (run.info.run_name, run.data.tags[COLOUR_TAG]) == ("the good one", "#123456")
    assert tracked.client.get_run(other).info.run_name.startswith("baseline seed=")
    assert tracked.client.get_experiment_by_name(study).tags[NOTE_TAG] == "ask Ada"


def test_a_later_run_joins_the_others(tracked, tmp_path):
    study = tracked.fill({"baseline": (1.0, "")}, seeds=(0,))
    compare(tracked, study, tmp_path)
    late = tracked.add(study, "baseline", 1)
    compare(tracked, study, tmp_path)
    parents = {run.data.tags.get(PARENT_TAG) for run in runs_of(tracked, study)} - {None}
    assert len(parents) == 1
    assert tracked.client.get_run(late).data.tags[PARENT_TAG] in parents


def test_a_server_that_takes_nothing_costs_a_line(tracked, tmp_path, monkeypatch, capsys):
    study = tracked.fill({"baseline": (1.0, ""), "dropout": (1.5, "baseline")})

    def refuse(*_, **__):
        raise OSError(os.strerror(30))

    monkeypatch.setattr("mlflow.MlflowClient.create_run", refuse)
    result = compare(tracked, study, tmp_path)
    assert result.report.is_file()
    said = " ".join(capsys.readouterr().out.split())
    assert "The report was not recorded in MLflow (Read-only file system)" in said
