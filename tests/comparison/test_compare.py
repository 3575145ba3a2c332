"""From a study's runs to summaries, differences and verdicts, and what they come with."""

import dataclasses
import json

import numpy as np
import pytest
from scipy import stats

from melanoma_lab.comparison.compare import compare_study, format_comparison_json
from melanoma_lab.comparison.pairing import aggregate_by_unit, pair_runs
from melanoma_lab.comparison.report import write_comparison_report
from melanoma_lab.comparison.statistics import holm, mean_over_seeds
from melanoma_lab.comparison.warnings import find_warnings
from melanoma_lab.core.errors import UserError

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def study(tracked, ablation):
    return tracked.load(ablation)


@pytest.fixture(scope="module")
def comparison(study):
    return compare_study(study)


def values_of(comparison, arm, metric):
    return {r.key.seed: r.estimates[metric].value for r in comparison.arms[arm].runs}


def difference(comparison, arm, metric="balanced_accuracy"):
    (entry,) = [d for d in comparison.of_metric(metric) if d.arm == arm]
    return entry


def test_every_arm_is_compared_with_its_own_reference_in_every_metric(comparison, study):
    pairs = {(d.arm, d.reference) for d in comparison.differences}
    assert pairs == {
        ("dropout", "baseline"),
        ("augmented", "dropout"),
        ("dropout_sgd", "dropout"),
    }
    metrics = {d.metric for d in comparison.differences}
    assert metrics == set(study.runs[0].estimates)
    assert {"balanced_accuracy", "melanoma_sensitivity", "generalisation_gap"} <= metrics
    assert len(comparison.differences) == len(pairs) * len(metrics)


def test_references_stand_before_what_is_compared_with_them(comparison):
    order = list(comparison.arms)
    assert order.index("baseline") < order.index("dropout") < order.index("augmented")


def test_differences_are_paired_by_seed(comparison):
    arm = values_of(comparison, "dropout", "macro_f1")
    reference = values_of(comparison, "baseline", "macro_f1")
    d = np.array([arm[seed] - reference[seed] for seed in arm])
    entry = difference(comparison, "dropout", "macro_f1")
    assert entry.summary.mean == pytest.approx(d.mean())
    assert entry.summary.sd == pytest.approx(d.std(ddof=1))
    assert (entry.n_pairs, entry.n_seeds) == (4, 4)
    # Chance in the lesions can only widen what the seeds alone give.
    seeds_alone = stats.t.isf(0.025, 3) * d.std(ddof=1) / 2
    assert entry.summary.ci_high - entry.summary.mean >= seeds_alone


def test_verdicts_know_which_way_is_better(comparison):
    assert difference(comparison, "dropout").verdict == "helps"
    assert difference(comparison, "dropout", "log_loss").verdict == "helps"
    assert difference(comparison, "dropout", "log_loss").summary.mean < 0
    assert difference(comparison, "dropout_sgd").verdict == "hurts"
    assert difference(comparison, "dropout_sgd", "log_loss").verdict == "hurts"
    assert difference(comparison, "augmented").verdict == "no evidence"


def test_p_values_are_adjusted_over_the_arms_of_a_metric(comparison):
    for metric in ("balanced_accuracy", "ece"):
        entries = comparison.of_metric(metric)
        assert [d.p_holm for d in entries] == holm([d.p for d in entries])


def test_one_reference_for_all(study):
    entries = compare_study(study, reference="augmented").of_metric("accuracy")
    assert {d.arm for d in entries} == {"baseline", "dropout", "dropout_sgd"}
    assert {d.reference for d in entries} == {"augmented"}


def test_an_unknown_metric_points_to_the_nearest(study):
    with pytest.raises(UserError, match=r"metric=acuracy: .* Did you mean accuracy\?"):
        compare_study(study, metric="acuracy")


