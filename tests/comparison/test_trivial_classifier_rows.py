"""Trivial classifiers in a study: no noise of seeds, nothing divided by zero, marked as such."""

import json
import math
import re

import numpy as np
import pytest

from melanoma_lab.comparison.compare import compare_study, format_comparison_json
from melanoma_lab.comparison.report import write_comparison_report
from melanoma_lab.comparison.study_report import show_comparison
from melanoma_lab.comparison.warnings import find_warnings
from melanoma_lab.core.console import console

pytestmark = pytest.mark.unit

FOR_SCALE = {"trivial": "true", "outcome": "at_chance", "steps": 0}


@pytest.fixture(scope="module")
def study(tracked, make_table):
    """A network that learns, one that does not, and two arms that are the same at every seed."""
    name = tracked.study()
    table = make_table(1.0, seed=0)
    shares = table["y_true"].value_counts(normalize=True)
    majority = table.copy()
    for slug, share in shares.items():
        majority[f"prob/{slug}"] = np.float32(share)
    for seed in (0, 1, 2):
        tracked.add(name, "zero", seed, skill=-3.0)
        tracked.add(name, "zero_more", seed, skill=2.0, reference="zero")
        tracked.add(name, "colours", seed, table=make_table(1.5, seed=0), **FOR_SCALE)
        tracked.add(name, "majority", seed, table=majority, **FOR_SCALE)
    return tracked.load(name)


def test_an_arm_without_noise_has_an_interval_of_its_lesions_alone(study):
    arms = compare_study(study).arms
    colours = arms["colours"].metrics["balanced_accuracy"]
    assert colours.sd == pytest.approx(0, abs=1e-12)
    assert colours.ci_low < colours.mean < colours.ci_high
    majority = arms["majority"].metrics["balanced_accuracy"]
    assert (majority.mean, majority.sd) == pytest.approx((0.25, 0))
    assert math.isnan(majority.ci_low)  # whatever lesions are drawn, it is a quarter


@pytest.mark.parametrize("reference", [None, "majority", "colours", "zero"])
def test_every_arm_can_be_held_against_them(study, reference):
    comparison = compare_study(study, reference)
    json.loads(format_comparison_json(comparison, find_warnings(study, comparison)))
    verdicts = {entry.arm: entry.verdict for entry in comparison.of_metric("balanced_accuracy")}
    assert verdicts["zero_more"] in {"helps", "no evidence"}
    if reference is None:
        assert verdicts.keys() == {"zero_more"}  # a trivial classifier costs Holm nothing
        assert list(comparison.arms) == ["zero", "zero_more", "colours", "majority"]
    if reference == "majority":
        assert verdicts["colours"] == verdicts["zero_more"] == "helps"


def test_the_reports_say_which_arms_are_trivial(study, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(console, "_width", 140)
    comparison = compare_study(study)
    warnings = find_warnings(study, comparison)
    report = write_comparison_report(tmp_path, study, comparison, warnings, again="again")
    show_comparison(comparison, warnings, report)
    for text in ((tmp_path / "report.md").read_text(), report.read_text()):
        assert "colours (trivial classifier)" in text
        assert "zero (trivial classifier)" not in text
    assert re.search(
        r"^colours +│.*\n \(trivial classifier\)", capsys.readouterr().out, re.MULTILINE
    )


def test_warnings_are_of_the_networks(study):
    warnings = find_warnings(study, compare_study(study))
    text = "\n".join(warnings)
    assert "zero (0.0 %) is on average no better in balanced accuracy than colours (" in text
    assert "majority (25.0 %), which does not use" in text
    assert "zero_more (" not in text
    assert "zero: all 3 runs stayed at chance" in text
    assert "majority: all" not in text
    assert "optimizer steps" not in text
    assert "compared with nothing" not in text
