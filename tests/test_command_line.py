"""The program as a user runs it: the contracts, exit statuses, interruptions."""

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from melanoma_lab.tracking.parent_runs import PARENT_TAG, STUDY_TAG
from tests.support.processes import run_command, run_python

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).resolve().parent.parent
SMALL = ("architecture.filters=[4,8]", "architecture.dense_units=8", "dataset.image_size=16")


def start(folder, *arguments):
    environment = os.environ | {
        "PYTHONPATH": str(REPOSITORY),
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "melanoma_lab", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def command(folder, *arguments):
    done = run_command(*arguments, folder=folder, XDG_CACHE_HOME=str(folder / "cache"))
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tree):
    """One run, two epochs, by the command line; relative paths, melanoma named."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "images").symlink_to(tree)
    status, out, err = command(
        folder,
        "+experiment=augmented",
        "dataset=folder",
        "dataset.root=images",
        "dataset.positive_class=melanoma",
        "dataset.classes=[melanoma,nevus,Vascular lesion]",
        "regularisation.rates=[0.1]",
        "balancing.per_class=15",
        "training.epochs=2",
        "training.batch_size=8",
        "seed=3",
        "study=first",
        *SMALL,
    )
    assert status == 0, out + err
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("first")
    (run,) = client.search_runs([experiment.experiment_id])
    return folder, out, client, run


def test_a_finished_run_has_its_tags(finished):
    *_, run = finished
    tags = run.data.tags
    assert run.info.status == "FINISHED"
    assert tags["study"] == "first"
    assert tags["experiment"] == "augmented"
    assert tags["arm"].startswith("augmented,")
    assert "seed" not in tags["arm"]
    assert (tags["seed"], tags["fold"]) == ("3", "0")
    assert tags["reference"] == "dropout"
    assert (tags["protocol"], tags["grouped_by"]) == ("ungrouped", "")
    for name in ("fingerprint", "split_hash", "dataset_digest"):
        assert re.fullmatch(r"[0-9a-f]{16}", tags[name])
    assert tags["git_commit"]


def test_a_finished_run_has_the_resolved_configuration(finished):
    *_, run = finished
    expected = {
        "seed": "3",
        "split.seed": "0",
        "dataset.root": "images",
        "dataset.image_size": "16",
        "balancing.name": "augmentor",
        "balancing.per_class": "15",
        "regularisation.rates": "[0.1]",
        "optimizer.learning_rate": "0.001",
        "training.epochs": "2",
        "training.precision": "float32",
    }
    assert expected.items() <= run.data.params.items()


def test_a_finished_run_has_a_point_an_epoch(finished):
    _, _, client, run = finished
    for name in (
        "train_loss",
        "train_accuracy",
        "val_loss",
        "val_accuracy",
        "seconds",
        "images_per_second",
    ):
        history = client.get_metric_history(run.info.run_id, f"epoch/{name}")
        assert [point.step for point in history] == [1, 2], name


def test_a_finished_run_has_its_metrics(finished):
    *_, run = finished
    names = {
        f"{split}/{metric}"
        for split in ("train", "val", "test")
        for metric in (
            "accuracy",
            "balanced_accuracy",
            "macro_auroc",
            "macro_f1",
            "log_loss",
            "brier",
            "ece",
        )
    }
    names |= {
        f"{split}/melanoma_{metric}"
        for split in ("val", "test")
        for metric in ("sensitivity", "specificity", "auroc")
    }
    names |= {
        f"test/{metric}/{slug}"
        for metric in ("sensitivity", "specificity")
        for slug in ("melanoma", "nevus", "vascular_lesion")
    }
    names |= {
        f"{split}/{metric}"
        for split in ("val", "test")
        for metric in (
            "calibrated_log_loss",
            "calibrated_brier",
            "calibrated_ece",
            "operating_point_sensitivity",
            "operating_point_specificity",
        )
    }
    names |= {"temperature", "operating_point_threshold"}
    names |= {"generalisation_gap", "parameters", "fit_seconds", "optimizer_steps", "best_epoch"}
    assert names <= run.data.metrics.keys()
    metrics = run.data.metrics
    gap = metrics["train/accuracy"] - metrics["val/accuracy"]
    assert metrics["generalisation_gap"] == pytest.approx(gap)
    assert metrics["test/melanoma_sensitivity"] == metrics["test/sensitivity/melanoma"]
    assert metrics["optimizer_steps"] == 2 * 3  # 19 training images, 8 a step


def test_a_finished_run_has_its_artifacts(finished):
    _, _, client, run = finished
    names = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"config.yaml", "predictions.csv", "manifest.csv", "plots"} <= names
    assert {"calibration.json", "operating_points.json", "mistakes.html"} <= names
    plots = {Path(item.path).name for item in client.list_artifacts(run.info.run_id, "plots")}
    assert {
        "class_distribution.png",
        "samples.png",
        "learning_curves.png",
        "confusion_matrix.png",
        "roc_curves.png",
        "precision_recall_curves.png",
        "reliability_diagram.png",
        "operating_curve.png",
        "decision_curve.png",
        "grad_cam.png",
    } <= plots
    for name in plots:
        path = client.download_artifacts(run.info.run_id, f"plots/{name}")
        with Image.open(path) as picture:
            assert min(picture.size) > 300


def test_what_a_run_records_is_in_the_reference(finished):
    _, _, client, run = finished
    page = (REPOSITORY / "docs" / "reference" / "runs.md").read_text()
    tags = {tag for tag in run.data.tags if not tag.startswith(("mlflow.", "absent/"))}
    assert [tag for tag in sorted(tags) if f"`{tag}`" not in page] == []
    files = [item.path for item in client.list_artifacts(run.info.run_id)]
    assert [name for name in files if f"`{name}`" not in page and f"`{name}/`" not in page] == []


def test_the_predictions_table_has_its_columns(finished):
    _, _, client, run = finished
    table = pd.read_csv(client.download_artifacts(run.info.run_id, "predictions.csv"))
    assert list(table.columns) == [
        "image_id",
        "group",
        "split",
        "y_true",
        "prob/melanoma",
        "prob/nevus",
        "prob/vascular_lesion",
    ]
    scores = table.filter(like="prob/")
    right = scores.idxmax(axis=1).str.removeprefix("prob/") == table["y_true"]
    assert right[table["split"] == "test"].mean() == run.data.metrics["test/accuracy"]


def test_the_model_takes_raw_pixels(finished):
    folder, _, _, run = finished
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    model = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model")
    assert model.metadata.signature is not None
    assert model.input_example.dtype == np.uint8
    assert model.predict(model.input_example).shape == (1, 3)


def test_the_summary_says_what_matters(finished):
    _, out, _, run = finished
    for words in (
        "augmented",
        "27 images",
        "epoch 2/2",
        "balanced accuracy",
        "melanoma sensitivity",
        "generalisation gap",
        run.info.run_id,
        "mlflow ui",
        "not a medical device",
    ):
        assert words in out


def test_output_goes_where_it_belongs(finished):
    folder, *_ = finished
    assert {path.name for path in folder.iterdir()} == {
        "images",
        "cache",
        "experiments",
        "mlflow.db",
        "mlruns",
    }
    assert [path.name for path in (folder / "experiments").iterdir()] == ["first"]
    assert [path.name for path in (folder / "experiments" / "first").iterdir()] == ["runs"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "trian: no such task. Did you mean train?"),
        (["+experiment=augmentd"], "Did you mean augmented?"),
        (["dataset=isic"], "Did you mean isic9?"),
        (["regularisation.droput=0.1"], "Did you mean regularisation.rate?"),
        (["+regularisation.droput=0.1"], "Did you mean regularisation.rate?"),
        (["dataset=folder", "dataset.root=nowhere"], "dataset.root=nowhere: no such folder."),
        (["dataset=isic9"], "dataset.root is not set"),
        (["training.batch_size=0"], "training.batch_size: expected at least 1; received 0."),
        (["split.train=0.9"], "a sum of 1"),
        (["study=../elsewhere"], "study: expected letters"),
        (["study=${oc.env:NO_SUCH_VARIABLE}"], "NO_SUCH_VARIABLE"),
        (["~architecture"], "architecture is not set"),
        (["cache=${nothing}"], "nothing"),
        (["architecture=0"], "Config group override must be a string"),
        (["seed='"], "seed='"),
        (["tune", "tuner=hyperban"], "Did you mean hyperband?"),
        (["tune", "tuner=grid", "tuner.max_epochs=3"], "It is a key of tuner=hyperband."),
        (["tune", "tuner.max_trials=-1"], "tuner.max_trials: expected at least 1; received -1."),
        (["tune", "tuner.objective=val/acuracy"], "Did you mean val/accuracy?"),
        (["tune", "tuner.space={}"], "at least one key to search"),
        (["tune", "tuner.space={optimizer.learning_rat:[1,2]}"], "optimizer.learning_rate?"),
        (["tune", "tuner.space={optimizer:[sgd]}"], "only one combination, optimizer=sgd"),
        (["download", "dataset=folder", "dataset.root=new"], "it cannot be downloaded"),
        (["~architecture", "~optimizer"], "optimizer is not set"),
        (["download", "dataset=folder"], "add dataset.root=DIR, the folder to download to"),
        (["evaluate", "dataset=folder"], "dataset.root is not set"),
        (["evaluate", "dataset=folder"], "model is not set"),
        (
            [
                "balancing=augmentor",
                "balancing.operations=[{rotat:{probability:1}}]",
                "dataset.lesions=110",
                "dataset.image_size=16",
            ],
            "rotate",
        ),
    ],
)
def test_a_mistake_is_told_in_a_few_lines_with_status_2(tmp_path, arguments, message):
    status, out, err = command(tmp_path, *arguments)
    assert status == 2
    assert message in err
    assert "Traceback" not in err + out
    assert "Error executing" not in err
    assert len(err.strip().splitlines()) <= 3
    assert not any(tmp_path.rglob("elsewhere"))
    assert not (tmp_path / "experiments").exists()


def test_one_class_and_too_few_images_are_mistakes(tmp_path, tree):
    shutil.copytree(tree / "nevus", tmp_path / "one" / "nevus")
    status, _, err = command(tmp_path, "dataset=folder", "dataset.root=one")
    assert (status, "only one class, 'nevus'" in err) == (2, True)
    (tmp_path / "one" / "rare").mkdir()
    first = min((tree / "melanoma").iterdir())
    shutil.copy(first, tmp_path / "one" / "rare" / "a.png")
    status, _, err = command(tmp_path, "dataset=folder", "dataset.root=one")
    assert (status, "in 1 of 2 classes: rare (1)" in err) == (2, True)


LAZY = """
import sys
from melanoma_lab.__main__ import main
for arguments in (
    [],
    ["--help"],
    ["predict", "--help"],
    ["--help", "architecture=vgg5"],
    ["--version"],
    ["--cfg", "job"],
    ["+training.epoch_count=1"],
    ["training.epochs=0"],
    ["dataset=x"],
    ["tune", "tuner.objective=val/acuracy"],
    ["tune", "tuner.space={optimizer.learning_rat:[1,2]}"],
    ["demo", "demo.host=203.0.113.7"],
    ["predict"],
    ["predict", "model=x"],
    ["evaluate", "dataset=folder"],
    ["export"],
    ["card"],
    ["demo"],
    ["compare"],
    ["ensemble", "study=none"],
):
    sys.argv = ["melanoma_lab", *arguments]
    try:
        main()
    except SystemExit as end:
        print(end.code)
    heavy = {"tensorflow", "keras", "mlflow", "matplotlib", "pandas", "scipy", "sklearn"}
    heavy &= set(sys.modules)
    if heavy:
        sys.exit(f"{arguments} loaded {heavy}")
