"""Patients of drawn lesions: age, sex and body site, which give a class away a little.

They are told when the dataset is read and not drawn into it, so that its files stay what they
were. About how old, of which sex, and where, is what dermatology books say of each class, blurred:
ages differ widely and three in ten sites are anywhere.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from melanoma_lab.data.synthetic.appearance import normalise_class_name

#: Keeps patients' random numbers apart from others that are drawn from the same seed.
PATIENT_STREAM = 0x9A
SITES = ("back", "chest", "face", "lower extremity", "scalp", "upper extremity")
#: Share of each fact that is not known.
MISSING = 0.05
#: Share of sites that have nothing to do with the class.
ANYWHERE = 0.3
#: Years by which patients of one class differ from their mean: a standard deviation.
SPREAD = 16


@dataclass(frozen=True)
class PatientProfile:
    """Who has lesions of a class: mean age in years, share of men, usual sites."""

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
    """The patient of each photograph; photographs of one lesion have the same.

    Args:
        lesions: n names of lesions.
        labels: the class of each.
        seed: the dataset's.

    Returns:
        n rows with age (float64 years in steps of five, NaN where not known), sex and site (str,
        empty where not known).
    """
    known = {
        lesion: _patient(lesion, label, seed) for lesion, label in zip(lesions, labels, strict=True)
    }
    rows = [known[lesion] for lesion in lesions]
    return pd.DataFrame(rows, columns=["age", "sex", "site"]).astype({"age": "float64"})


@functools.lru_cache(maxsize=100_000)  # a study asks for the same ones in each run
def _patient(lesion: str, label: str, seed: int) -> tuple[float, str, str]:
    """Age, sex and site, from the lesion's name, its class and the seed alone."""
    number = int.from_bytes(hashlib.sha256(lesion.encode()).digest()[:8])
    rng = np.random.default_rng([PATIENT_STREAM, seed, number])
    usual = CLASSES.get(normalise_class_name(label), ANYBODY)
    age = float(np.clip(5 * np.round(rng.normal(usual.age, SPREAD) / 5), 5, 85))
    sex = "male" if rng.random() < usual.men else "female"
    site = str(rng.choice(SITES if rng.random() < ANYWHERE else usual.sites))
    unknown = rng.random(3) < MISSING
    return (
        np.nan if unknown[0] else age,
        "" if unknown[1] else sex,
        "" if unknown[2] else site,
    )
