"""Runs that are killed go on; two processes do not train one run. With real processes."""

import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import h5py
import mlflow
import numpy as np
import pytest

pytestmark = [pytest.mark.integration, pytest.mark.slow]

REPOSITORY = Path(__file__).resolve().parent.parent
EPOCHS = 30
FIGURES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "seconds")


class Place:
    """A folder with its own database and cache, where one command is typed."""

    def __init__(self, folder, tree, *overrides):
        folder.mkdir()
        self.folder = folder
        self.arguments = [
            "dataset=folder",
            f"dataset.root={tree}",
            "dataset.image_size=16",
            "architecture.filters=[4,8]",
            "architecture.dense_units=8",
            "training.batch_size=1",
            f"cache={folder / 'cache'}",
            *overrides,
        ]

    def start(self, *more):
        return subprocess.Popen(
            [sys.executable, "-m", "melanoma_lab", *more, *self.arguments],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def runs(self):
        client = mlflow.MlflowClient(f"sqlite:///{self.folder / 'mlflow.db'}")
        experiment = client.get_experiment_by_name("ablation")
        runs = client.search_runs([experiment.experiment_id])
        return client, [run for run in runs if "arm" in run.data.tags]  # not the study's own

    def left(self):
        """What stays in the cache of interrupted runs."""
        return [path.name for path in (self.folder / "cache" / "runs").glob("*/*")]


def read_until(process, wanted):
    """Read what a process says until a line begins with one of the wanted; all that it said."""
    said = []
    for line in process.stdout:
        said.append(line)
        if line.startswith(wanted):
            break
    return "".join(said)


def end(process):
    said, _ = process.communicate(timeout=300)
    return said


def weights(place):
    """The arrays of the one network that was kept, by their name in the file."""
    (path,) = place.folder.rglob("model.keras")
    found = {}
    with zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as file:
        h5py.File(file).visititems(
            lambda name, item: (
                found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
        )
    return found


def figures(client, run):
    """Step -> value of every figure of an epoch; each step once."""
    table = {}
    for name in FIGURES:
        points = client.get_metric_history(run.info.run_id, f"epoch/{name}")
        table[name] = {point.step: point.value for point in points}
        assert len(table[name]) == len(points), name
    return table


def test_a_run_killed_at_any_moment_ends_as_one_that_was_not(tmp_path, tree):
    overrides = (
        "regularisation=dropout",
        "regularisation.rates=[0.2]",
        "augmentation=flip_rotate_zoom",
        "balancing=augmentor",
        "balancing.per_class=12",
        f"training.epochs={EPOCHS}",
        "training.patience=25",
    )
    calm = Place(tmp_path / "calm", tree, *overrides)
    undisturbed = calm.start()
    place = Place(tmp_path / "killed", tree, *overrides)
    moments = random.Random(0)  # noqa: S311 - not for secrets
    for number in range(4):
        process = place.start()
        for _ in range(moments.randint(0, 3)):
            read_until(process, "epoch ")
        time.sleep(moments.uniform(0, 0.2))
        process.send_signal(signal.SIGTERM if number == 2 else signal.SIGKILL)
        end(process)
    process = place.start()
    said = end(process)
    end(undisturbed)
    assert process.returncode == undisturbed.returncode == 0, said
    assert "Resuming run" in said
    assert "\nepoch  1/" not in said

    client, (run,) = place.runs()
    calm_client, (calm_run,) = calm.runs()
    assert run.info.status == calm_run.info.status == "FINISHED"
    assert 1 <= int(run.data.tags["resumed"]) <= 4
    assert "resumed" not in calm_run.data.tags
    assert "reason" not in run.data.tags
    ours, theirs = figures(client, run), figures(calm_client, calm_run)
    del ours["seconds"], theirs["seconds"]
    assert ours == theirs
    for name in ("optimizer_steps", "best_epoch", "test/log_loss"):
        assert run.data.metrics[name] == calm_run.data.metrics[name]
    tables = [
        Path(c.download_artifacts(r.info.run_id, "predictions.csv")).read_bytes()
        for c, r in ((client, run), (calm_client, calm_run))
    ]
    assert tables[0] == tables[1]
    kept, expected = weights(place), weights(calm)
    assert kept.keys() == expected.keys() != set()
    for name, value in expected.items():
        np.testing.assert_array_equal(kept[name], value, err_msg=name)
    assert place.left() == []


def test_two_terminals_do_not_train_one_run(tmp_path, tree):
    """A plain command gives way; multiruns share the work, and take over what was interrupted."""
    place = Place(tmp_path / "shared", tree, "training.epochs=40", "tracking.model=false")
    first = place.start()
    read_until(first, "epoch ")
    first.send_signal(signal.SIGSTOP)  # or it would be through before the second has started
    second = place.start()
    said = end(second)
    assert second.returncode == 1
    assert f"melanoma_lab: Process {first.pid} on " in said
    assert "is training this run" in said
    first.send_signal(signal.SIGTERM)
    first.send_signal(signal.SIGCONT)
    said = end(first)
    assert first.returncode == 130
    assert "Interrupted; the same command resumes from epoch" in said

    both = [place.start("-m", "seed=0,1") for _ in range(2)]
    said = "".join(end(process) for process in both)
    assert [process.returncode for process in both] == [0, 0], said
    assert said.count("Resuming run") == 1
    assert said.count("Skipped: run ") == 2
    _, runs = place.runs()
    assert sorted((run.info.status, run.data.tags["seed"]) for run in runs) == [
        ("FINISHED", "0"),
        ("FINISHED", "1"),
    ]
    assert place.left() == []


def test_a_killed_run_goes_on_after_its_folder_was_moved(tmp_path, tree):
    elsewhere = f"cache={tmp_path / 'cache'}"
    place = Place(
        tmp_path / "before", tree, "training.epochs=40", "tracking.model=false", elsewhere
    )
    process = place.start()
    read_until(process, "epoch ")
    process.send_signal(signal.SIGKILL)
    end(process)
    place.folder = place.folder.rename(tmp_path / "after")
    process = place.start()
    said = end(process)
    assert process.returncode == 0, said
    assert "Resuming run" in said
    _, (run,) = place.runs()
    assert run.info.status == "FINISHED"
    assert run.info.artifact_uri.startswith(str(tmp_path / "after" / "mlruns"))
    assert (Path(run.info.artifact_uri) / "predictions.csv").is_file()
    assert not (tmp_path / "before").exists()
