"""Figures of a sweep: what is drawn is what the trials came to."""

import math

import numpy as np
import pytest
from matplotlib.collections import PathCollection

from melanoma_lab.tuning import figures, scales
from melanoma_lab.tuning.importance import Effect, Importance
from melanoma_lab.tuning.search_space import HyperParameter
from tests.support.tuning_cases import RATE, realistic, sweep_of, trials_of

pytestmark = pytest.mark.unit

LIST = HyperParameter("rates", "choice", choices=("null", "[0.1,0.2]", '"größe $日"'))


@pytest.fixture(scope="module")
def sweep():
    return realistic()


def points(ax):
    """All points of an axes' scatters, sorted."""
    scatters = [each.get_offsets() for each in ax.collections if isinstance(each, PathCollection)]
    return np.array(sorted(np.vstack(scatters).tolist()))


def line(ax, label):
    return next(each for each in ax.lines if each.get_label() == label)


def legend(fig):
    return [text.get_text() for text in fig.legends[0].get_texts()]


def test_history_shows_every_score_the_best_so_far_and_what_has_none(sweep):
    ax = figures.draw_score_history(sweep).axes[0]
    expected = sorted(zip(sweep.scored["number"], sweep.scored["score"], strict=True))
    np.testing.assert_allclose(points(ax), expected)
    best = line(ax, "best so far").get_ydata()
    assert best[-1] == sweep.best["score"] == line(ax, "best").get_ydata()[0]
    assert set(line(ax, "without a score").get_xdata()) == set(sweep.unscored["number"])


def test_budgets_are_told_apart_by_colour_and_marker():
    fig = figures.draw_score_history(realistic(90, hyperband=True))
    assert legend(fig)[:3] == ["2 epochs", "5 epochs", "15 epochs"]
    looks = {(c, m) for c, m in figures.RUNGS}
    assert len(looks) == len({c for c, _ in looks}) == len({m for _, m in looks})


def test_scores_stand_over_what_the_trials_used(sweep):
    ax = figures.draw_scores_by_value(sweep, sweep.searched[0]).axes[0]
    expected = np.column_stack([np.log10(sweep.scored["value/" + RATE.key]), sweep.scored["score"]])
    np.testing.assert_allclose(points(ax), np.array(sorted(expected.tolist())))
    assert [t.get_text() for t in ax.get_xticklabels()] == [
        "1e-5",
        "0.0001",
        "0.001",
        "0.01",
        "0.1",
    ]
    low, high = ax.get_xlim()
    assert low < -5 < -1 < high
    assert ax.get_title(loc="left") == RATE.key


def test_a_conditional_key_shows_the_trials_that_use_it(sweep):
    ax = figures.draw_scores_by_value(sweep, sweep.searched[2]).axes[0]
    uses = int((sweep.scored["value/optimizer"] == "sgd").sum())
    assert len(points(ax)) == uses
    assert ax.get_xlabel() == f"{uses} of 55 trials use it"


def test_a_key_that_no_trial_uses_says_so():
    parent = HyperParameter("on", "bool", choices=("false", "true"))
    child = HyperParameter("size", "int", 1, 9, when={"on": ("true",)})
    sweep = sweep_of(
        [parent, child], trials_of([0.1, 0.2], {"on": [False] * 2, "size": [None] * 2})
    )
    assert (
        figures.draw_scores_by_value(sweep, child)
        .axes[0]
        .texts[0]
        .get_text()
        .startswith("used by no trial")
    )


def test_choices_have_their_names_and_medians():
    values = {"rates": [None, [0.1, 0.2], [0.1, 0.2], "größe $日"]}
    sweep = sweep_of([LIST], trials_of([0.1, 0.2, 0.4, 0.5], values))
    fig = figures.draw_scores_by_value(sweep, LIST)
    fig.canvas.draw()  # no warning of a glyph that is missing
    ax = fig.axes[0]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["null", "[0.1, 0.2]", r"größe \$□"]
    medians = [c.get_segments()[0][0][1] for c in ax.collections if hasattr(c, "get_segments")]
    np.testing.assert_allclose(medians, [0.1, 0.3, 0.5])
    np.testing.assert_array_equal(np.round(points(ax)[:, 0]), [0, 1, 1, 2])


