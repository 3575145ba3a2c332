"""What trials of a search are trained on is prepared once, and apart where they are told more."""

import pytest

from melanoma_lab.tuning.trial_runner import TrialRunner

pytestmark = pytest.mark.integration

SMALL = ("dataset.lesions=30", "dataset.image_size=16", "dataset.classes=[melanoma,nevus]")


def test_a_trial_that_is_told_of_patients_has_load_dataset_its_own(composed, session_cache):
    trials = TrialRunner(
        **dict.fromkeys(("command", "arm", "tracker")),
        repetitions=[],
        **dict.fromkeys(("objective", "sweep", "parent"), ""),
        cache=session_cache,
        threads=1,
    )
    plain, patient, age = (
        composed(*SMALL, *more)
        for more in ((), ("metadata=patient",), ("metadata=patient", "metadata.columns=[age]"))
    )
    assert trials.load_dataset(plain).patients is None
    assert list(trials.load_dataset(patient).patients.encoding.columns) == ["age", "sex", "site"]
    assert list(trials.load_dataset(age).patients.encoding.columns) == ["age"]
    assert trials.load_dataset(patient) is trials.load_dataset(patient)
