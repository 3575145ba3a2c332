"""A search that is killed goes on with the same sequence and scores. With real processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow

REPOSITORY = Path(__file__).resolve().parent.parent


def start(folder, tree, *more):
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [
            *(
                sys.executable,
                "-m",
                "melanoma_lab",
                "tune",
                "dataset=folder",
                f"dataset.root={tree}",
            ),
            *("dataset.image_size=16", "architecture.filters=[4,8]", "architecture.dense_units=8"),
            *("training.batch_size=1", "tuner=hyperband", "tuner.max_epochs=8", "tuner.factor=8"),
            "tuner.space={optimizer.learning_rate:{min:1e-4,max:1e-2,log:true}}",
            *(f"cache={folder / 'cache'}", *more),
        ],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def trials(folder):
    """Trial -> its status, parameters, score and losses, of every run of one."""
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("ablation")
    return sorted(
        (
            run.data.tags["trial"],
            run.info.status,
            run.data.params["optimizer.learning_rate"],
            run.data.params["training.stop_after"],
            run.data.tags.get("score"),
            [p.value for p in client.get_metric_history(run.info.run_id, "epoch/val_loss")],
        )
        for run in client.search_runs([experiment.experiment_id])
        if "trial" in run.data.tags
    )


def test_a_search_killed_at_some_moments_ends_as_one_that_was_not(tmp_path, tree):
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    undisturbed = start(calm, tree)
    for how, ended in ((signal.SIGKILL, "trial  2"), (signal.SIGTERM, "trial  9"), (9, "trial 10")):
        process = start(killed, tree)
        for line in process.stdout:
            if line.startswith(ended):
                break
        time.sleep(0.3)
        process.send_signal(how)
        rest, _ = process.communicate(timeout=300)
        if how == signal.SIGTERM:
            assert process.returncode == 130, rest
            assert "the same command goes on" in rest
    said, _ = start(killed, tree).communicate(timeout=300)
    assert "preset: experiments/ablation/conf" in said, said
    undisturbed.communicate(timeout=300)
    assert trials(killed) == trials(calm)
    assert {status for _, status, *_ in trials(killed)} == {"FINISHED"}
