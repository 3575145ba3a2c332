import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats.contingency import association

from melanoma_lab.audit.dataset_audit import measure_source_confounding

pytestmark = pytest.mark.unit


def judge(counts):
    """Judge {class: {source: images}}."""
    rows = [(c, s) for c, row in counts.items() for s, n in row.items() for _ in range(n)]
    labels, sources = zip(*rows, strict=True)
    return measure_source_confounding(pd.Series(labels), pd.Series(sources))


def test_source_that_is_the_class():
    found = judge({"a": {"x": 5}, "b": {"y": 7}})
    assert (found.balanced_accuracy, found.chance, found.pairwise_accuracy) == (1.0, 0.5, 1.0)
    assert found.cramers_v == 1.0
    assert found.single_source_classes == {"a": "x", "b": "y"}


def test_source_that_says_nothing():
    found = judge({"a": {"x": 10, "y": 30}, "b": {"x": 5, "y": 15}})
    assert (found.balanced_accuracy, found.pairwise_accuracy, found.cramers_v) == (0.5, 0.5, 0.0)
    assert found.single_source_classes == {}


def test_by_hand():
    # Shares: a 0.8 0.2, b 0.5 0.5, c 0 1. Best rule: x -> a, y -> c: (0.8 + 0 + 1) / 3.
    found = judge({"a": {"x": 8, "y": 2}, "b": {"x": 5, "y": 5}, "c": {"y": 4}})
    assert found.balanced_accuracy == 0.6
    # Total variation: ab 0.3, ac 0.8, bc 0.5.
    assert found.told_apart == {"a": 0.775, "b": 0.7, "c": 0.825}
    assert found.pairwise_accuracy == pytest.approx(0.7667, abs=1e-4)
    assert found.single_source_classes == {"c": "y"}


def test_unknown_sources_do_not_count():
    found = judge({"a": {"x": 3, "": 9}, "b": {"y": 4}})
    assert (found.n_known, found.n_sources) == (7, 2)
    assert found.single_source_classes == {"a": "x", "b": "y"}


@pytest.mark.parametrize("counts", [{"a": {"x": 3}, "b": {"x": 2}}, {"a": {"": 3}, "b": {"": 2}}])
def test_one_source_or_none_says_nothing(counts):
    found = judge(counts)
    assert found.balanced_accuracy is None
    assert found.single_source_classes == {}


@given(
    st.dictionaries(
        st.sampled_from("abcd"),
        st.dictionaries(st.sampled_from("xyz"), st.integers(1, 9), min_size=1),
        min_size=2,
    )
)
def test_figures_lie_between_chance_and_certainty(counts):
    found = judge(counts)
    if found.n_sources > 1:
        assert found.chance - 1e-4 <= found.balanced_accuracy <= 1
        assert 0.5 <= found.pairwise_accuracy <= 1
        table = pd.DataFrame(counts).T.fillna(0).astype(int).to_numpy()
        assert found.cramers_v == pytest.approx(association(table, method="cramer"), abs=1e-4)
