"""The classes of the synthetic dataset: the appearance of their lesions, and their patients.

Lesions and patients are random, around the averages of their class. Patients are drawn when the
dataset is read and are not part of its files, so that patients could be added without changing the
files. Their profiles roughly follow dermatology books, with noise: ages vary widely, and 30 % of
sites are independent of the class.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

# Largest weight of the look-alike class in a lesion's appearance, from 0 to 1.
LIKENESS = 0.4
# Standard deviation of the logarithm of the random factor of a property.
SPREAD = 0.25
SPREADS = {"radius": 0.2, "hue": 0.0}


@dataclass(frozen=True, kw_only=True)
class LesionAppearance:
    """The average lesion of a class, or one lesion.

    Pigments are optical densities (0 none, 1 strong); structures are prominences (0 none, 1
    strong).

    Attributes:
        radius: distance from the centre to the border, as a fraction of the picture's width.
        elongation: ratio of length to width, minus one.
        ragged: deviation of the border from an ellipse, in radii.
        softness: distance over which the lesion fades into the skin, in radii.
        asymmetry: difference in pigment between its two sides.
        mottle: patchiness of its pigment.
        melanin: brown pigment.
        blood: red pigment.
        deep: pigment deep in the skin, which looks blue-grey.
        network: net of brown lines.
        globules: dark dots.
        cysts: white dots.
        scar: white centre.
        scale: white flakes.
        vessels: branching red lines.
        lacunae: large red-purple lakes.
        halo: redness of the skin around the lesion.
        hue: rotation of all colours about the grey axis, in radians.
    """

    radius: float
    elongation: float = 0.2
    ragged: float
    softness: float
    asymmetry: float = 0.2
    mottle: float
    melanin: float
    blood: float
    deep: float = 0.0
    network: float = 0.0
    globules: float = 0.0
    cysts: float = 0.0
    scar: float = 0.0
    scale: float = 0.0
    vessels: float = 0.0
    lacunae: float = 0.0
    halo: float = 0.0
    hue: float = 0.0


@dataclass(frozen=True)
class LesionClass:
    """A class of the table.

    Attributes:
        share: relative frequency of the class, similar to the unbalanced classes of ISIC.
        look_alike: the class that it is most easily confused with.
    """

    share: float
    appearance: LesionAppearance
    look_alike: str


# Roughly as in dermoscopy atlases, e.g. Kittler et al., "Standardization of terminology in
# dermoscopy", J Am Acad Dermatol 74:1093 (2016). Shares are about those of the nine-class ISIC
# folder, with the common classes even more common.
CLASSES: dict[str, LesionClass] = {
    "actinic keratosis": LesionClass(
        share=4,
        look_alike="squamous cell carcinoma",
        appearance=LesionAppearance(
            radius=0.32, ragged=0.30, softness=0.30, mottle=0.5, melanin=0.30, blood=0.35,
            cysts=0.6, scale=0.3, halo=0.5, network=0.3,
        ),
    ),
    "basal cell carcinoma": LesionClass(
        share=9,
        look_alike="squamous cell carcinoma",
        appearance=LesionAppearance(
            radius=0.21, ragged=0.22, softness=0.20, mottle=0.4, melanin=0.10, blood=0.35,
            deep=0.55, vessels=1.0, halo=0.2,
        ),
    ),
    "dermatofibroma": LesionClass(
        share=2.5,
        look_alike="nevus",
        appearance=LesionAppearance(
            radius=0.23, elongation=0.1, ragged=0.08, softness=0.35, asymmetry=0.05, mottle=0.2,
            melanin=0.50, blood=0.25, network=0.4, scar=1.4, halo=0.4,
        ),
    ),
    "melanoma": LesionClass(
        share=12,
        look_alike="nevus",
        appearance=LesionAppearance(
            radius=0.25, elongation=0.3, ragged=0.24, softness=0.12, asymmetry=0.6, mottle=0.40,
            melanin=0.90, blood=0.15, deep=0.35, network=0.4, globules=0.4, scar=0.10,
        ),
    ),
    "nevus": LesionClass(
        share=16,
        look_alike="melanoma",
        appearance=LesionAppearance(
            radius=0.21, ragged=0.12, softness=0.14, asymmetry=0.20, mottle=0.2, melanin=0.85,
            blood=0.10, network=0.6, globules=0.3,
        ),
    ),
    "pigmented benign keratosis": LesionClass(
        share=12,
        look_alike="seborrheic keratosis",
        appearance=LesionAppearance(
            radius=0.26, elongation=0.3, ragged=0.28, softness=0.16, mottle=0.4, melanin=0.33,
            blood=0.10, deep=0.05, cysts=0.2,
        ),
    ),
    "seborrheic keratosis": LesionClass(
        share=2.5,
        look_alike="pigmented benign keratosis",
        appearance=LesionAppearance(
            radius=0.28, ragged=0.18, softness=0.07, mottle=0.4, melanin=0.70, blood=0.08,
            deep=0.1, globules=0.6, cysts=1.0,
        ),
    ),
    "squamous cell carcinoma": LesionClass(
        share=5,
        look_alike="actinic keratosis",
        appearance=LesionAppearance(
            radius=0.26, ragged=0.30, softness=0.22, mottle=0.5, melanin=0.15, blood=0.70,
            scale=1.0, vessels=0.4, halo=0.4, scar=0.2,
        ),
    ),
    "vascular lesion": LesionClass(
        share=3.5,
        look_alike="basal cell carcinoma",
        appearance=LesionAppearance(
            radius=0.17, ragged=0.12, softness=0.12, mottle=0.15, melanin=0.05, blood=1.10,
            deep=0.30, lacunae=0.9,
        ),
    ),
}  # fmt: skip


def normalise_class_name(name: str) -> str:
    """Return the name of a class as in the table: in lower case, with spaces."""
    return name.lower().replace("_", " ")


def choose_lesion_classes(names: Sequence[str]) -> list[LesionClass]:
    """Choose a row of the table for each class, in the order of ``names``.

    A class in the table gets its own row; any other class gets the next row that is not taken. When
    all rows are taken, they are used again, with all colours rotated by one radian.
    """
    in_table = {normalise_class_name(name) for name in names} & CLASSES.keys()
    spare = [row for name, row in CLASSES.items() if name not in in_table]
    rows = []
    hue = 0.0
    for name in names:
        if normalise_class_name(name) in CLASSES:
            rows.append(CLASSES[normalise_class_name(name)])
            continue
        if not spare:
            hue += 1.0
            spare = list(CLASSES.values())
        rows.append(_rotate_row_hue(spare.pop(0), hue))
    return rows


def _rotate_row_hue(row: LesionClass, hue: float) -> LesionClass:
    appearance = dataclasses.replace(row.appearance, hue=hue)
    return dataclasses.replace(row, appearance=appearance)


def sample_lesion(rng: np.random.Generator, row: LesionClass) -> LesionAppearance:
    """Draw the appearance of one lesion of a class at random.

    It lies between the class and its look-alike, mostly nearer to the class, and each property is
    multiplied by its own random factor: classes overlap, as with real lesions.
    """
    mine = dataclasses.asdict(row.appearance)
    theirs = dataclasses.asdict(CLASSES[row.look_alike].appearance) | {"hue": mine["hue"]}
    towards = LIKENESS * rng.beta(1.0, 2.0)
    return LesionAppearance(
        **{
            name: ((1 - towards) * mine[name] + towards * theirs[name])
            * float(np.exp(rng.normal(0.0, SPREADS.get(name, SPREAD))))
            for name in mine
        }
    )


#: Separates patients' random numbers from others with the same seed.
PATIENT_STREAM = 0x9A
SITES = ("back", "chest", "face", "lower extremity", "scalp", "upper extremity")
#: Share of missing values of each fact.
MISSING = 0.05
#: Share of sites that are independent of the class.
ANYWHERE = 0.3
#: Standard deviation in years of the ages in one class.
AGE_SPREAD = 16


@dataclass(frozen=True)
class PatientProfile:
    """The typical patients of a class: mean age in years, share of men, usual sites."""

    age: float
    men: float
    sites: tuple[str, ...]


ANYBODY = PatientProfile(50, 0.5, SITES)
PROFILES = {
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

    The table has the columns age (float64 years in steps of five, NaN if unknown), sex and site
    (str, empty if unknown).
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
    profile = PROFILES.get(normalise_class_name(label), ANYBODY)
    age = float(np.clip(5 * np.round(rng.normal(profile.age, AGE_SPREAD) / 5), 5, 85))
    sex = "male" if rng.random() < profile.men else "female"
    site = str(rng.choice(SITES if rng.random() < ANYWHERE else profile.sites))
    unknown = rng.random(3) < MISSING
    return (
        np.nan if unknown[0] else age,
        "" if unknown[1] else sex,
        "" if unknown[2] else site,
    )