def test_the_json_is_what_the_contract_says(comparison):
    content = json.loads(
        format_comparison_json(comparison, ["look out"]), parse_constant=pytest.fail
    )
    assert set(content) == {"study", "arms", "comparisons", "warnings"}
    assert content["warnings"] == ["look out"]
    arm = content["arms"]["dropout"]
    assert (arm["n_runs"], arm["seeds"]) == (4, [0, 1, 2, 3])
    assert set(arm["metrics"]["accuracy"]) == {"mean", "sd", "ci_low", "ci_high"}
    row = content["comparisons"][0]
    assert list(row) == [
        "arm",
        "reference",
        "metric",
        "n_pairs",
        "difference",
        "ci_low",
        "ci_high",
        "p",
        "p_holm",
        "verdict",
    ]


def test_one_seed_gives_null_and_too_few_runs(tracked):
    study = tracked.load(
        tracked.fill({"baseline": (1.0, ""), "dropout": (2.0, "baseline")}, seeds=(0,))
    )
    comparison = compare_study(study)
    row = json.loads(format_comparison_json(comparison, []))["comparisons"][0]
    assert row["difference"] is not None
    assert (row["ci_low"], row["ci_high"], row["p"], row["p_holm"]) == (None,) * 4
    assert row["verdict"] == "too few runs"
    assert any(
        "shares 1 seed with baseline; a verdict takes 3 or more" in text
        for text in find_warnings(study, comparison)
    )


def test_two_seeds_say_how_many_are_needed(tracked):
    study = tracked.load(
        tracked.fill({"baseline": (1.0, ""), "dropout": (1.8, "baseline")}, seeds=(0, 1))
    )
    comparison = compare_study(study)
    (entry,) = comparison.of_metric("balanced_accuracy")
    assert entry.verdict == "too few runs"
    assert entry.summary.ci_low < entry.summary.mean < entry.summary.ci_high
    assert entry.seeds_needed >= 3
    assert any(
        f"would take about {entry.seeds_needed} seeds" in text
        for text in find_warnings(study, comparison)
    )


def test_the_very_same_predictions_are_no_evidence(tracked, make_table):
    study = tracked.study()
    for seed in (0, 1, 2):
        for arm, reference in (("baseline", ""), ("twin", "baseline")):
            tracked.add(study, arm, seed, table=make_table(1.0, seed=seed), reference=reference)
    for entry in compare_study(tracked.load(study)).differences:
        assert entry.summary.mean == 0
        assert np.isnan([entry.summary.ci_low, entry.p, entry.p_holm]).all()
        assert entry.verdict == "no evidence"


def test_folds_are_averaged_and_not_counted_as_repetitions(tracked):
    study = tracked.load(
        tracked.fill({"baseline": (1.0, ""), "dropout": (2.0, "baseline")}, (0, 1), (0, 1, 2))
    )
    comparison = compare_study(study)
    entry = difference(comparison, "dropout", "accuracy")
    assert (entry.n_pairs, entry.n_seeds, entry.verdict) == (6, 2, "too few runs")
    d = {0: [], 1: []}
    for arm, sign in (("dropout", 1), ("baseline", -1)):
        for run in comparison.arms[arm].runs:
            d[run.key.seed].append(sign * run.estimates["accuracy"].value / 3)
    assert entry.summary.mean == pytest.approx(np.mean([sum(d[0]), sum(d[1])]))
    assert entry.summary.sd == pytest.approx(np.std([sum(d[0]), sum(d[1])], ddof=1))


@pytest.mark.parametrize(
    ("pairs", "warned"),
    [
        ([(0, 0), (1, 1), (2, 2)], True),
        ([(0, 0), (0, 1), (1, 0), (1, 1)], False),
        ([(0, 0), (0, 1), (1, 1)], False),  # one is missing
        ([(0, 0), (1, 0)], False),
    ],
)
def test_folds_that_stand_for_seeds_are_said(tracked, tmp_path, pairs, warned):
    name = tracked.study()
    for seed, fold in pairs:
        tracked.add(name, "baseline", seed, fold=fold)
        tracked.add(name, "dropout", seed, fold=fold, reference="baseline")
    study = tracked.load(name)
    comparison = compare_study(study)
    texts = find_warnings(study, comparison)
    assert any(text.startswith("Seeds have different folds") for text in texts) == warned
    report = write_comparison_report(tmp_path, study, comparison, texts, again="").with_suffix(
        ".md"
    )
    averaged = len(pairs) > len(dict(pairs))
    assert ("folds of a seed are averaged" in report.read_text()) == averaged


