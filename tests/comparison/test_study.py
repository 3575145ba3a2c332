"""What is read of a study, and what is refused."""

import json
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pandas as pd
import pytest

from melanoma_lab.comparison.study import load_study
from melanoma_lab.config.schema.tracking import Tracking
from melanoma_lab.core.errors import UserError
from melanoma_lab.evaluation.influence import estimate_run
from melanoma_lab.evaluation.metrics import compute_run_metrics
from melanoma_lab.evaluation.predictions import Predictions
from melanoma_lab.tracking.arm_runs import RunKey
from melanoma_lab.tracking.client import connect_for_reading
from tests.support.fake_studies import FakeStudies, make_ablation

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """Studies in a database, as the program has them."""
    return FakeStudies.in_database(tmp_path_factory.mktemp("database"))


@pytest.fixture(scope="module")
def ablation(tracked):
    return make_ablation(tracked)


def artifacts_of(tracked, run_id):
    return Path(urlparse(tracked.client.get_run(run_id).info.artifact_uri).path)


def test_a_study_has_its_runs_with_their_predictions(tracked, ablation, make_table):
    told = []
    study = load_study(tracked.client, ablation, lambda *how_far: told.append(how_far))
    assert study.arms == ("augmented", "baseline", "dropout", "dropout_sgd")
    assert len(study.runs) == 16
    assert told[-1] == (16, 16)
    assert study.positive_class == "melanoma"
    (run,) = [run for run in study.runs if run.key == RunKey("dropout", 2, 0)]
    expected = compute_run_metrics(Predictions(make_table(2.0, seed=2, arm="dropout")), "melanoma")
    assert run.estimates["macro_auroc"].value == expected["test/macro_auroc"]
    assert run.confusion.sum() == 160
    assert run.costs["optimizer_steps"] == 300
    assert run.curves["val_accuracy"] == pytest.approx((0.29, 0.54, 0.79))


def test_the_newest_run_counts_and_one_that_differs_is_remarked(tracked):
    study = tracked.study()
    for _ in range(2):
        tracked.add(study, "baseline", 0)
    tracked.add(study, "baseline", 1, fingerprint="old", skill=3)
    newest = tracked.add(study, "baseline", 1)
    loaded = tracked.load(study)
    assert [run.key.seed for run in loaded.runs] == [0, 1]
    assert loaded.runs[1].run_id == newest
    (remark,) = loaded.remarks
    assert remark.startswith("baseline seed 1: 1 older run of this name had another configuration")


def test_runs_that_did_not_finish_are_named_with_their_reason(tracked):
    study = tracked.fill({"baseline": (1.0, "")}, seeds=(0,))
    tracked.add(study, "dropout", 0, status="FAILED", reason="RunError: diverged")
    tracked.add(study, "baseline", 0, status="KILLED", reason="interrupted")  # finished before
    loaded = tracked.load(study)
    assert loaded.unfinished == {RunKey("dropout", 0, 0): "FAILED: RunError: diverged"}


def test_runs_of_others_are_left_alone(tracked):
    study = tracked.fill({"baseline": (1.0, "")}, seeds=(0,))
    experiment = tracked.client.get_experiment_by_name(study).experiment_id
    tracked.client.set_terminated(tracked.client.create_run(experiment).info.run_id)
    assert len(tracked.load(study).runs) == 1


def test_another_split_for_the_same_seed_and_fold_is_refused(tracked):
    study = tracked.fill({"baseline": (1.0, "")}, seeds=(0, 1))
    other = tracked.add(study, "dropout", 1, split_hash="another")
    with pytest.raises(UserError, match=rf"seed 1, fold 0 .*split_hash.*another: .*{other}"):
        tracked.load(study)


def test_another_dataset_is_refused(tracked):
    study = tracked.fill({"baseline": (1.0, "")}, seeds=(0, 1))
    other = tracked.add(study, "dropout", 2, dataset_digest="another")
    with pytest.raises(UserError, match=rf"dataset_digest.*another: dropout seed 2 \({other}"):
        tracked.load(study)


