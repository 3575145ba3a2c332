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


@pytest.fixture(scope="module")
def type_command(tree, tmp_path_factory):
    """A function that types a command in a folder where a study of four runs has been trained."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "images").symlink_to(tree)

    def run(command, *words):
        typed = ([] if command in ("train", "") else [command]) + list(words)
        done = run_command(*typed, folder=folder, XDG_CACHE_HOME=str(folder / "cache"))
        assert done.returncode == 0, done.stdout + done.stderr
        TYPED.add(command)
        return done.stdout

    run.data = ("dataset=folder", "dataset.root=images", "dataset.image_size=16")
    run.data += ("dataset.positive_class=melanoma",)
    run.printed = run(
        "train", "-m", "+experiment=baseline,dropout", "seed=0,1", *run.data, *NETWORK
    )
    run.folder = folder
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "ablation"]
    run.runs = [
        found
        for found in client.search_runs([experiment.experiment_id])
        if STUDY_TAG not in found.data.tags
    ]
    with chdir(folder):
        yield run


@pytest.fixture
def run_id(type_command):
    return type_command.runs[0].info.run_id


def test_train_compares_the_arms_of_a_multirun(type_command):
    assert {run.data.tags["arm"].split(",")[0] for run in type_command.runs} == {
        "baseline",
        "dropout",
    }
    assert {run.info.status for run in type_command.runs} == {"FINISHED"}
    report = json.loads((type_command.folder / "experiments/ablation/comparison.json").read_text())
    assert [arm["n_runs"] for arm in report["arms"].values()] == [2, 2]


def test_compare(type_command):
    written = type_command.folder / "experiments/ablation/comparison.json"
    before = json.loads(written.read_text())
    written.unlink()
    out = type_command("compare", "study=ablation", "reference=baseline")
    assert "dropout" in out
    assert json.loads(written.read_text()) == before


def test_audit(type_command):
    out = type_command("audit", *type_command.data)
    assert "27 images" in out
    assert (type_command.folder / "experiments/audit-folder/audit.html").exists()


def test_predict(type_command, run_id):
    out = type_command("predict", f"model={run_id}", "images=images/nevus", "output=n.csv")
    table = pd.read_csv("n.csv")
    assert len(table) == 9
    assert table.filter(like="prob/").sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-5)
    assert NOTICE in out


def test_evaluate(type_command, run_id, tmp_path):
    for k, name in enumerate(("melanoma", "nevus")):
        for i in range(3):
            paint(tmp_path / "elsewhere" / name / f"{i}.png", (90, 90 * k, 40), seed=i + 10 * k)
    out = type_command(
        "evaluate", f"model={run_id}", "dataset=folder", f"dataset.root={tmp_path / 'elsewhere'}"
    )
    assert "balanced accuracy" in out


def test_ensemble(type_command):
    out = type_command("ensemble", "study=ablation", "arm=baseline", "members=2")
    assert "ensemble" in out


def test_export(type_command, run_id):
    type_command("export", f"model={run_id}", "formats=saved_model", "output=exported")
    assert (Path("exported") / "saved_model" / "saved_model.pb").exists()


def test_card(type_command, run_id):
    type_command("card", f"model={run_id}", "output=card")
    assert NOTICE in Path("card/model_card.md").read_text().replace("\n", " ")


def test_demo(type_command, run_id, monkeypatch):
    served = []
    module = "melanoma_lab.commands.demo.serve"
    monkeypatch.setattr(module, lambda app, _, **__: served.append(app))
    out = type_command("demo", f"model={run_id}", "demo.port=0")
    assert re.search(r"Open http://127\.0\.0\.1:\d+", out)
    assert len(served) == 1


def test_tune(type_command):
    out = type_command(
        *("tune", "+experiment=baseline", "tuner=random", "tuner.max_trials=2", "study=tuned"),
        *type_command.data,
        *NETWORK,
    )
    assert "best" in out.lower()
    assert list(Path("experiments/tuned").glob("**/report.html"))


def test_leaky_protocol(type_command, tmp_path):
    for k, name in enumerate(("melanoma", "nevus")):
        for i in range(8):
            paint(tmp_path / "p" / "Train" / name / f"{i}.png", (200, 90 * k, 40), seed=i + 10 * k)
        for i in range(3):
            paint(tmp_path / "p" / "Test" / name / f"{i}.png", (200, 90 * k, 40), seed=500 + i + k)
    out = type_command(
        *("leaky_protocol", "dataset=folder", f"dataset.root={tmp_path / 'p'}"),
        *("dataset.image_size=24", f"output={tmp_path / 'leaky'}"),
    )
    assert "leaking, on purpose" in out


def test_sync_has_nothing_to_send(type_command):
    assert "nothing" in type_command("sync").lower()


def test_download(type_command, monkeypatch, tmp_path):
    def fetch(_handle):
        for part in ("Train", "Test"):
            paint(tmp_path / "remote" / part / "nevus" / f"{part}.jpg", (9, 9, 9), seed=0)
        return str(tmp_path / "remote")

    client = types.SimpleNamespace(dataset_download=fetch)
    monkeypatch.setitem(sys.modules, "kagglehub", client)
    out = type_command("download", "dataset=isic9", f"dataset.root={tmp_path / 'isic9'}")
    assert "isic9: 2 images.\n" in out


def test_no_command_is_forgotten(type_command):
    """Last in this file: the others have run."""
    assert {task.value for task in Task} == TYPED