def test_test_lesions_of_all_folds_count(tracked):
    """Three folds have three times the lesions of one: their part of the variance is a third."""
    arms = {"baseline": (1.0, ""), "dropout": (2.0, "baseline")}
    one, three = (tracked.load(tracked.fill(arms, range(6), folds)) for folds in ((0,), (0, 1, 2)))

    def lesion_variance(study):
        runs = {arm: [r for r in study.runs if r.key.arm == arm] for arm in arms}
        pairs = pair_runs(runs["dropout"], runs["baseline"])
        values, influences = aggregate_by_unit(pairs[0], "log_loss", pairs[1])
        return float(mean_over_seeds(values, influences).lesion_variance)

    assert 2 < lesion_variance(one) / lesion_variance(three) < 4.5


def test_only_shared_seeds_are_compared_and_the_rest_is_said(tracked):
    name = tracked.fill({"baseline": (1.0, "")}, seeds=(0, 1, 2, 3))
    for seed in (1, 2, 3, 7):
        tracked.add(name, "dropout", seed, reference="baseline", skill=2)
    study = tracked.load(name)
    comparison = compare_study(study)
    assert difference(comparison, "dropout").n_pairs == 3
    assert comparison.arms["dropout"].seeds == (1, 2, 3, 7)
    (text,) = [text for text in find_warnings(study, comparison) if "lacks" in text]
    assert text == (
        "dropout lacks seed 0; baseline lacks seed 7: only the runs that both have are compared."
    )


def test_arms_that_share_nothing_are_not_compared(tracked):
    name = tracked.fill({"baseline": (1.0, "")}, seeds=(0, 1, 2))
    tracked.add(name, "dropout", 5, reference="baseline")
    study = tracked.load(name)
    comparison = compare_study(study)
    assert comparison.differences == ()
    assert any("share no seed" in text for text in find_warnings(study, comparison))


def test_a_class_without_test_images_is_null_and_said(tracked, make_table):
    name = tracked.study()
    for seed in (0, 1, 2):
        for arm, reference in (("baseline", ""), ("dropout", "baseline")):
            table = make_table(1.0, seed=seed, arm=arm)
            kept = (table["split"] != "test") | (table["y_true"] != "keratosis")
            tracked.add(name, arm, seed, table=table[kept], reference=reference)
    study = tracked.load(name)
    comparison = compare_study(study)
    content = json.loads(format_comparison_json(comparison, []), parse_constant=pytest.fail)
    undefined = content["arms"]["baseline"]["metrics"]["sensitivity/keratosis"]
    assert set(undefined.values()) == {None}
    assert difference(comparison, "dropout", "sensitivity/keratosis").verdict == "no evidence"
    assert np.isfinite(difference(comparison, "dropout").summary.ci_low)
    texts = find_warnings(study, comparison)
    assert "No test image is of keratosis." in texts
    assert any(
        text.startswith("Undefined in some runs, and null in comparison.json: sens")
        for text in texts
    )


def test_what_a_reader_must_know_first(tracked):
    name = tracked.fill({"baseline,e=1": (1.0, "")}, protocol="leaking", notes="310 kept.")
    for seed in (0, 1, 2):
        tags = {"reference": "baseline", "git_commit": "1" * 40, "outcome": "at_chance"}
        tracked.add(name, "dropout,e=1", seed, steps=900, **tags)
    tracked.add(name, "augmented,e=1", 0, reference="sharpened")
    tracked.add(name, "augmented,e=1", 1, status="FAILED", reason="diverged")
    study = tracked.load(name)
    texts = find_warnings(study, compare_study(study))
    assert texts[0].startswith("Leaking protocol in 3 of 7 runs")
    for start in (
        "dropout: all 3 runs stayed at chance (seed 0, 1 and 2)",
        "augmented: seed 1 not finished and missing here (FAILED: diverged).",
        "augmented is compared with nothing: its reference, sharpened, has no finished run",
        "dropout took 900 optimizer steps, baseline 300",
        "Runs were made by different versions of the lab: 000000000 and 111111111.",
        "Notes on the data: 310 kept.",
    ):
        assert any(text.startswith(start) for text in texts), start


