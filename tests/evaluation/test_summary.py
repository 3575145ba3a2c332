import numpy as np
import pandas as pd
import pytest
from evaluation_cases import random_case, table_of

from melanoma_lab.evaluation import metrics, predictions
from melanoma_lab.evaluation.summary import run_metrics

SLUGS = ("melanoma", "nevus", "vascular_lesion")
NAMES = ("accuracy", "balanced_accuracy", "macro_auroc", "macro_f1", "log_loss", "brier", "ece")


def run_table(**seeds: int) -> pd.DataFrame:
    return pd.concat(
        [table_of(random_case(40, 3, seed), split, SLUGS) for split, seed in seeds.items()],
        ignore_index=True,
    )


def test_names_are_those_of_the_run_contract():
    result = run_metrics(run_table(train=0, val=1, test=2), "melanoma")
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
    result = run_metrics(table, "nevus")
    for split in ("train", "val", "test"):
        arrays = predictions.split_arrays(table, split)
        assert result[f"{split}/brier"] == metrics.brier(*arrays)
    val, test = (predictions.split_arrays(table, split) for split in ("val", "test"))
    assert result["val/melanoma_sensitivity"] == metrics.sensitivity(*val)[1]
    assert result["val/melanoma_specificity"] == metrics.specificity(*val)[1]
    assert result["test/melanoma_auroc"] == metrics.auroc(*test)[1]
    assert result["test/sensitivity/vascular_lesion"] == metrics.sensitivity(*test)[2]
    assert result["test/specificity/melanoma"] == metrics.specificity(*test)[0]
    assert result["generalisation_gap"] == result["train/accuracy"] - result["val/accuracy"]


def test_without_a_melanoma_class_nothing_is_said_of_it():
    result = run_metrics(run_table(train=0, val=1, test=2), None)
    assert not [name for name in result if "/melanoma_" in name]


def test_a_melanoma_class_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"Expected melanoma to be None or one of .*'mel'"):
        run_metrics(run_table(train=0), "mel")


def test_an_empty_split_is_undefined_throughout():
    result = run_metrics(run_table(train=0), "melanoma")
    undefined = {name for name, value in result.items() if np.isnan(value)}
    assert undefined == set(result) - {f"train/{name}" for name in NAMES}


def test_a_wrong_table_is_refused():
    table = run_table(train=0)
    table.loc[3, "prob/nevus"] = np.nan
    with pytest.raises(ValueError, match="finite"):
        run_metrics(table, None)
