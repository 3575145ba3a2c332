import pandas as pd
import pytest
from scipy.stats import binomtest

from melanoma_lab.audit.dataset_audit import measure_class_sizes

pytestmark = pytest.mark.unit


def sizes(groups_in_test, groups_in_train=40, published=True):
    rows = [("a", f"t{n}", "test") for n in range(groups_in_test)]
    rows += [("a", f"r{n}", "train") for n in range(groups_in_train) for _ in range(2)]
    table = pd.DataFrame(rows, columns=["label", "group", "judged"])
    return measure_class_sizes(table, published=published)["a"]


def test_images_that_belong_together_count_once():
    size = sizes(20)
    assert (size.images, size.groups, size.test_groups) == (100, 60, 20)


@pytest.mark.parametrize("n", [5, 20, 100])
def test_the_margin_is_wilsons(n):
    interval = binomtest(4 * n // 5, n).proportion_ci(method="wilson")
    assert sizes(n).margin == pytest.approx((interval.high - interval.low) / 2, abs=1e-3)


@pytest.mark.parametrize(("n", "measurable"), [(3, False), (20, True)])
def test_few_test_lesions_measure_nothing(n, measurable):
    assert sizes(n).measurable is measurable


def test_without_a_published_split_a_holdout_is_assumed():
    assert sizes(0, 40, published=False).test_groups == 6


@pytest.mark.parametrize(("groups", "splittable"), [(2, False), (3, True)])
def test_a_group_for_every_part(groups, splittable):
    assert sizes(0, groups, published=False).splittable is splittable
