"""A model card says what its run's tables say, with intervals, and where they end."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from melanoma_lab.evaluation.confidence_intervals import estimate_proportion
from melanoma_lab.evaluation.evaluated_run import evaluate_run
from melanoma_lab.evaluation.metric_intervals import estimate_calibration, estimate_metrics
from melanoma_lab.evaluation.metrics import auroc, brier, ece, log_loss, macro_auroc
from melanoma_lab.evaluation.predictions import Predictions
from melanoma_lab.reports.model_card import PAGES, write_model_card
from melanoma_lab.tracking.run_reader import RunIdentity
from tests.support.evaluation_cases import random_case, split_of, table_of

pytestmark = pytest.mark.unit

SLUGS = ("melanoma", "nevus", "<b>odd</b>")
N = 150
STARTED = 1_767_312_000_000  # 2026-01-02
SECTIONS = (  # Mitchell et al., 2019
    *("Model details", "Intended use", "Factors", "Metrics", "Data for training and evaluation"),
    *("Quantitative analyses", "Ethical considerations", "Caveats and recommendations"),
)


def described(
    *, splits=("train", "val", "test"), tags=(), config=(), positive_class="melanoma", **changes
):
    tables = [table_of(random_case(N, 3, i, signal=2.0), s, SLUGS) for i, s in enumerate(splits)]
    table = pd.concat(tables, ignore_index=True)
    manifest = pd.DataFrame(
        {
            "image_id": table["image_id"],
            "label": table["y_true"],
            "group": table["group"],
            "split": table["split"],
            "source": np.where(np.arange(len(table)) % 2, "clinic A", "clinic B"),
            "sex": np.where(np.arange(len(table)) % 30, "female", "male"),
        }
    )
    tags = (
        {"arm": "baseline", "seed": "3", "dataset": "ham10000", "protocol": "grouped"}
        | {"notes": "2 images were left out.", "git_commit": "c0ffee"}
        | dict(tags)
    )
    config = {
        "architecture": {"name": "vgg5"},
        "dataset": {"image_size": 32},
        "optimizer": {"name": "adam", "learning_rate": 0.001},
        "split": {"name": "holdout"},
    } | dict(config)
    run = evaluate_run(
        config,
        Predictions(table),
        manifest,
        audit={"judged_split": "random", "n_label_conflicts": 4, "n_cross_split_groups": 7},
        positive_class=positive_class,
        sensitivity=0.9,
        costs={},
    )
    run = replace(run, metrics={"parameters": 1234.0, "best_epoch": 2.0}, **changes)
    return run, RunIdentity("abc123", STARTED, tags)


@pytest.fixture
def pages(tmp_path):
    """A function from a run and its identity to both pages."""

    def written(given):
        write_model_card(*given, tmp_path)
        return [(tmp_path / name).read_text(encoding="utf-8") for name in PAGES]

    return written


def test_both_pages_have_all_sections_and_say_what_it_is_not_for(pages):
    markdown, html = pages(described())
    assert re.findall(r"^## (.*)$", markdown, re.MULTILINE) == list(SECTIONS)
    assert re.findall(r"<h2>(.*)</h2>", html) == list(SECTIONS)
    for page in (markdown, html):
        assert re.search(r"not a medical device", page)
        assert "Not for diagnosis" in page
        assert "Not validated externally" in page
        assert "abc123" in page
        assert "2026-01-02" in page
        assert "c0ffee" in page
        assert "2 images were left out." in page
        assert "under different labels: 4" in page
    assert "<b>odd" not in html
    assert "http" not in html.replace("http-equiv", "")  # one file, nothing is fetched


def test_its_figures_are_those_of_the_test_split(pages):
    given = described()
    markdown, _ = pages(given)
    y_true, y_score = random_case(N, 3, 2, signal=2.0)
    y_score = y_score.astype(np.float32).astype(float)
    calibrated = given[0].evaluation.temperature.apply(y_score)
    told = r"\*\*ECE after temperature scaling, on test: (\S+) \[(\S+), (\S+)\]"
    asked = re.search(told, markdown)
    assert float(asked[1]) == pytest.approx(ece(y_true, calibrated), abs=6e-4)
    assert 0 <= float(asked[2]) < float(asked[3]) < 0.5
    accuracy = (y_score.argmax(axis=1) == y_true).mean()
    assert f"| accuracy | {100 * accuracy:.1f} % [" in markdown
    row = re.search(r"\| Brier score \| (\S+) \[.*?\| (\S+) \[", markdown)
    expected = [brier(y_true, y_score), brier(y_true, calibrated)]
    assert [float(row[1]), float(row[2])] == pytest.approx(expected, abs=6e-4)
    assert "| sex: male |" in markdown
    assert re.search(r"\| sex: male \|.*\| few \|", markdown)
    assert "| clinic A | 75 | 75 | 75 |" in markdown


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"tags": {"protocol": "leaking"}}, "in the training split: metrics are too optimistic"),
        ({"tags": {"protocol": "ungrouped"}}, "photographs of one lesion may be in training and"),
        (
            {"tags": {"protocol": "ungrouped"}},
            "Ungrouped: divided at random; the dataset names no lesions",
        ),
        ({"tags": {"grouped_by": "lesion_id"}}, "Grouped by lesion_id: divided at random"),
        ({"tags": {"outcome": "at_chance"}}, "stayed at chance"),
        ({"tags": {"dataset": "synthetic"}}, "it has seen no real skin"),
        ({"tags": {"dataset": "ham10000"}}, "Dermoscopic photographs only"),
        ({"config": {"loss": {"name": "logit_adjusted"}}}, "read its probabilities as a ranking"),
        ({"splits": ("train", "val")}, "It was not applied to its test split"),
        ({"tags": {"members": "0,1,2"}}, "the mean of 3 networks (seeds 0,1,2)"),
        (
            {"audit": None, "config": {}, "tags": {"source_tells_class": "0.9"}},
            "with an accuracy of 0.90",
        ),
    ],
)
def test_its_limits_are_those_of_the_run(pages, changes, told):
    for page in pages(described(**changes)):
        assert told in page.replace("<wbr>", "")


def test_a_dataset_without_melanoma_has_no_operating_point(pages):
    markdown, html = pages(described(positive_class=None))
    assert "has no positive class" in markdown
    assert "melanoma AUROC" not in markdown
    assert "positive lesions" not in html


def test_intervals_contain_their_figures_and_narrow_with_lesions():
    widths = []
    for n in (100, 1600):
        y_true, y_score = random_case(n, 3, seed=5)
        split = split_of(y_true, y_score, np.arange(n))
        found = estimate_metrics(split, "class_1")
        assert found["macro_auroc"].value == pytest.approx(macro_auroc(y_true, y_score))
        assert found["class_1_auroc"].value == pytest.approx(auroc(y_true, y_score)[1])
        assert all(0 <= each.low < each.value < each.high <= 1 for each in found.values())
        widths.append({name: each.high - each.low for name, each in found.items()})
        measured = estimate_calibration(split)
        assert measured["log_loss"].value == pytest.approx(log_loss(y_true, y_score))
        assert measured["log_loss"].low < measured["log_loss"].value < measured["log_loss"].high
    for name in widths[0]:
        assert widths[1][name] == pytest.approx(widths[0][name] / 4, rel=0.35), name


def test_the_interval_of_an_auroc_covers_the_truth():
    """Two classes, lesions of one to three images that are alike; the truth is that of many."""
    rng = np.random.default_rng(0)

    def drawn(n_lesions):
        groups = np.repeat(np.arange(n_lesions), rng.integers(1, 4, n_lesions))
        y_true = (rng.random(n_lesions) < 0.3)[groups].astype(np.int64)
        own = rng.normal(0, 1, n_lesions)[groups] + rng.normal(0, 0.3, len(groups))
        p = 1 / (1 + np.exp(-(own + 1.3 * y_true)))
        return y_true, np.stack([1 - p, p], axis=1), groups

    y_true, y_score, _ = drawn(200_000)
    truth = auroc(y_true, y_score)[1]
    found = [estimate_metrics(split_of(*drawn(80)), "class_1")["class_1_auroc"] for _ in range(200)]
    assert np.mean([each.low <= truth <= each.high for each in found]) >= 0.91


def test_an_undefined_figure_has_no_interval():
    y_true, y_score = np.zeros(20, np.int64), np.tile([0.6, 0.4], (20, 1))
    found = estimate_metrics(split_of(y_true, y_score, np.arange(20)), "class_1")
    assert np.isnan(found["class_1_auroc"].value)
    assert np.isnan(found["class_1_sensitivity"].value)
    whole = estimate_proportion(np.ones(20, bool), np.arange(20))
    assert found["accuracy"].value == whole.value == 1