def test_runs_that_have_not_met_test_are_judged_by_val(tracked, make_table):
    study = tracked.study()
    for seed in (0, 1, 2):
        table = make_table(1.0, seed=seed)
        chosen = table[table["split"] != "test"].reset_index(drop=True)
        tracked.add(study, "baseline", seed, table=chosen)
    loaded = tracked.load(study)
    assert loaded.judged == "val"
    val = chosen[chosen["split"] == "val"]
    assert loaded.runs[2].confusion.sum() == len(val)
    assert set(loaded.runs[2].estimates["accuracy"].groups) == set(val["group"])
    as_test = val.assign(split="test")
    train = chosen[chosen["split"] == "train"]
    same = estimate_run(Predictions(pd.concat([train, as_test], ignore_index=True)), "melanoma")
    for metric in ("balanced_accuracy", "melanoma_auroc", "sensitivity/nevus"):
        estimate = loaded.runs[2].estimates[metric]
        assert estimate.value == same[metric].value
        np.testing.assert_array_equal(estimate.influence, same[metric].influence)


def test_runs_with_and_without_test_are_not_compared(tracked, make_table):
    study = tracked.fill({"baseline": (1.0, "")}, seeds=(0, 1))
    table = make_table(1.0, seed=2)
    table = table[table["split"] != "test"].reset_index(drop=True)
    blind = tracked.add(study, "baseline", 2, table=table)
    with pytest.raises(UserError, match=rf"evaluation.test=false.*{blind}.*its own study"):
        tracked.load(study)


def test_other_patients_are_refused_and_none_are_not(tracked):
    study = tracked.fill({"baseline": (1.0, "")}, seeds=(0, 1))
    tracked.add(study, "patient", 0, metadata_digest="told")
    tracked.load(study)
    other = tracked.add(study, "patient", 1, metadata_digest="another")
    with pytest.raises(UserError, match=rf"metadata_digest.*another: patient seed 1 \({other}"):
        tracked.load(study)


def test_tables_edited_by_hand_are_refused(tracked, make_table):
    study = tracked.fill({"baseline": (1.0, "")}, seeds=(0,))
    table = make_table(1.0, seed=0)
    table.loc[table.index[-1], "y_true"] = "nevus"
    other = tracked.add(study, "dropout", 0, table=table)
    with pytest.raises(UserError, match=rf"{other}.* same images.*one was edited"):
        tracked.load(study)


def test_runs_without_a_readable_table_are_left_out_and_named(tracked):
    study = tracked.fill({"baseline": (1.0, "")}, seeds=(0, 1, 2))
    deleted = tracked.add(study, "dropout", 0)
    (artifacts_of(tracked, deleted) / "predictions.csv").unlink()
    spoilt = tracked.add(study, "dropout", 1)
    (artifacts_of(tracked, spoilt) / "predictions.csv").write_text("nothing\n")
    loaded = tracked.load(study)
    assert loaded.arms == ("baseline",)
    first, second = loaded.remarks
    assert first == (
        f"dropout seed 0 (run {deleted}) is left out: predictions.csv is not in "
        f"{artifacts_of(tracked, deleted)}"
    )
    assert f"(run {spoilt}) is left out" in second
    assert "not a predictions table" in second


def test_a_study_without_any_table_is_refused(tracked):
    study = tracked.study()
    run_id = tracked.add(study, "baseline", 0)
    (artifacts_of(tracked, run_id) / "predictions.csv").unlink()
    with pytest.raises(UserError, match="no run of it has predictions"):
        tracked.load(study)


def test_unknown_and_empty_studies_are_refused(tracked, ablation):
    with pytest.raises(UserError, match=rf"study={ablation}x: no such study. Did you mean study-"):
        tracked.load(f"{ablation}x")
    with pytest.raises(UserError, match="no arm has been trained in it"):
        tracked.load(tracked.study())
    unfinished = tracked.study()
    tracked.add(unfinished, "baseline", 0, status="RUNNING")
    with pytest.raises(UserError, match="no run of it has finished yet"):
        tracked.load(unfinished)


def test_reading_creates_nothing(tmp_path):
    with pytest.raises(UserError, match="no such file; nothing has been trained"):
        connect_for_reading(Tracking(uri=f"sqlite:///{tmp_path / 'mlflow.db'}"))
    assert list(tmp_path.iterdir()) == []


def test_a_spoilt_database_is_the_users_to_mend(tmp_path):
    (tmp_path / "mlflow.db").write_text(json.dumps("not a database" * 100))
    with pytest.raises(UserError, match="this file is not a SQLite database"):
        connect_for_reading(Tracking(uri=f"sqlite:///{tmp_path / 'mlflow.db'}"))