"""


def test_help_and_config_errors_load_nothing_heavy(tmp_path):
    done = run_python("-c", LAZY, folder=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_command_ends_without_a_last_search_for_garbage(tmp_path):
    script = """
import atexit, gc, sys
atexit.register(lambda: print("frozen:", gc.get_freeze_count() > 10_000))
sys.argv[1:] = ["--help"]
from melanoma_lab.__main__ import main
main()
print("frozen:", gc.get_freeze_count() > 0)
"""
    done = run_python("-c", script, folder=tmp_path)
    assert done.stdout.splitlines()[-2:] == ["frozen: False", "frozen: True"], done.stderr


def test_a_process_ends_with_the_status_of_the_command(tmp_path):
    process = start(tmp_path, "trian")
    _, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (
        2,
        "melanoma_lab: trian: no such task. Did you mean train?\n",
    )


@pytest.mark.slow
def test_an_interrupted_run_is_killed_and_says_130(tmp_path, tree):
    """By Ctrl-C; tests/test_interrupted_runs.py sends SIGTERM."""
    process = start(
        tmp_path, "dataset=folder", f"dataset.root={tree}", "training.epochs=100000", *SMALL
    )
    query = "SELECT run_uuid FROM metrics WHERE key = 'epoch/val_loss'"
    found = None
    for _ in range(600):
        time.sleep(0.2)
        assert process.poll() is None, process.communicate()
        # Not by MLflow, which would make the database's tables at the same time as the program.
        with suppress(sqlite3.Error), closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
            found = database.execute(query).fetchone()
        if found:
            break
    assert found
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert client.get_run(found[0]).info.status == "KILLED"


def test_a_multirun_trains_every_arm_and_seed_in_one_process(tmp_path, tree, undrawn):
    status, out, err = command(
        tmp_path,
        "+experiment=baseline,dropout",
        "seed=0,1",
        "-m",
        "dataset=folder",
        f"dataset.root={tree}",
        "training.epochs=1",
        "tracking.model=false",
        "architecture.filters=[4,8,8]",
        "dataset.image_size=16",
    )
    assert status == 0, out + err
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    recorded = client.search_runs([client.get_experiment_by_name("ablation").experiment_id])
    (study,) = [run for run in recorded if STUDY_TAG in run.data.tags]
    runs = [run for run in recorded if run is not study]
    assert {run.data.tags[PARENT_TAG] for run in runs} == {study.info.run_id}
    assert "report.html" in {entry.path for entry in client.list_artifacts(study.info.run_id)}
    found = {(run.data.tags["experiment"], run.data.tags["seed"]) for run in runs}
    assert found == {(preset, seed) for preset in ("baseline", "dropout") for seed in "01"}
    assert len({run.data.tags["split_hash"] for run in runs}) == 1
    assert len({run.data.tags["fingerprint"] for run in runs}) == 4
