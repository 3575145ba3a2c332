import numpy as np
import pandas as pd
import pytest

from melanoma_lab.core.formatting import (
    SPLIT_METRIC_NAMES,
    higher_is_better,
    name_positive_class_metrics,
)
from melanoma_lab.evaluation import metrics
from melanoma_lab.evaluation.metrics import SPLIT_METRICS, compute_run_metrics
from melanoma_lab.evaluation.predictions import Predictions
from tests.support.evaluation_cases import random_case, split_arrays, table_of

pytestmark = pytest.mark.unit

SLUGS = ("melanoma", "nevus", "vascular_lesion")
NAMES = ("accuracy", "balanced_accuracy", "macro_auroc", "macro_f1", "log_loss", "brier", "ece")
OF_CLASS = ("sensitivity", "specificity", "auroc")
OF_MELANOMA = name_positive_class_metrics("melanoma")


def run_table(**seeds: int) -> pd.DataFrame:
    return pd.concat(
        [table_of(random_case(40, 3, seed), split, SLUGS) for split, seed in seeds.items()],
        ignore_index=True,
    )


def test_the_names_that_may_be_searched_for_are_those_that_are_computed():
    result = compute_run_metrics(Predictions(run_table(train=0, val=1, test=2)), "melanoma")
    named = {f"val/{name}" for name in (*SPLIT_METRIC_NAMES, *OF_MELANOMA)}
    assert named == {name for name in result if name.startswith("val/")}
    assert tuple(SPLIT_METRICS) == SPLIT_METRIC_NAMES


def test_more_is_better_of_a_metric_that_a_perfect_classifier_has_most_of():
    perfect = run_table(train=0, val=1, test=2)
    for slug in SLUGS:
        perfect[f"prob/{slug}"] = (perfect["y_true"] == slug).astype(np.float32)
    some = compute_run_metrics(Predictions(run_table(train=0, val=1, test=2)), "melanoma")
    most = compute_run_metrics(Predictions(perfect), "melanoma")
    for name in (*SPLIT_METRIC_NAMES, *OF_MELANOMA):
        better = most[f"val/{name}"] - some[f"val/{name}"]
        assert (better > 0) == higher_is_better(f"val/{name}") == higher_is_better(name)


def test_of_a_split_that_is_not_measured_nothing_is_computed():
    table = run_table(train=0, val=1, test=2)
    without = table[table["split"] != "test"]
    whole, part = (
        compute_run_metrics(Predictions(table), "melanoma"),
        compute_run_metrics(Predictions(without), "melanoma", splits=("train", "val")),
    )
    assert part == {name: value for name, value in whole.items() if "test" not in name}


def test_metrics_of_the_positive_class_bear_its_own_slug():
    predictions = Predictions(run_table(train=0, val=1, test=2))
    of_lesion = compute_run_metrics(predictions, "vascular_lesion")
    of_melanoma = compute_run_metrics(predictions, "melanoma")
    names = {f"{s}/vascular_lesion_{n}" for s in ("val", "test") for n in OF_CLASS}
    assert names == of_lesion.keys() - of_melanoma.keys()
    for name in ("sensitivity", "specificity"):
        assert (
            of_lesion[f"test/vascular_lesion_{name}"] == of_lesion[f"test/{name}/vascular_lesion"]
        )


def test_names_are_those_of_the_run_contract():
    result = compute_run_metrics(Predictions(run_table(train=0, val=1, test=2)), "melanoma")
    assert set(result) == (
        {f"{split}/{name}" for split in ("train", "val", "test") for name in NAMES}
        | {
            f"{split}/melanoma_{name}"
            for split in ("val", "test")
            for name in ("sensitivity", "specificity", "auroc")
        }
        | {f"test/{name}/{slug}" for name in ("sensitivity", "specificity") for slug in SLUGS}
        | {"generalisation_gap"}
    )
    assert all(type(value) is float for value in result.values())


def test_values_are_those_of_the_split():
    table = run_table(train=0, val=1, test=2)
    result = compute_run_metrics(Predictions(table), "nevus")
    for split in ("train", "val", "test"):
        arrays = split_arrays(table, split)
        assert result[f"{split}/brier"] == metrics.brier(*arrays)
    val, test = (split_arrays(table, split) for split in ("val", "test"))
    assert result["val/nevus_sensitivity"] == metrics.sensitivity(*val)[1]
    assert result["val/nevus_specificity"] == metrics.specificity(*val)[1]
    assert result["test/nevus_auroc"] == metrics.auroc(*test)[1]
    assert result["test/sensitivity/vascular_lesion"] == metrics.sensitivity(*test)[2]
    assert result["test/specificity/melanoma"] == metrics.specificity(*test)[0]
    assert result["generalisation_gap"] == result["train/accuracy"] - result["val/accuracy"]


def test_without_a_nevus_class_nothing_is_said_of_it():
    result = compute_run_metrics(Predictions(run_table(train=0, val=1, test=2)), None)
    assert not [name for name in result if "/nevus_" in name]


def test_a_melanoma_class_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"Expected melanoma to be None or one of .*'mel'"):
        compute_run_metrics(Predictions(run_table(train=0)), "mel")


def test_an_empty_split_is_undefined_throughout():
    result = compute_run_metrics(Predictions(run_table(train=0)), "melanoma")
    undefined = {name for name, value in result.items() if np.isnan(value)}
    assert undefined == set(result) - {f"train/{name}" for name in NAMES}


def test_a_wrong_table_is_refused():
    table = run_table(train=0)
    table.loc[3, "prob/nevus"] = np.nan
    with pytest.raises(ValueError, match="finite"):
        compute_run_metrics(Predictions(table), None)
