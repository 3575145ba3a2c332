"""The lab from Python: what the command line does, and nothing that a notebook would regret."""

import doctest
import os
import signal
import sys
import threading
from pathlib import Path

import mlflow
import pandas as pd
import pytest

import melanoma_lab as lab
from melanoma_lab import api
from melanoma_lab.core.console import console
from tests.support.processes import run_command, run_python

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("undrawn")]

REPOSITORY = Path(__file__).resolve().parent.parent
TINY = ("dataset.lesions=110", "dataset.image_size=32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the calls are made; one database, because a new one takes seconds."""
    return tmp_path_factory.mktemp("notebook")


@pytest.fixture(autouse=True)
def _there(folder, session_cache, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(session_cache))


@pytest.mark.usefixtures("instant")
def test_the_examples_of_the_docstrings():
    results = doctest.testmod(api)
    assert results.attempted >= 8
    assert results.failed == 0


def test_a_run_is_what_was_tracked(folder, capsys, drawn):
    before = mlflow.get_tracking_uri(), signal.getsignal(signal.SIGINT), list(sys.argv)
    run = lab.train("+experiment=majority", "seed=4", *TINY)
    assert (run.arm, run.study, run.seed) == (
        "majority,dataset.image_size=32,dataset.lesions=110",
        "ablation",
        4,
    )
    assert run.params["architecture.name"] == run.tags["experiment"] == "majority"
    right = run.predictions.filter(like="prob/").idxmax(axis=1).str.removeprefix("prob/")
    test = run.predictions["split"] == "test"
    accuracy = (right == run.predictions["y_true"])[test].mean()
    assert accuracy == run.metrics["test/accuracy"]
    assert list(run.manifest["image_id"]) == list(run.predictions["image_id"])
    assert run.artifact("plots/confusion_matrix.png").is_file()
    assert len(repr(run)) < 200
    assert run.run_id in capsys.readouterr().out
    assert {path.name for path in folder.iterdir()} <= {"mlflow.db", "mlruns", "experiments"}
    after = mlflow.get_tracking_uri(), signal.getsignal(signal.SIGINT), list(sys.argv)
    assert after == before


def test_a_run_can_be_read_from_any_folder(tmp_path, monkeypatch):
    run = lab.train("+experiment=majority", *TINY, verbose=False)
    monkeypatch.chdir(tmp_path)
    assert len(run.predictions) == len(run.manifest)


def test_silence_is_silent(capsys):
    lab.train("+experiment=majority", *TINY, verbose=False)
    assert capsys.readouterr().out == ""
    assert not console.quiet


def test_where_one_call_records_is_not_where_the_next_does(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lab.train("+experiment=majority", "tracking.uri=sqlite:///x.db", *TINY, verbose=False)
    assert "MLFLOW_TRACKING_URI" not in os.environ
    run = lab.train("+experiment=majority", *TINY, verbose=False)
    assert run.uri == f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///y.db")
    run = lab.train("+experiment=majority", *TINY, verbose=False)
    assert run.uri == f"sqlite:///{tmp_path / 'y.db'}"
    assert os.environ["MLFLOW_TRACKING_URI"] == "sqlite:///y.db"


def test_calls_from_threads_wait_for_each_other():
    runs = []

    def work(seed):
        runs.append(lab.train("+experiment=majority", f"seed={seed}", *TINY, verbose=False))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (5, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(run.seed for run in runs) == [5, 6]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lab.train("+experiment=majority", "seed=0,1"), r"study\(...\) trains them all"),
        (lambda: lab.train("+experiment=majorty"), r"Did you mean majority\?"),
        (lambda: lab.train("train"), "train"),
        (lambda: lab.study("seed=0,1", "study=a,b"), "expected one of each"),
        (lambda: lab.compare("abaltion"), "no such study"),
        (lambda: lab.compare(tracking_uri="sqlite:///no.db"), "no such file"),
        (lambda: lab.audit_dataset("dataset=folder", "dataset.root=nowhere"), "no such folder"),
    ],
)
def test_mistakes_raise(call, message):
    with pytest.raises(lab.UserError, match=message):
        call()


def test_an_open_run_of_the_callers_is_not_touched():
    with mlflow.start_run() as open_run:
        with pytest.raises(lab.UserError, match=r"mlflow.end_run\(\)"):
            lab.train("+experiment=majority", *TINY)
        assert mlflow.active_run().info.run_id == open_run.info.run_id


@pytest.mark.usefixtures("instant")
def test_a_study_is_trained_once_and_compared(folder, capsys):
    asked = ("+experiment=majority,colour_histogram", "seed=0,1,2", "reference=majority", "study=s")
    result = lab.study(*asked, *TINY)
    assert "Skipped" not in capsys.readouterr().out
    ((arm, verdict),) = result.verdicts.items()
    assert arm.startswith("colour_histogram,")
    assert verdict in {"helps", "no evidence"}
    row = result.table.query("metric == 'balanced_accuracy'").iloc[0]
    assert (row["arm"], row["n_pairs"], row["verdict"]) == (arm, 3, verdict)
    assert row["ci_low"] < row["difference"] < row["ci_high"]
    assert set(result.arms["arm"]) == {arm, arm.replace("colour_histogram", "majority")}
    assert result.report.is_file()
    again = lab.study(*asked, *TINY)
    assert capsys.readouterr().out.count("Skipped") == 6
    compared = lab.compare("s", verbose=False)
    pd.testing.assert_frame_equal(again.table, compared.table)
    pd.testing.assert_frame_equal(result.arms, compared.arms)
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    recorded = client.search_runs([client.get_experiment_by_name("s").experiment_id])
    assert sum("mlflow.parentRunId" in run.data.tags for run in recorded) == 6  # under the study's


@pytest.mark.usefixtures("instant")
def test_an_arm_that_fails_stops_no_other(tree):
    """The tree of images knows no sources."""
    images = ("dataset=folder", f"dataset.root={tree}", "dataset.image_size=16")
    with pytest.raises(lab.UserError, match="1 of 2 runs failed") as caught:
        lab.study("+experiment=source_only,majority", "study=half", *images, verbose=False)
    assert "source_only seed 0: architecture=source_only: this dataset" in str(caught.value)
    assert lab.compare("half", verbose=False).arms["arm"].str.startswith("majority").all()


def test_the_command_line_knows_what_python_has_trained(folder, session_cache):
    lab.study("+experiment=majority", "seed=0", "study=both", *TINY, verbose=False)
    done = run_command("-m", "+experiment=majority", "study=both", *TINY)
    assert done.returncode == 0, done.stderr
    assert "Skipped" in done.stdout


def test_importing_the_package_costs_nothing():
    heavy = ("hydra", "pandas", "numpy", "sklearn", "mlflow", "tensorflow", "keras", "matplotlib")
    script = f"""
import sys
import melanoma_lab as lab
assert set(lab.__all__) <= set(dir(lab))
assert not set(sys.modules) & set({heavy})
assert lab.UserError and not set(sys.modules) & set({heavy})
lab.train
assert not set(sys.modules) & set({heavy[3:]}), set(sys.modules) & set({heavy[3:]})
"""
    done = run_python("-c", script)
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_there():
    for name in lab.__all__:
        assert getattr(lab, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = lab.trian
    assert (REPOSITORY / "melanoma_lab" / "py.typed").is_file()
