"""Numbers and lists in words: short whatever was typed, and alike everywhere."""

import pytest

from melanoma_lab.core.formatting import (
    format_count,
    format_duration,
    format_list,
    format_metric,
    format_number,
    format_percent,
    is_share,
    label_metric,
    name_positive_class_metrics,
    split_positive_class_metric,
)

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], ""),
        (["a"], "a"),
        (["a", "b"], "a and b"),
        (["a", "b", "c"], "a, b and c"),
        (["a", "b", "c", "d"], "a, b, c and 1 more"),
        ([str(i) for i in range(2000)], "0, 1, 2 and 1,997 more"),
        (iter([3, 4]), "3 and 4"),
    ],
)
def test_a_few_names_and_a_count(names, text):
    assert format_list(names) == text


def test_very_long_names_are_cut():
    assert format_list(["x" * 500]) == "x" * 80 + "..."


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("accuracy", 0.4126, "41.3 %"),
        ("generalisation_gap", -0.01, "\N{MINUS SIGN}1.0 %"),
        ("log_loss", 1.2344, "1.234"),
        ("sensitivity/melanoma", 1.0, "100.0 %"),
        ("ece", float("nan"), "undefined"),
    ],
)
def test_metrics_are_shares_or_numbers(metric, value, text):
    assert format_metric(metric, value) == text


@pytest.mark.parametrize(
    ("share", "decimals", "strict", "text"),
    [
        (0.4126, 1, False, "41.3 %"),
        (0.4126, 0, False, "41 %"),
        (1e-9, 1, False, "0.0 %"),
        (1e-9, 1, True, "<0.1 %"),
        (0.0, 1, True, "0.0 %"),
        (0.99999, 1, True, ">99.9 %"),
        (0.999, 0, True, ">99 %"),
        (1.0, 1, True, "100.0 %"),
    ],
)
def test_a_share_that_must_not_be_0_or_100_is_neither(share, decimals, strict, text):
    assert format_percent(share, decimals, strict=strict) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(3e-5, "3e-5"), (0.03125, "0.03125"), (128.0, "128"), (2e20, "2e20"), (-0.5, "-0.5")],
)
def test_a_number_reads_as_a_configuration_takes_it(value, text):
    assert format_number(value) == text


def test_counts_have_their_plural():
    assert [format_count(n, "image") for n in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert format_count(2, "class", "classes") == "2 classes"


def test_a_rough_time_is_in_seconds_or_minutes():
    assert [format_duration(s) for s in (0.4, 89, 90, 7200)] == ["0 s", "89 s", "2 min", "120 min"]


@pytest.mark.parametrize(
    ("metric", "parts", "label", "share"),
    [
        ("melanoma_sensitivity", ("melanoma", "sensitivity"), "melanoma sensitivity", True),
        ("basal_cell_specificity", ("basal_cell", "specificity"), "basal cell specificity", True),
        ("malignant_auroc", ("malignant", "auroc"), "malignant AUROC", False),
        ("macro_auroc", None, "macro AUROC", False),
        ("accuracy", None, "accuracy", True),
        ("sensitivity/basal_cell", None, "sensitivity to basal cell", True),
        ("operating_point_sensitivity", None, "operating_point_sensitivity", False),
    ],
)
def test_metrics_of_the_positive_class_are_recognised(metric, parts, label, share):
    assert split_positive_class_metric(metric) == parts
    assert (label_metric(metric), is_share(metric)) == (label, share)
    if parts:
        assert metric in name_positive_class_metrics(parts[0])


def test_without_a_positive_class_it_has_no_metrics():
    assert name_positive_class_metrics(None) == name_positive_class_metrics("") == ()
