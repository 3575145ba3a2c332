"""Whole searches on tiny images, in this process: what is tracked, kept, repeated and refused."""

import json
from contextlib import nullcontext
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from melanoma_lab.commands.train import train_arm
from melanoma_lab.comparison.study_report import report_study
from melanoma_lab.config.compose import compose_config
from melanoma_lab.config.schema.tracking import Tracking
from melanoma_lab.core.errors import RunError, UserError
from melanoma_lab.evaluation.predictions import Predictions
from melanoma_lab.runs import steps
from melanoma_lab.tuning.plan import plan_search
from melanoma_lab.tuning.space_validation import TuneCommand
from melanoma_lab.tuning.tune import tune_arm
from tests.support.instant_training import instant_training

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("undrawn")]

SMALL = (
    *("architecture.filters=[4,8]", "architecture.dense_units=8", "dataset=folder"),
    *("dataset.image_size=16", "training.batch_size=16", "training.epochs=1"),
)
RATE = "optimizer.learning_rate:{min:1e-4,max:1e-2,log:true}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where everything is tracked; one database, because a new one takes seconds."""
    return tmp_path_factory.mktemp("tuning")


@pytest.fixture
def tune(folder, tree, monkeypatch):
    """Search with overrides in a study of its own; returns what came of it."""
    monkeypatch.chdir(folder)

    def run(study, *overrides):
        words = [*SMALL, f"dataset.root={tree}", f"cache={folder / 'cache'}", f"study={study}"]
        words += overrides
        config, arm = compose_config(words)
        return tune_arm(plan_search(config, arm, TuneCommand.from_overrides(words)))

    return run


def runs_of(study):
    client = mlflow.MlflowClient(mlflow.get_tracking_uri())
    experiment = client.get_experiment_by_name(study)
    return client, client.search_runs(
        [experiment.experiment_id], order_by=["attributes.start_time ASC"]
    )


def trials_of(study):
    client, runs = runs_of(study)
    return client, [run for run in runs if "trial" in run.data.tags]


@pytest.mark.parametrize(
    ("tuner", "more", "n"),
    [
        ("random", ["tuner.max_trials=2"], 2),
        ("bayesian", ["tuner.max_trials=3", "tuner.initial_trials=2"], 3),
        ("grid", ["tuner.max_trials=2"], 2),
        ("hyperband", ["tuner.max_epochs=2", "tuner.factor=2"], 5),
    ],
)
def test_every_trial_is_a_run_under_its_search_that_has_not_met_a_test_image(
    tune, drawn, tuner, more, n
):
    """The networks of one search are trained, those of the others in no time."""
    space = f"tuner.space={{{RATE},balancing:[none,class_weight]}}"
    with nullcontext() if tuner == "random" else instant_training():
        done = tune(tuner, f"tuner={tuner}", *more, space)
    client, runs = runs_of(tuner)
    (parent,) = [run for run in runs if "trial" not in run.data.tags]
    trials = [run for run in runs if "trial" in run.data.tags]
    assert len(trials) == n == len(done.sweep.trials)
    assert parent.info.run_id == done.run_id
    best = max(trials, key=lambda run: float(run.data.tags["score"]))
    assert float(best.data.tags["score"]) == done.score == parent.data.metrics["best_score"]
    for run in trials:
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert not [name for name in run.data.metrics if "test" in name]
        assert run.data.metrics["val/balanced_accuracy"] == float(run.data.tags["score"])
        assert run.data.params["optimizer.learning_rate"]
        assert client.get_metric_history(run.info.run_id, "epoch/val_loss")
        table = Predictions.read(
            Path(client.download_artifacts(run.info.run_id, "predictions.csv"))
        ).table
        assert set(table["split"]) == {"train", "val"}
    with_plots = [run for run in trials if client.list_artifacts(run.info.run_id, "plots")]
    assert [run.data.tags["trial"] for run in with_plots] == [parent.data.tags["best_trial"]]
    page = Path(client.download_artifacts(with_plots[0].info.run_id, "mistakes.html"))
    assert " of val (" in page.read_text(encoding="utf-8")
    without = next(run for run in trials if run not in with_plots)
    assert "mistakes.html" not in {a.path for a in client.list_artifacts(without.info.run_id)}
    card = client.download_artifacts(with_plots[0].info.run_id, "model_card.md")
    assert "It was not applied to its test split" in Path(card).read_text(encoding="utf-8")
    model = mlflow.pyfunc.load_model(f"runs:/{with_plots[0].info.run_id}/model")
    assert model.metadata.signature is not None
    assert {a.path for a in client.list_artifacts(parent.info.run_id)} >= {
        "report.html", f"{tuner}_tuned.yaml", "manifest.csv",
    }  # fmt: skip
    assert done.report.is_file()


