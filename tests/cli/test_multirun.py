"""A multirun's jobs fail one by one, finished ones are skipped, and the study is compared."""

import importlib
import json

import mlflow
import pytest
from omegaconf import OmegaConf

from melanoma_lab.cli import multirun
from melanoma_lab.cli.multirun import describe_failures, finish_multirun, record_job
from melanoma_lab.core.errors import RunError, UserError
from melanoma_lab.launching import JobStatus, collect_jobs
from tests.support.processes import run_command

pytestmark = pytest.mark.integration


def job(number, arm="baseline", *, failure=0, reason="", study="ablation", task="train"):
    return JobStatus(
        number=number,
        arm=arm,
        repetition=f"seed {number}",
        task=task,
        study=study,
        metric="accuracy",
        uri="sqlite:///mlflow.db",
        failure=failure,
        reason=reason,
    )


@pytest.fixture
def compared(monkeypatch):
    """The studies that were compared; one called broken cannot be."""
    studies = []

    def report_study(study, **_):
        studies.append(study)
        if study == "broken":
            raise UserError("study=broken: other data.")

    module = importlib.import_module("melanoma_lab.comparison.study_report")
    monkeypatch.setattr(module, "report_study", report_study)
    return studies


def test_every_study_is_compared_once(compared):
    finish_multirun([job(0), job(1), job(2, study="other"), job(3, failure=0, task="compare")])
    assert compared == ["ablation", "other"]


def test_nothing_is_concluded_from_a_single_run_or_from_failures_alone(compared):
    finish_multirun([])
    with pytest.raises(RunError, match=r"^diverged$"):
        finish_multirun([job(0, failure=1, reason="diverged")])
    assert compared == []


def test_the_rest_is_compared_and_the_failed_are_named(compared):
    jobs = [
        job(0, "baseline,e=1"),
        job(1, "dropout,e=1", failure=1, reason="diverged."),
        job(2, "dropout,e=1", failure=1, reason="diverged."),
        job(3, "wild,e=1", failure=2, reason="dataset.root: no such folder."),
    ]
    with pytest.raises(RunError) as raised:
        finish_multirun(jobs)
    assert compared == ["ablation"]
    assert str(raised.value).splitlines() == [
        "3 of 4 runs failed:",
        "  dropout seed 1; dropout seed 2: diverged.",
        "  wild seed 3: dataset.root: no such folder.",
    ]


def test_mistakes_alone_are_the_users(compared):
    with pytest.raises(UserError, match="1 of 2 runs failed"):
        finish_multirun([job(0), job(1, failure=2, reason="no such folder")])


def test_a_mistake_of_all_jobs_is_told_once():
    assert describe_failures([job(i, failure=2, reason="No.") for i in range(9)]) == "No."


def test_what_cannot_be_compared_is_said(compared):
    with pytest.raises(UserError, match=r"The study was not compared. study=broken: other data\."):
        finish_multirun([job(0, study="broken")])


def test_what_a_launcher_gave_up_is_said_beside_what_was_done(compared):
    with pytest.raises(RunError) as raised:
        finish_multirun(
            [job(0), job(1, failure=1, reason="gone.")], "TerminatedWorkerError: killed"
        )
    assert compared == ["ablation"]
    assert str(raised.value).splitlines()[:2] == [
        "1 of 2 runs failed:",
        "  baseline seed 1: gone.",
    ]
    assert "The launcher failed (TerminatedWorkerError: killed)" in str(raised.value)


def test_what_a_single_run_raises_is_the_commands_to_raise():
    bug = KeyError("x")
    with collect_jobs() as notes, record_job(OmegaConf.create({}), notes):
        raise bug
    assert notes.error is bug
    assert notes.jobs == ()


@pytest.fixture
def as_job(monkeypatch, tmp_path):
    """This process runs job number 7 of a multirun."""
    hydra = OmegaConf.create(
        {"overrides": {"task": ["+experiment=dropout", "seed=4"]}, "job": {"num": 7}}
    )
    monkeypatch.setattr(multirun, "in_multirun", lambda: True)
    monkeypatch.setattr(multirun.HydraConfig, "get", lambda: hydra)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("error", "failure", "reason"),
    [
        (None, 0, ""),
        (UserError("no such folder"), 2, "no such folder"),
        (RunError("diverged"), 1, "diverged"),
        (OSError("disk full"), 1, "disk full"),
        (ZeroDivisionError("a bug"), 1, "ZeroDivisionError: a bug"),
    ],
)
def test_a_job_of_a_multirun_never_raises(as_job, error, failure, reason):
    composed = {
        "seed": 4,
        "task": "train",
        "study": "s",
        "metric": "accuracy",
        "tracking": {"uri": "u"},
        "split": {"name": "kfold", "fold": 2},
    }
    with collect_jobs() as notes, record_job(OmegaConf.create(composed), notes):
        (begun,) = notes.read()
        assert (begun.failure, begun.reason.split(" (")[0]) == (
            1,
            "its process ended unexpectedly",
        )
        if error:
            raise error
    assert notes.jobs == (
        JobStatus(7, "dropout", "seed 4 fold 2", "train", "s", "accuracy", "u", failure, reason),
    )