def test_runs_that_nothing_groups_are_told(tracked):
    name = tracked.fill({"baseline": (1.0, "")}, protocol="ungrouped")
    study = tracked.load(name)
    (text,) = [t for t in find_warnings(study, compare_study(study)) if t.startswith("Ungrouped")]
    assert text.startswith(
        "Ungrouped protocol in all 3 runs: the dataset names no lesions or patients"
    )


@pytest.mark.parametrize(("told", "warned"), [("0.8712", True), ("0.5300", False), ("", False)])
def test_sources_that_give_the_class_away_are_said(tracked, told, warned):
    name = tracked.fill({"baseline": (1.0, "")}, source_tells_class=told)
    study = tracked.load(name)
    texts = [t for t in find_warnings(study, compare_study(study)) if t.startswith("Source")]
    assert len(texts) == warned
    assert all("distinguishes two classes in 87 % of cases" in text for text in texts)


def test_a_sound_study_comes_without_warnings(study, comparison):
    assert find_warnings(study, comparison) == []


def test_one_arm_is_summarised_and_said_to_be_alone(tracked):
    study = tracked.load(tracked.fill({"baseline": (1.0, "")}))
    comparison = compare_study(study)
    assert comparison.differences == ()
    assert np.isfinite(comparison.arms["baseline"].metrics["accuracy"].ci_low)
    (text,) = find_warnings(study, comparison)
    assert "one arm" in text


def test_splits_that_differ_between_seeds_are_said(tracked):
    name = tracked.study()
    for seed in (0, 1, 2):
        for arm, reference in (("baseline", ""), ("dropout", "baseline")):
            tracked.add(name, arm, seed, reference=reference, split_hash=f"split {seed}")
    study = tracked.load(name)
    assert any("split differs" in text for text in find_warnings(study, compare_study(study)))


def test_a_lone_lesion_of_a_class_is_said(study, comparison):
    runs = tuple(dataclasses.replace(run, lone_classes=("nevus",)) for run in study.runs)
    texts = find_warnings(dataclasses.replace(study, runs=runs), comparison)
    assert any(text.startswith("One test lesion only of nevus") for text in texts)


def test_precisions_mixed_within_an_arm_or_between_arms_are_said(tracked):
    def texts(arms, precision_of):
        name = tracked.study()
        for arm, reference in arms.items():
            for seed in (0, 1, 2):
                precision = precision_of(arm, seed)
                tracked.add(name, arm, seed, reference=reference, precision=precision)
        study = tracked.load(name)
        return [
            text
            for text in find_warnings(study, compare_study(study))
            if "precision" in text or "computed" in text
        ]

    def by_seed(_arm, seed):
        return "float32" if seed else "mixed_bfloat16"

    def by_arm(arm, _seed):
        return "float32" if arm.startswith("baseline") else "mixed_bfloat16"

    arms = {"baseline": "", "dropout": "baseline"}
    mixed = texts(arms, by_seed)
    assert len(mixed) == 2
    assert "dropout was computed in several precisions" in mixed[1]
    assert "mixed_bfloat16 (seed 0); float32 (seeds 1 and 2)" in mixed[1]
    (between,) = texts(arms, by_arm)
    assert "dropout was computed in mixed_bfloat16, baseline in float32" in between
    # The same word came to different things on two machines: not what the arms ask about.
    auto = ",training.precision=auto"
    assert texts({f"baseline{auto}": "", f"dropout{auto}": "baseline"}, by_arm)
    # The arm is named for it.
    assert texts({"baseline": "", f"custom{auto}": "baseline"}, by_arm) == []
    assert texts(arms, lambda *_: "float32") == []