def test_parallel_coordinates_run_through_the_values_to_the_score(sweep):
    keys = ["optimizer.momentum", RATE.key]
    ax = figures.draw_parallel_coordinates(sweep, keys).axes[0]
    lines = {tuple(each.get_xdata()): each for each in ax.lines if len(each.get_xdata()) == 3}
    assert len(lines) == 55
    best = sweep.best
    ends = sweep.scored["score"]
    x = next(x for x, each in lines.items() if each.get_color() == figures.style.VERMILLION)
    momentum = best["value/optimizer.momentum"]
    rate = (math.log10(best["value/" + RATE.key]) + 5) / 4
    assert x == pytest.approx((momentum / 0.99, rate, 1.0))
    aside = sum(x[0] == scales.ASIDE for x in lines)
    assert aside == (sweep.scored["value/optimizer"] != "sgd").sum()
    assert sum(each.get_color() == figures.style.BLUE for each in lines.values()) == 5
    assert {x[2] for x in lines} >= {0.0, 1.0}
    assert len(ends) == 55
    names = [text.get_text() for text in ax.texts if text.get_fontweight() == "bold"]
    assert names == [*keys, "val balanced accuracy"]


def test_parallel_coordinates_of_budgets_are_those_of_one_and_the_best():
    sweep = realistic(90, hyperband=True)
    ax = figures.draw_parallel_coordinates(sweep, [RATE.key]).axes[0]
    drawn = [each for each in ax.lines if each.get_zorder() in (2, 3, 4)]
    assert len(drawn) == (sweep.scored["rung"] == 0).sum() + 1


def test_importance_shows_shares_chance_and_what_matters():
    effects = (Effect("a", 0.5, True), Effect("b", 0.02, False), Effect("c", -0.01, False))
    fig = figures.draw_importance(Importance(effects, "", 0.6, 0.04, 40, -1, ()))
    widths = [
        (bar.get_y() + bar.get_height() / 2, bar.get_width()) for bar in fig.axes[0].patches[1:]
    ]
    np.testing.assert_allclose(widths, [(0, 50), (1, 2), (2, 0)], atol=1e-12)
    assert fig.axes[0].patches[0].get_width() == pytest.approx(4)
    assert legend(fig) == ["no more than chance", "matters", "no evidence"]


@pytest.mark.parametrize("higher", [True, False])
def test_a_trial_that_went_very_wrong_flattens_no_figure(higher):
    scores = np.array([*np.linspace(1, 2, 21), -1e6 if higher else 1e6])
    sweep = sweep_of([], trials_of(scores, {}), higher_is_better=higher, objective="val/log_loss")
    low, high = scales.score_limits(sweep)
    assert (high == 2) if higher else (low == 1)
    assert high - low < 5
    fig = figures.draw_score_history(sweep)
    assert "beyond the axis" in legend(fig)
    assert len(points(fig.axes[0])) == 22


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (1e-5, 1e-1, [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]),
        (8, 64, [8, 16, 32, 64]),
        (0.1, 1, [0.1, 0.2, 0.5, 1]),
        (3, 4, [3, 4]),
        (2, 2, [2]),
    ],
)
def test_ticks_of_a_logarithmic_scale_are_round(low, high, expected):
    assert scales.log_ticks(low, high) == pytest.approx(expected)


def test_ticks_of_a_very_wide_scale_stay_few():
    assert len(scales.log_ticks(1e-12, 1)) <= 6


@pytest.mark.parametrize(
    "draw", [figures.draw_score_history, lambda sweep: figures.draw_parallel_coordinates(sweep, [])]
)
def test_nothing_is_drawn_of_nothing(draw):
    with pytest.raises(ValueError, match="at least one trial"):
        draw(sweep_of([], trials_of([], {})))
