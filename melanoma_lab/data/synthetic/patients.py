"""Random patients of drawn lesions: age, sex and body site, weakly related to the class.

They are drawn when the dataset is read and are not part of its files, so that patients could be
added without changing the files. The profile of each class roughly follows dermatology books, with
noise: ages vary widely, and 30 % of sites are independent of the class.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from melanoma_lab.data.synthetic.appearance import normalise_class_name

#: Separates patients' random numbers from others with the same seed.
PATIENT_STREAM = 0x9A
SITES = ("back", "chest", "face", "lower extremity", "scalp", "upper extremity")
#: Share of missing values of each fact.
MISSING = 0.05
#: Share of sites that are independent of the class.
ANYWHERE = 0.3
#: Standard deviation in years of the ages in one class.
SPREAD = 16


@dataclass(frozen=True)
class PatientProfile:
    """The typical patients of a class: mean age in years, share of men, usual sites."""

    age: float
    men: float
    sites: tuple[str, ...]


ANYBODY = PatientProfile(50, 0.5, SITES)
CLASSES = {
    "actinic keratosis": PatientProfile(68, 0.65, ("face", "scalp")),
    "basal cell carcinoma": PatientProfile(66, 0.6, ("face", "back")),
    "dermatofibroma": PatientProfile(46, 0.4, ("lower extremity", "upper extremity")),
    "melanoma": PatientProfile(60, 0.55, ("back", "lower extremity")),
    "nevus": PatientProfile(40, 0.5, ("back", "chest", "lower extremity")),
    "pigmented benign keratosis": PatientProfile(62, 0.5, ("face", "back", "chest")),
    "seborrheic keratosis": PatientProfile(65, 0.5, ("back", "chest")),
    "squamous cell carcinoma": PatientProfile(68, 0.65, ("face", "scalp", "upper extremity")),
    "vascular lesion": PatientProfile(50, 0.5, ("chest", "upper extremity")),
}


def sample_patients(lesions: Sequence[str], labels: Sequence[str], seed: int) -> pd.DataFrame:
    """Draw the patient of each photograph; all photographs of one lesion have the same patient.

    Args:
        lesions: lesion of each of n photographs.
        labels: class of each photograph.
        seed: seed of the dataset.

    Returns:
        n rows with age (float64 years in steps of five, NaN if unknown), sex and site (str, empty
        if unknown).
    """
    known = {
        lesion: _patient(lesion, label, seed) for lesion, label in zip(lesions, labels, strict=True)
    }
    rows = [known[lesion] for lesion in lesions]
    return pd.DataFrame(rows, columns=["age", "sex", "site"]).astype({"age": "float64"})


@functools.lru_cache(maxsize=100_000)  # all runs of a study have the same patients
def _patient(lesion: str, label: str, seed: int) -> tuple[float, str, str]:
    """Draw age, sex and site, which depend only on the lesion's name, its class and the seed."""
    number = int.from_bytes(hashlib.sha256(lesion.encode()).digest()[:8])
    rng = np.random.default_rng([PATIENT_STREAM, seed, number])
    profile = CLASSES.get(normalise_class_name(label), ANYBODY)
    age = float(np.clip(5 * np.round(rng.normal(profile.age, SPREAD) / 5), 5, 85))
    sex = "male" if rng.random() < profile.men else "female"
    site = str(rng.choice(SITES if rng.random() < ANYWHERE else profile.sites))
    unknown = rng.random(3) < MISSING
    return (
        np.nan if unknown[0] else age,
        "" if unknown[1] else sex,
        "" if unknown[2] else site,
    )
