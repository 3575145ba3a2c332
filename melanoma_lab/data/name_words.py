"""Split names of columns, folders and files into words, whatever their spelling."""

from __future__ import annotations

import re
import unicodedata


def split_words(name: str) -> list[str]:
    """Return the words of a column's, folder's or file's name, in lower case without accents.

    Args:
        name: a name such as ``PatientID_2``, ``IDPatient``, ``imgs_part1``, ``Läsion-Nr.``.

    Returns:
        Words and numbers, for these: patient, id, 2; id, patient; imgs, part, 1; lasion, nr.
    """
    plain = unicodedata.normalize("NFKD", name)
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", plain)
    return re.findall(r"[^\W\d_]+|\d+", spaced.lower())
