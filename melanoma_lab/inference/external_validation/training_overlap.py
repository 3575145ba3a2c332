"""Find images of a dataset that overlap with those of a network's training.

There are six kinds of match, most certain first. The role of a matched image also applies to its
whole group: photographs of one lesion or patient, and copies of one photograph, transitively.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from melanoma_lab.config.schema.data import GroupingRule
from melanoma_lab.data.split import TEST, TRAIN, VAL, group_images
from melanoma_lab.inference.known_images import NEW, ROLES, parse_archive_id

IDENTICAL: Final = "identical file"
ARCHIVE: Final = "same archive id"
NEAR: Final = "near-identical image"
LESION: Final = "same lesion"
PATIENT: Final = "same patient"
GROUP: Final = "same group as one of these"
#: Kinds of match between two images, most certain first.
MATCH_KINDS: Final = (IDENTICAL, ARCHIVE, NEAR, LESION, PATIENT, GROUP)
LINK_COLUMNS: Final = ("image_id", "other", "role", "kind", "score")


@dataclass(frozen=True)
class ImageRoles:
    """The role of each of n images in a network's training.

    Attributes:
        role: object, shape (n,), each one of ``ROLES``. The role ``test`` means that the lesion is
            in the network's own test split: it was never seen, but has the same source.
        kind: object, shape (n,), each one of ``MATCH_KINDS``, from which the role is known; empty
            if the image is new.
        links: table with ``LINK_COLUMNS`` and a row for each image and kind of match, except
            ``GROUP``: the image of the network's dataset, its role, and the similarity of two
            near-identical images.
    """

    role: np.ndarray[Any, np.dtype[np.object_]]
    kind: np.ndarray[Any, np.dtype[np.object_]]
    links: pd.DataFrame

    @property
    def seen(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Whether each image overlaps with the network's train or val split; bool, shape (n,)."""
        return np.isin(self.role.astype(str), [TRAIN, VAL])

    @property
    def splits(self) -> np.ndarray[Any, np.dtype[np.object_]]:
        """Split of each image in the evaluation: ``test`` if it is new, else its role; (n,)."""
        return np.where(self.role == NEW, TEST, self.role)

    def of(self, positions: np.ndarray[Any, np.dtype[np.int64]]) -> ImageRoles:
        """Return the roles of the images with these indices, int64."""
        return ImageRoles(self.role[positions], self.kind[positions], self.links)

    def counts(self) -> dict[str, int]:
        """Return the number of seen images by kind of match, most certain first."""
        counts = pd.Series(self.kind[self.seen]).value_counts()
        return {kind: int(counts[kind]) for kind in MATCH_KINDS if kind in counts}


def assign_image_roles(
    manifest: pd.DataFrame,
    known: pd.DataFrame,
    pairs: Sequence[Sequence[Any]],
    *,
    lesions: bool = True,
) -> ImageRoles:
    """Compare a dataset with the images of a network's training and assign each its role.

    Args:
        manifest: table of the images, with the columns image_id, digest, lesion, patient and
            photograph.
        known: table of the network's images, with image_id, digest, lesion, patient and split.
        pairs: near-identical images: digest in the manifest, digest in ``known``, score, kind.
        lesions: whether equal names of lesions mean one lesion, and of patients one patient.
    """
    links = _find_links(manifest, known, pairs, lesions=lesions)
    rank = links["role"].map(ROLES.index)
    direct = links.assign(rank=rank).sort_values("rank", kind="stable")
    direct = direct.drop_duplicates("image_id").set_index("image_id")
    own = direct["rank"].reindex(manifest["image_id"]).fillna(ROLES.index(NEW)).to_numpy(int)
    group = pd.Series(group_images(manifest, GroupingRule.all))
    least = pd.Series(own).groupby(group.to_numpy()).transform("min").to_numpy()
    kind = direct["kind"].reindex(manifest["image_id"]).fillna("").to_numpy(object)
    kind = np.where(least < own, GROUP, kind)
    return ImageRoles(np.array(ROLES, object)[least], kind, links)


def _find_links(
    manifest: pd.DataFrame, known: pd.DataFrame, pairs: Sequence[Sequence[Any]], *, lesions: bool
) -> pd.DataFrame:
    """Return one match for each image and kind; of several, the first one in order of ``ROLES``."""
    tables = [
        _match_equal(manifest, known, manifest["digest"], known["digest"], IDENTICAL),
        _match_equal(
            manifest, known, _parse_archive_ids(manifest), _parse_archive_ids(known), ARCHIVE
        ),
        _match_near_identical(manifest, known, pairs),
    ]
    if lesions:
        tables.append(_match_equal(manifest, known, manifest["lesion"], known["lesion"], LESION))
        tables.append(_match_equal(manifest, known, manifest["patient"], known["patient"], PATIENT))
    table = pd.concat(tables, ignore_index=True)
    by = table["role"].map(ROLES.index), table["kind"].map(MATCH_KINDS.index)
    table = table.assign(role_rank=by[0], kind_rank=by[1])
    table = table.sort_values(["image_id", "kind_rank", "role_rank", "other"])
    return table.drop_duplicates(["image_id", "kind"])[list(LINK_COLUMNS)].reset_index(drop=True)


def _match_equal(
    manifest: pd.DataFrame,
    known: pd.DataFrame,
    left_values: pd.Series,
    right_values: pd.Series,
    kind: str,
) -> pd.DataFrame:
    """Return matches of images with equal values that are not empty."""
    left = pd.DataFrame({"image_id": manifest["image_id"], "value": left_values})
    right = pd.DataFrame(
        {"other": known["image_id"], "role": known["split"], "value": right_values}
    )
    right = right[right["value"] != ""].assign(rank=right["role"].map(ROLES.index))
    right = right.sort_values(["rank", "other"]).drop_duplicates("value")
    joined = left.merge(right, on="value")
    return joined.assign(kind=kind, score=np.nan)[list(LINK_COLUMNS)]


def _match_near_identical(
    manifest: pd.DataFrame, known: pd.DataFrame, pairs: Sequence[Sequence[Any]]
) -> pd.DataFrame:
    """Return matches of near-identical images whose files differ."""
    table = pd.DataFrame(
        [(a, b, score) for a, b, score, _ in pairs], columns=["mine", "theirs", "score"]
    ).astype({"mine": object, "theirs": object, "score": float})
    table = table[table["mine"] != table["theirs"]]  # identical files have a match of their own
    left = manifest[["image_id", "digest"]].rename(columns={"digest": "mine"})
    right = known[["image_id", "split", "digest"]].rename(
        columns={"image_id": "other", "split": "role", "digest": "theirs"}
    )
    return (
        table.merge(left, on="mine").merge(right, on="theirs").assign(kind=NEAR)[list(LINK_COLUMNS)]
    )


def _parse_archive_ids(table: pd.DataFrame) -> pd.Series:
    """Return the photographs' ids in the ISIC archive, from file names; empty if there is none."""
    ids = [parse_archive_id(image_id) for image_id in table["image_id"]]
    return pd.Series(ids, index=table.index, dtype=object)
