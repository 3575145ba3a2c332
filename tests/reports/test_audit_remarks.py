"""What the audit says of single images."""

import pytest

from melanoma_lab.reports.error_analysis import collect_audit_remarks

pytestmark = pytest.mark.unit

LABELS = {"a": "nevus", "b": "melanoma", "c": "nevus", "d": "nevus", "e": "nevus", "f": "nevus"}


def test_what_puts_a_label_in_doubt_comes_first():
    audit = {
        "near_duplicate_groups": [["a", "c", "d", "e", "f"]],
        "label_conflicts": [["a", "b"]],
        "exact_duplicate_groups": [["a", "b"]],
        "metadata_conflicts": [{"image_id": "a", "label": "nevus", "diagnosis": "melanoma"}],
        "suspicious": [{"image_id": "b", "reason": "all of one colour"}],
    }
    said = collect_audit_remarks(audit, LABELS)
    assert [(remark.text, remark.of_label) for remark in said["a"]] == [
        ("labelled nevus, but the metadata's diagnosis is melanoma", True),
        ("an identical image has another label: b (melanoma)", True),
        ("copies of this photograph: c (nevus), d (nevus), e (nevus), and 1 more", False),
    ]
    assert [remark.text for remark in said["b"]] == [
        "an identical image has another label: a (nevus)",
        "all of one colour",
    ]
    assert "g" not in said


def test_what_training_left_out_is_said_to_be():
    said = collect_audit_remarks({"label_conflicts": [["a", "z"]]}, LABELS)
    assert said["a"][0].text.endswith("z (left out)")


def test_without_an_audit_nothing_is_said():
    assert collect_audit_remarks({}, LABELS) == {}
