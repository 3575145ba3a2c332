"""The happy path of every command, as typed, on one study of small networks."""

import json
import re
import sys
import types
from contextlib import chdir
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from melanoma_lab.config.schema import Task
from melanoma_lab.tracking.parent_runs import STUDY_TAG
from tests.support.pictures import paint
from tests.support.processes import run_command

pytestmark = [pytest.mark.integration, pytest.mark.happy_path]

NOTICE = "not a medical device"
NETWORK = ("architecture.filters=[4,4,8]", "architecture.dense_units=8", "training.epochs=1")
TYPED = set()


class Project:
    """A folder where commands are typed, with a trained study of two arms at two seeds."""

    def __init__(self, folder, tree):
        self.folder = folder
        (folder / "images").symlink_to(tree)
        self.data = (
            *("dataset=folder", "dataset.root=images", "dataset.image_size=16"),
            "dataset.positive_class=melanoma",
        )
        self.type("train", "-m", "+experiment=baseline,dropout", "seed=0,1", *self.data, *NETWORK)
        client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
        experiment = client.get_experiment_by_name("ablation")
        found = client.search_runs([experiment.experiment_id])
        self.runs = [run for run in found if STUDY_TAG not in run.data.tags]

    def type(self, command, *words):
        """Type a command that must succeed; return what it prints."""
        typed = words if command == "train" else (command, *words)
        done = run_command(*typed, folder=self.folder, XDG_CACHE_HOME=str(self.folder / "cache"))
        assert done.returncode == 0, done.stdout + done.stderr
        TYPED.add(command)
        return done.stdout


@pytest.fixture(scope="module")
def project(tree, tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    made = Project(folder, tree)
    with chdir(folder):
        yield made


@pytest.fixture
def run_id(project):
    return project.runs[0].info.run_id


def test_train_compares_the_arms_of_a_multirun(project):
    assert {run.data.tags["arm"].split(",")[0] for run in project.runs} == {
        "baseline",
        "dropout",
    }
    assert {run.info.status for run in project.runs} == {"FINISHED"}
    report = json.loads((project.folder / "experiments/ablation/comparison.json").read_text())
    assert [arm["n_runs"] for arm in report["arms"].values()] == [2, 2]


def test_compare(project):
    written = project.folder / "experiments/ablation/comparison.json"
    before = json.loads(written.read_text())
    written.unlink()
    out = project.type("compare", "study=ablation", "reference=baseline")
    assert "dropout" in out
    assert json.loads(written.read_text()) == before


def test_audit(project):
    out = project.type("audit", *project.data)
    assert "27 images" in out
    assert (project.folder / "experiments/audit-folder/audit.html").exists()


def test_predict(project, run_id):
    out = project.type("predict", f"model={run_id}", "images=images/nevus", "output=n.csv")
    table = pd.read_csv("n.csv")
    assert len(table) == 9
    assert table.filter(like="prob/").sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-5)
    assert NOTICE in out


def test_evaluate(project, run_id, tmp_path):
    for k, name in enumerate(("melanoma", "nevus")):
        for i in range(3):
            paint(tmp_path / "elsewhere" / name / f"{i}.png", (90, 90 * k, 40), seed=i + 10 * k)
    out = project.type(
        "evaluate", f"model={run_id}", "dataset=folder", f"dataset.root={tmp_path / 'elsewhere'}"
    )
    assert "balanced accuracy" in out


def test_ensemble(project):
    out = project.type("ensemble", "study=ablation", "arm=baseline", "members=2")
    assert "ensemble" in out


def test_export(project, run_id):
    project.type("export", f"model={run_id}", "formats=saved_model", "output=exported")
    assert (Path("exported") / "saved_model" / "saved_model.pb").exists()


def test_card(project, run_id):
    project.type("card", f"model={run_id}", "output=card")
    assert NOTICE in Path("card/model_card.md").read_text().replace("\n", " ")


def test_demo(project, run_id, monkeypatch):
    served = []
    module = "melanoma_lab.commands.demo.serve"
    monkeypatch.setattr(module, lambda app, _, **__: served.append(app))
    out = project.type("demo", f"model={run_id}", "demo.port=0")
    assert re.search(r"Open http://127\.0\.0\.1:\d+", out)
    assert len(served) == 1


def test_tune(project):
    out = project.type(
        *("tune", "+experiment=baseline", "tuner=random", "tuner.max_trials=2", "study=tuned"),
        *project.data,
        *NETWORK,
    )
    assert "best" in out.lower()
    assert list(Path("experiments/tuned").glob("**/report.html"))


def test_leaky_protocol(project, tmp_path):
    for k, name in enumerate(("melanoma", "nevus")):
        for i in range(8):
            paint(tmp_path / "p" / "Train" / name / f"{i}.png", (200, 90 * k, 40), seed=i + 10 * k)
        for i in range(3):
            paint(tmp_path / "p" / "Test" / name / f"{i}.png", (200, 90 * k, 40), seed=500 + i + k)
    out = project.type(
        *("leaky_protocol", "dataset=folder", f"dataset.root={tmp_path / 'p'}"),
        *("dataset.image_size=24", f"output={tmp_path / 'leaky'}"),
    )
    assert "leaking, on purpose" in out


def test_sync_has_nothing_to_send(project):
    assert "nothing" in project.type("sync").lower()


def test_download(project, monkeypatch, tmp_path):
    def fetch(_handle):
        for part in ("Train", "Test"):
            paint(tmp_path / "remote" / part / "nevus" / f"{part}.jpg", (9, 9, 9), seed=0)
        return str(tmp_path / "remote")

    client = types.SimpleNamespace(dataset_download=fetch)
    monkeypatch.setitem(sys.modules, "kagglehub", client)
    out = project.type("download", "dataset=isic9", f"dataset.root={tmp_path / 'isic9'}")
    assert "isic9: 2 images.\n" in out


def test_no_command_is_forgotten():
    """The last test of this file: the others have typed all."""
    assert {task.value for task in Task} == TYPED