def test_the_network_is_applied_to_train_and_val_alone(tune, monkeypatch):
    import keras

    seen = []
    predict = keras.Model.predict

    def counted(model, batches, **options):
        seen.append(sum(len(batch[0]) for batch in batches))
        return predict(model, batches, **options)

    monkeypatch.setattr(keras.Model, "predict", counted)
    tune("applied", "tuner.max_trials=1", f"tuner.space={{{RATE}}}")
    _, (run,) = trials_of("applied")
    manifest = pd.read_csv(mlflow.MlflowClient().download_artifacts(
        run.data.tags["mlflow.parentRunId"], "manifest.csv"))  # fmt: skip
    assert set(seen) == {int((manifest["split"] != "test").sum())}


@pytest.mark.slow
def test_a_promoted_trial_has_the_bits_of_a_longer_run(tune, monkeypatch):
    """It goes on from the state of the trial that it was promoted from, whatever the schedule."""
    overrides = (
        *("tuner=hyperband", "tuner.max_epochs=4", "tuner.factor=4", "schedule=cosine"),
        *("regularisation=dropout", "regularisation.rates=[0.3,0.3]"),
        *("augmentation=flip_rotate_zoom", f"tuner.space={{{RATE}}}"),
    )
    tune("promoted", *overrides)
    client, trials = trials_of("promoted")
    table = pd.DataFrame(
        [
            (r.data.tags["trial"], r.data.params.get("training.stop_after"),
             float(r.data.params["optimizer.learning_rate"]), r.data.metrics["optimizer_steps"], r)
            for r in trials
        ],
        columns=["trial", "stop", "rate", "steps", "run"],
    )  # fmt: skip
    short = table[table["stop"] == "1"].set_index("rate")
    promoted = table[(table["stop"] == "null") & table["rate"].isin(short.index)].iloc[0]
    assert promoted["steps"] == 4 * short.loc[promoted["rate"], "steps"]
    points = client.get_metric_history(promoted["run"].info.run_id, "epoch/val_loss")
    assert [point.step for point in points] == [1, 2, 3, 4]

    def at_once(config, arm):
        return client.get_run(train_arm(config, arm))

    words = [*SMALL[:-1], *(o for o in overrides if not o.startswith("tuner")), "study=whole"]
    root = promoted["run"].data.params["dataset.root"]
    words += [
        f"dataset.root={root}",
        "training.epochs=4",
        f"optimizer.learning_rate={promoted['rate']}",
    ]
    whole = at_once(
        *compose_config([*words, f"cache={Path('cache').resolve()}", "tracking.model=false"])
    )
    for name in ("val/balanced_accuracy", "val/log_loss", "train/log_loss", "best_epoch"):
        assert whole.data.metrics[name] == promoted["run"].data.metrics[name]
    longer = [p.value for p in client.get_metric_history(whole.info.run_id, "epoch/val_loss")]
    assert longer == [point.value for point in points]


@pytest.mark.usefixtures("instant")
def test_several_seeds_are_averaged_and_each_is_kept(tune):
    done = tune("seeds", "tuner.max_trials=2", "tuner.seeds=[0,1]", f"tuner.space={{{RATE}}}")
    _, trials = trials_of("seeds")
    under = [r for r in trials if r.data.tags["mlflow.parentRunId"] == done.run_id]
    assert len(under) == 2
    for run in under:
        own = [r for r in trials if r.data.tags["mlflow.parentRunId"] == run.info.run_id]
        assert sorted(r.data.tags["seed"] for r in own) == ["0", "1"]
        scores = [float(r.data.tags["score"]) for r in own]
        assert float(run.data.tags["score"]) == pytest.approx(np.mean(scores))
        losses = [r.data.metrics["val/log_loss"] for r in own]
        assert run.data.metrics["val/log_loss"] == pytest.approx(np.mean(losses))
    assert [len(scores) for scores in done.sweep.trials["scores"]] == [2, 2]
    assert done.sweep.repetitions == ("seed 0", "seed 1")


