"""A search that is interrupted and killed goes on with the same sequence and scores."""

import signal

import mlflow
import pytest

from tests.support.search_processes import wait_for_an_epoch

pytestmark = [pytest.mark.integration, pytest.mark.slow]

#: Four trials of an epoch, the best of them for four, and two of four.
SEARCH = ("tuner=hyperband", "tuner.max_epochs=4", "tuner.factor=4")


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


def test_a_search_that_was_stopped_twice_ends_as_one_that_was_not(tmp_path, tree, start_search):
    calm, stopped = tmp_path / "calm", tmp_path / "stopped"
    undisturbed = start_search(calm, tree, *SEARCH)
    # In a trial of its own, and in the one that goes on from another's state.
    for how, after in ((signal.SIGTERM, "trial 1/7"), (signal.SIGKILL, "trial 4/7")):
        process = start_search(stopped, tree, *SEARCH)
        assert any(line.startswith(after) for line in process.stdout)
        wait_for_an_epoch(process, stopped)
        process.send_signal(how)
        rest, _ = process.communicate()
        assert process.returncode == (130 if how == signal.SIGTERM else -how), rest
        assert ("the same command resumes" in rest) is (how == signal.SIGTERM)
    said, _ = start_search(stopped, tree, *SEARCH).communicate()
    assert "preset: experiments/ablation/conf" in said, said
    assert "trial 7/7" in said
    undisturbed.communicate()
    assert trials(stopped) == trials(calm)
    assert [trial for trial, *_ in trials(calm)] == [f"{n:04d}" for n in range(7)]
    assert {status for _, status, *_ in trials(stopped)} == {"FINISHED"}
