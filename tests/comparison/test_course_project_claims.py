import pytest

from melanoma_lab.comparison.compare import compare_study
from melanoma_lab.comparison.verdicts import (
    COURSE_PROJECT_CLAIMS,
    check_claims,
    reverse_difference,
)

pytestmark = pytest.mark.unit

ARMS = {
    "baseline": (0.6, ""),
    "dropout": (1.6, "baseline"),
    "augmented": (0.7, "dropout"),
    "dropout_sgd": (0.2, "dropout"),
}


@pytest.fixture(scope="module")
def judged(tracked):
    study = tracked.fill(ARMS, seeds=range(5))
    return {
        claim.question: entry for claim, entry in check_claims(compare_study(tracked.load(study)))
    }


def test_each_claim_is_judged_against_its_own_reference(judged):
    assert list(judged) == [claim.question for claim in COURSE_PROJECT_CLAIMS]
    for claim in COURSE_PROJECT_CLAIMS:
        entry = judged[claim.question]
        assert (entry.arm, entry.reference, entry.metric) == (
            claim.arm,
            claim.reference,
            claim.metric,
        )


def test_adam_is_seen_from_its_side(judged):
    """The study compares dropout_sgd with dropout; the claim is the other way round."""
    adam = judged["Does Adam beat SGD?"]
    assert adam.summary.ci_low > 0
    assert adam.verdict == "helps"
    assert judged["Does balancing with Augmentor raise balanced accuracy?"].verdict == "hurts"


def test_a_difference_reversed_twice_is_itself(judged):
    for entry in judged.values():
        assert reverse_difference(reverse_difference(entry)) == entry
        assert reverse_difference(entry).summary.ci_low <= reverse_difference(entry).summary.mean


def test_shared_overrides_do_not_matter_and_others_do(tracked):
    shared = {
        f"{name},training.epochs=3": (skill, reference)
        for name, (skill, reference) in ARMS.items()
        if name in ("baseline", "dropout")
    }
    judged = check_claims(compare_study(tracked.load(tracked.fill(shared))))
    assert [claim.arm for claim, _ in judged] == ["dropout"]
    other = {"baseline": (0.6, ""), "dropout,optimizer.learning_rate=0.1": (1.0, "baseline")}
    assert check_claims(compare_study(tracked.load(tracked.fill(other)))) == []


def test_the_report_has_the_claims(tracked, tmp_path):
    from melanoma_lab.comparison.report import write_comparison_report

    study = tracked.load(tracked.fill(ARMS, seeds=range(5)))
    page = write_comparison_report(tmp_path, study, compare_study(study), [], again="again")
    for text in (page.read_text(), page.with_suffix(".md").read_text()):
        assert "What the course project claimed" in text
        assert "Does Adam beat SGD?" in text
        assert "no, worse" in text
