"""A search by several processes as over several machines, on loopback; one worker is killed."""

import socket

import mlflow
import pytest

from melanoma_lab.config.schema.tuner import RandomSearch
from melanoma_lab.tuning.oracles import build_oracle
from melanoma_lab.tuning.search_space import parse_space
from tests.support.search_processes import wait_for_an_epoch

pytestmark = [pytest.mark.integration, pytest.mark.slow]

EPOCHS = 30
SPACE = {"optimizer.learning_rate": {"min": 1e-4, "max": 1e-2, "log": True}}


@pytest.fixture
def start(tmp_path, tree, start_search):
    """A function that starts a process of a search in its role."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])

    def run(name, *more):
        role = {
            "KERASTUNER_TUNER_ID": name,
            "KERASTUNER_ORACLE_IP": "127.0.0.1",
            "KERASTUNER_ORACLE_PORT": port,
        }
        budget = (f"training.epochs={EPOCHS}", "tuner.max_trials=3", "tuner.worker_timeout=15")
        return start_search(tmp_path, tree, *budget, *more, environment=role)

    return run


def test_a_worker_is_killed_and_every_trial_is_there_once(start, tmp_path):
    chief, first, second = start("chief"), start("worker1"), start("worker2")
    wait_for_an_epoch(first, tmp_path)
    first.kill()
    first.communicate()
    said, _ = chief.communicate(timeout=300)
    assert chief.returncode == 0, said + second.communicate()[0]
    assert "worker1: no word for 15 s" in said
    assert [line.split("  ")[0] for line in said.splitlines() if line.startswith("trial ")] == [
        "trial 1/3",
        "trial 2/3",
        "trial 3/3",
    ]
    theirs, _ = second.communicate(timeout=60)
    assert second.returncode == 0, theirs
    assert "The search is over; 3 of its trials were trained here." in theirs

    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("ablation")
    runs = client.search_runs([experiment.experiment_id])
    (search,) = [run for run in runs if "trial" not in run.data.tags]
    trials = sorted((run for run in runs if "trial" in run.data.tags), key=trial_of)
    assert [trial_of(run) for run in trials] == ["0000", "0001", "0002"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} == {search.info.run_id}
    assert [run.data.tags["resumed"] for run in trials if "resumed" in run.data.tags] == ["1"]
    for run in trials:
        points = client.get_metric_history(run.info.run_id, "epoch/val_loss")
        assert [point.step for point in points] == list(range(1, EPOCHS + 1))
    rates = [run.data.params["optimizer.learning_rate"] for run in trials]
    assert rates == proposed(tmp_path / "oracle")
    assert (tmp_path / "experiments/ablation/conf/experiment/ablation_tuned.yaml").is_file()
    best = max(trials, key=lambda run: float(run.data.tags["score"]))
    assert search.data.metrics["best_score"] == float(best.data.tags["score"])


def trial_of(run):
    return run.data.tags["trial"]


def proposed(folder):
    """What a search in a single process proposes."""
    oracle = build_oracle(RandomSearch("random", max_trials=3), parse_space(SPACE))
    folder.mkdir()
    oracle.set_folder(folder)
    return [
        repr(oracle.create_trial(f"tuner{n}").hyperparameters.values["optimizer.learning_rate"])
        for n in range(3)
    ]


def test_a_worker_without_a_chief_says_so_and_what_to_start(start):
    worker = start("worker1", "tuner.chief_timeout=0.5")
    said, _ = worker.communicate(timeout=100)
    assert worker.returncode == 1
    assert "No chief answers at 127.0.0.1:" in said
    assert "KERASTUNER_TUNER_ID=chief" in said
    assert "Traceback" not in said