def test_ctrl_c_stops_a_multirun(as_job):
    with collect_jobs() as notes:
        with pytest.raises(KeyboardInterrupt), record_job(OmegaConf.create({}), notes):
            raise KeyboardInterrupt
        (ended,) = notes.read()
        assert (ended.failure, ended.reason) == (130, "interrupted")


def test_a_study_survives_a_failing_arm_and_runs_only_what_is_missing(
    tmp_path, tree, session_cache, undrawn
):
    """The whole way: one arm diverges, the rest is compared; then only the new seed is trained."""

    settings = ["dataset=folder", f"dataset.root={tree}", "dataset.image_size=16"]
    settings += [
        f"cache={session_cache}",
        "training.epochs=1",
        "tracking.model=false",
        "architecture.filters=[4,8,8]",
    ]

    def lab(*arguments):
        return run_command("-m", *arguments, *settings, folder=tmp_path)

    first = lab("optimizer.learning_rate=1e30,1e-3")
    assert first.returncode == 1
    assert "1 of 2 runs failed:" in first.stderr
    assert "custom,optimizer.learning_rate=1e+30 seed 0: diverged" in first.stderr
    assert "Traceback" not in first.stderr
    written = tmp_path / "experiments" / "ablation"
    content = json.loads((written / "comparison.json").read_text())
    (arm,) = content["arms"]
    assert content["arms"][arm]["seeds"] == [0]
    assert any("FAILED: RunError: diverged" in text for text in content["warnings"])

    second = lab("optimizer.learning_rate=1e-3", "seed=0,1")
    assert second.returncode == 0, second.stderr
    assert second.stdout.count("Skipped: run ") == 1
    content = json.loads((written / "comparison.json").read_text())
    assert content["arms"][arm]["seeds"] == [0, 1]
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("ablation").experiment_id
    finished = client.search_runs([experiment], "attributes.status = 'FINISHED'")
    seeds = [run.data.tags["seed"] for run in finished if "arm" in run.data.tags]
    assert sorted(seeds) == ["0", "1"]


def test_mlflows_variable_says_where_jobs_are_recorded_and_compared(tmp_path, tree):
    words = ("-m", "+experiment=majority,colour_histogram", "seed=0", "dataset=folder")
    words += (f"dataset.root={tree}", "dataset.image_size=16", f"cache={tmp_path / 'cache'}")
    done = run_command(*words, folder=tmp_path, MLFLOW_TRACKING_URI="sqlite:///there.db")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("recorded in MLFLOW_TRACKING_URI=sqlite:///there.db") == 2
    assert (tmp_path / "there.db").is_file()
    assert not (tmp_path / "mlflow.db").exists()
    report = (tmp_path / "experiments" / "ablation" / "report.md").read_text(encoding="utf-8")
    assert "melanoma_lab compare study=ablation tracking.uri=sqlite:///there.db" in report
    again = run_command("compare", folder=tmp_path, MLFLOW_TRACKING_URI="sqlite:///there.db")
    assert again.returncode == 0, again.stderr
    none = run_command("compare", folder=tmp_path)
    assert none.returncode == 2
    assert none.stderr.startswith("melanoma_lab: tracking.uri=sqlite:///mlflow.db: no such file")
    none = run_command("compare", folder=tmp_path, MLFLOW_TRACKING_URI="sqlite:///no.db")
    assert none.stderr.startswith("melanoma_lab: MLFLOW_TRACKING_URI=sqlite:///no.db: no such file")


def test_values_that_would_be_one_run_are_refused_before_anything_is_done(tmp_path):
    words = ("-m", "+experiment=majority", "dataset=folder", "dataset.root=A,B")
    refused = run_command(*words, folder=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.startswith(
        "melanoma_lab: dataset.root=A,B: a study distinguishes runs by "
    )
    assert not list(tmp_path.rglob("*.db"))
