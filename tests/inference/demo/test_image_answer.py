"""What is said of an image: pure, from a network's answers."""

from dataclasses import replace

import numpy as np
import pytest

from melanoma_lab.evaluation.confidence_intervals import IntervalEstimate
from melanoma_lab.evaluation.decision_rule import DecisionRule, Temperature
from melanoma_lab.inference.demo import messages
from melanoma_lab.inference.demo.image_answer import build_answer_text
from melanoma_lab.inference.model_source import ModelSource
from melanoma_lab.inference.predictor import PredictionBatch
from melanoma_lab.tracking.logged_model import ModelInfo

pytestmark = pytest.mark.unit

CARD = ModelInfo(("melanoma", "nevus", "wart"), ("Melanoma", "Nevus", "Wart"), dataset="mine")
ADVICE = DecisionRule(
    Temperature(2.0, 300),
    "melanoma",
    0.25,
    0.9,
    measured_on="test",
    sensitivity=IntervalEstimate(0.85, 0.71, 0.93),
    specificity=IntervalEstimate(0.7, 0.66, 0.74),
)


def plain(text):
    return text.replace(messages.SPACE, " ")


def answers(*, calibrated=True, reached=True, unlike=0.5):
    return PredictionBatch(
        np.array([[0.2, 0.7, 0.1]], np.float32),
        np.array([[0.3, 0.5, 0.2]], np.float32) if calibrated else None,
        None if reached is None else np.array([reached]),
        None if unlike is None else np.array([unlike], np.float32),
    )


def test_the_calibrated_probabilities_count_the_most_probable_first():
    said = build_answer_text(answers(), CARD, ADVICE, None)
    assert plain(said.headline) == "Nevus, 50.0 %"
    assert [(bar.name, plain(bar.text)) for bar in said.bars] == [
        ("Nevus", "50.0 %"),
        ("Melanoma", "30.0 %"),
        ("Wart", "20.0 %"),
    ]
    assert [plain(bar.threshold_text) for bar in said.bars] == ["", "25.0 %", ""]
    assert said.scale == ""
    assert said.warnings == ()


def test_the_operating_point_decides_in_words():
    said = build_answer_text(answers(), CARD, ADVICE, None)
    assert plain(said.decision) == (
        "At the operating point it counts as Melanoma: 30.0 % reaches the threshold of 25.0 %."
    )
    assert plain(said.rates) == (
        "The threshold was chosen so that 90 % of the validation images of Melanoma reach it. "
        "Of the test images of Melanoma, 85 % (95 % interval 71 to 93 %) reach it (sensitivity); "
        "of all others, 70 % (95 % interval 66 to 74 %) do not (specificity)."
    )
    below = build_answer_text(answers(reached=False), CARD, ADVICE, None).decision
    assert "it does not count as Melanoma: 30.0 % is below" in plain(below)


def test_rates_on_val_are_called_flattering_and_unknown_ones_are_not_told():
    by_val = messages.describe_operating_point("M", replace(ADVICE, measured_on="val"))
    assert by_val.endswith("chosen on these images, so expect lower values on others.")
    bare = DecisionRule(Temperature(1.0, 9), "melanoma", 0.25, 0.9)  # as kept by earlier versions
    assert messages.describe_operating_point("M", bare).endswith("of M reach it.")


def test_without_advice_probabilities_are_the_networks_own():
    said = build_answer_text(answers(calibrated=False, reached=None), CARD, None, None)
    assert plain(said.headline) == "Nevus, 70.0 %"
    assert "no temperature was saved with the model" in said.scale
    assert (said.decision, said.rates) == ("", "")
    why_not = DecisionRule(Temperature(1.0, 3, "val has 3 images"))
    said = build_answer_text(answers(reached=None), CARD, why_not, None)
    assert said.scale.endswith("not calibrated: val has 3 images")


def test_an_image_of_the_models_own_dataset_is_told():
    for split, words in (("train", "proves nothing"), ("val", "proves little")):
        said = build_answer_text(answers(), CARD, ADVICE, (split, "Wart"))
        (warning,) = said.warnings
        assert words in warning
        assert said.note == ""
    said = build_answer_text(answers(), CARD, ADVICE, ("test", "Wart"))
    assert said.warnings == ()
    assert said.note == "This file is one of the model's test images, labelled Wart."


def test_a_picture_unlike_the_training_images_gets_a_warning():
    (warning,) = build_answer_text(answers(unlike=1.84), CARD, ADVICE, None).warnings
    assert "looks unlike the training images (1.8 times as far" in warning
    assert build_answer_text(answers(unlike=1.0), CARD, ADVICE, None).warnings == ()
    assert build_answer_text(answers(unlike=None), CARD, ADVICE, None).warnings == ()


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0.0 %"), (1e-9, "<0.1 %"), (0.0449, "4.5 %"), (0.99999, ">99.9 %"), (1, "100.0 %")],
)
def test_no_share_is_rounded_to_certainty(share, text):
    assert plain(messages.format_percent(share)) == text


def test_labels_are_counted():
    assert plain(messages.count_labels(["a", "b", "b"])) == "2 b, 1 a"


def test_the_limits_name_the_classes_and_what_is_missing(tmp_path):
    said = messages.list_model_limits(ModelSource("x.keras", tmp_path, CARD), CARD)
    assert "it predicts one of these: Melanoma, Nevus, Wart." in said[0]
    assert said[1].startswith("It was trained on images of mine.")
    assert any("saved without statistics of its training images" in line for line in said)