@pytest.mark.usefixtures("instant")
def test_folds_are_averaged_each_is_kept_and_the_user_is_warned(tune, capsys):
    folds = ("split=kfold", "split.k=3", "tuner.folds=[0,2]")
    done = tune("folds", *folds, "tuner.max_trials=1", f"tuner.space={{{RATE}}}")
    _, trials = trials_of("folds")
    (above,) = [run for run in trials if run.data.tags["mlflow.parentRunId"] == done.run_id]
    own = [run for run in trials if run.data.tags["mlflow.parentRunId"] == above.info.run_id]
    assert sorted(run.data.tags["fold"] for run in own) == ["0", "2"]
    assert len({run.data.tags["split_hash"] for run in own}) == 2
    scores = [float(run.data.tags["score"]) for run in own]
    assert done.score == pytest.approx(np.mean(scores))
    assert done.sweep.repetitions == ("seed 0 fold 0", "seed 0 fold 2")
    assert (
        "Validation images of this search are test images of other folds" in capsys.readouterr().out
    )


@pytest.mark.usefixtures("instant")
def test_a_search_goes_on_and_repeats_no_trial_unless_the_space_is_another(tune):
    space = f"tuner.space={{{RATE}}}"
    first = tune("again", "tuner.max_trials=2", space)
    more = tune("again", "tuner.max_trials=3", space)
    _, trials = trials_of("again")
    assert more.run_id == first.run_id
    assert [r.data.tags["trial"] for r in trials] == ["0000", "0001", "0002"]
    assert list(more.sweep.trials["score"][:2]) == list(first.sweep.trials["score"])
    other = tune(
        "again", "tuner.max_trials=2", f"tuner.space={{{RATE},balancing:[none,oversample]}}"
    )
    assert other.run_id != first.run_id
    assert len(trials_of("again")[1]) == 5


@pytest.mark.usefixtures("instant")
def test_a_damaged_state_is_put_aside_and_nothing_is_trained_again(tune, folder, capsys):
    arguments = ("damaged", "tuner.max_trials=2", f"tuner.space={{{RATE}}}")
    first = tune(*arguments)
    (state,) = (folder / "experiments" / "damaged" / "tuning").glob("*/oracle.json")
    state.write_text(state.read_text()[:-50])
    again = tune(*arguments)
    assert "state is damaged" in capsys.readouterr().out
    assert list(state.parent.glob("oracle.damaged-*"))
    assert list(again.sweep.trials["score"]) == list(first.sweep.trials["score"])
    assert len(trials_of("damaged")[1]) == 2


@pytest.mark.usefixtures("instant")
def test_a_trial_that_fails_is_recorded_and_the_search_goes_on(tune, monkeypatch):
    build = steps.build_setup

    def failing(spec, images):
        if spec.config.optimizer.learning_rate == 0.5:
            raise RunError("diverged: the loss became nan")
        return build(spec, images)

    monkeypatch.setattr(steps, "build_setup", failing)
    space = "tuner.space={optimizer.learning_rate:[1e-3,0.5,1e-2]}"
    done = tune("failing", "tuner=grid", space)
    _, trials = trials_of("failing")
    assert [r.info.status for r in trials] == ["FINISHED", "FAILED", "FINISHED"]
    assert "diverged" in trials[1].data.tags["reason"]
    table = done.sweep.trials
    assert list(table["status"]) == ["completed", "failed", "completed"]
    assert "diverged" in table["reason"][1]


def test_a_trial_that_cannot_begin_is_recorded_too_and_failures_have_a_limit(tune, monkeypatch):
    def no_memory(*_, **__):
        raise RunError("out of memory")

    monkeypatch.setattr(steps, "build_setup", no_memory)
    with pytest.raises(RunError, match=r"2 trials in a row have failed .*out of memory"):
        tune("limit", "tuner.max_trials=9", "tuner.max_failures=2", f"tuner.space={{{RATE}}}")
    _, runs = runs_of("limit")
    trials = [run for run in runs if "trial" in run.data.tags]
    assert [run.info.status for run in trials] == ["FAILED", "FAILED"]
    assert all("out of memory" in run.data.tags["reason"] for run in trials)
    (parent,) = [run for run in runs if "trial" not in run.data.tags]
    assert parent.info.status == "FAILED"


