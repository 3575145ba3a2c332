"""What trials of a search are trained on is prepared once, and apart where they are told more."""

from melanoma_lab.tuning.trial import TrialRunner

SMALL = ("dataset.lesions=30", "dataset.image_size=16", "dataset.classes=[melanoma,nevus]")


def test_a_trial_that_is_told_of_patients_has_data_of_its_own(composed, session_cache):
    trials = TrialRunner(
        **dict.fromkeys(("command", "arm", "tracker")),
        parts=[],
        **dict.fromkeys(("objective", "sweep", "parent"), ""),
        cache=session_cache,
        threads=1,
    )
    plain, patient, age = (
        composed(*SMALL, *more)
        for more in ((), ("metadata=patient",), ("metadata=patient", "metadata.columns=[age]"))
    )
    assert trials.data_of(plain).patients is None
    assert list(trials.data_of(patient).patients.encoding.columns) == ["age", "sex", "site"]
    assert list(trials.data_of(age).patients.encoding.columns) == ["age"]
    assert trials.data_of(patient) is trials.data_of(patient)