@pytest.mark.usefixtures("instant")
def test_the_preset_runs_and_is_compared_with_the_arm_it_came_from(tune, tree):
    done = tune(
        "tuned", "+experiment=dropout", "regularisation.rates=[0.1,0.2]", "tuner.max_trials=1",
        "tuner.space={regularisation.rates.0:{min:0.3,max:0.5},optimizer:[rmsprop,sgd],"
        "dataset.resize:[crop,pad]}",
    )  # fmt: skip
    assert done.preset == Path("experiments/tuned/conf/experiment/tuned_tuned.yaml")
    (command,) = done.commands
    assert "+experiment=dropout,tuned_tuned seed=0,1,2,3,4" in command
    config, arm = compose_config(["+experiment=tuned_tuned"])
    assert arm.preset == "tuned_tuned"
    assert config.reference == "dropout"
    assert config.optimizer.name == dict(done.values)["optimizer"]
    assert config.dataset.resize == dict(done.values)["dataset.resize"]
    assert config.dataset.image_size == 16
    assert config.regularisation.rates == [float(dict(done.values)["regularisation.rates.0"]), 0.2]
    assert config.architecture.filters == [4, 8]
    shared = [f"dataset.root={tree}", "dataset=folder", "study=tuned", "tracking.model=false"]
    shared += ["dataset.image_size=16", f"cache={Path('cache').resolve()}", "training.epochs=1"]
    shared += ["architecture.filters=[4,8]", "architecture.dense_units=8"]
    for preset in ("+experiment=tuned_tuned", "+experiment=dropout"):
        rates = ["regularisation.rates=[0.1,0.2]"] if "dropout" in preset else []
        train_arm(*compose_config([preset, *shared, *rates]))
    compared = report_study(
        "tuned", reference=None, metric="balanced_accuracy", tracked=Tracking(),
        folder=Path("experiments"),
    )  # fmt: skip
    assert len(compared.comparison.arms) == 2  # no trial among them


def test_one_process_tunes_a_study(tune, folder):
    from filelock import FileLock

    (folder / "experiments" / "busy" / "tuning").mkdir(parents=True)
    held = FileLock(folder / "experiments" / "busy" / "tuning" / "lock")
    with held, pytest.raises(RunError, match="is tuning study=busy"):
        tune("busy", "tuner.max_trials=1", f"tuner.space={{{RATE}}}")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["tuner.objective=val/melanoma_auroc"], "has no positive class"),
        (["tuner.folds=[0,1]"], "split=holdout has none"),
        (["split=kfold", "tuner.folds=[7]"], "no fold 7; expected 0 to 4"),
        (["tracking.offline=true"], "record them in a file"),
        (["training.resume=false"], "a search resumes from the checkpoints of its trials"),
        (["tuner=hyperband", "tuner.space={training.epochs:[2,3]}"], "tuner=hyperband chooses it"),
        (["tuner.space={}"], "at least one key"),
        (["tuner.space=fast"], "expected a mapping"),
        (["tuner.objective=test/accuracy"], "not used while tuning"),
        (["tuner.objective=balanced_accuracy"], "Did you mean val/balanced_accuracy"),
        (["tuner.max_trials=-1"], "tuner.max_trials: expected at least 1"),
        (["tuner=hyperband", "tuner.max_epochs=1"], "at least 2"),
        (["tuner.seeds=[1,1]"], "different whole numbers"),
    ],
)
def test_mistakes_are_told_before_anything_is_recorded(tune, overrides, message):
    with pytest.raises(UserError, match=message):
        tune("mistakes", *overrides)
    assert mlflow.MlflowClient().get_experiment_by_name("mistakes") is None


@pytest.mark.usefixtures("instant")
def test_the_command_that_makes_the_search_again_makes_it_again(tune):
    done = tune("command", "tuner.max_trials=1", "tuner.space={training.batch_size:[8,16]}")
    assert "tuner=random tuner.space={training.batch_size:[8,16]} tuner.max_trials=1" in (
        done.sweep.command.replace("'", "")
    )
    assert json.dumps(done.values)
