"""Which images of a dataset show what a network was trained on, chosen by or tested on.

Six ways to know, surest first. An image also shows what its group shows: photographs of one
lesion or patient, and copies of one photograph, transitively.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from melanoma_lab.config.schema.dataset import GroupingRule
from melanoma_lab.data.grouping import group_images
from melanoma_lab.data.split import TEST, TRAIN, VAL
from melanoma_lab.inference.known_images import NEW, ROLES, parse_archive_id

IDENTICAL: Final = "identical file"
ARCHIVE: Final = "same archive id"
NEAR: Final = "near-identical image"
LESION: Final = "same lesion"
PATIENT: Final = "same patient"
GROUP: Final = "same group as one of these"
#: How an image is known to show what another shows, surest first.
MATCH_KINDS: Final = (IDENTICAL, ARCHIVE, NEAR, LESION, PATIENT, GROUP)
LINK_COLUMNS: Final = ("image_id", "other", "role", "kind", "score")


@dataclass(frozen=True)
class ImageRoles:
    """What each of n images has been to a network.

    Attributes:
        role: object, shape (n,): of ``ROLES``; ``test``: of a lesion that the network's own test
            split has, and so never seen, yet of the same source.
        kind: object, shape (n,): of ``MATCH_KINDS``, how that is known; empty where it is new.
        links: ``LINK_COLUMNS``; a row for each image and kind, the group's excepted: the image of
            the network's dataset, its role, and how alike two near-identical images are.
    """

    role: np.ndarray[Any, np.dtype[np.object_]]
    kind: np.ndarray[Any, np.dtype[np.object_]]
    links: pd.DataFrame

    @property
    def seen(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which images the network was fitted to or chosen by; bool, shape (n,)."""
        return np.isin(self.role.astype(str), [TRAIN, VAL])

    @property
    def splits(self) -> np.ndarray[Any, np.dtype[np.object_]]:
        """``test`` where the network has not seen an image, else what it was; object, (n,)."""
        return np.where(self.role == NEW, TEST, self.role)

    def of(self, positions: np.ndarray[Any, np.dtype[np.int64]]) -> ImageRoles:
        """The same of some of the images."""
        return ImageRoles(self.role[positions], self.kind[positions], self.links)

    def counts(self) -> dict[str, int]:
        """Kind -> images that were seen and are known to be by it, surest first."""
        found = pd.Series(self.kind[self.seen]).value_counts()
        return {kind: int(found[kind]) for kind in MATCH_KINDS if kind in found}


def assign_image_roles(
    manifest: pd.DataFrame,
    known: pd.DataFrame,
    pairs: Sequence[Sequence[Any]],
    *,
    lesions: bool = True,
) -> ImageRoles:
    """Compare a dataset with the images that a network knows.

    Args:
        manifest: table with the columns image_id, digest, lesion, patient and photograph.
        known: of the network's dataset: image_id, digest, lesion, patient and split.
        pairs: near-identical images: digest in the manifest, digest in ``known``, score, kind.
        lesions: whether equal names of lesions are one lesion, and of patients one patient.
    """
    links = _links(manifest, known, pairs, lesions=lesions)
    rank = links["role"].map(ROLES.index)
    direct = links.assign(rank=rank).sort_values("rank", kind="stable")
    direct = direct.drop_duplicates("image_id").set_index("image_id")
    own = direct["rank"].reindex(manifest["image_id"]).fillna(ROLES.index(NEW)).to_numpy(int)
    group = pd.Series(group_images(manifest, GroupingRule.all))
    least = pd.Series(own).groupby(group.to_numpy()).transform("min").to_numpy()
    kind = direct["kind"].reindex(manifest["image_id"]).fillna("").to_numpy(object)
    kind = np.where(least < own, GROUP, kind)
    return ImageRoles(np.array(ROLES, object)[least], kind, links)


def _links(
    manifest: pd.DataFrame,
    known: pd.DataFrame,
    pairs: Sequence[Sequence[Any]],
    *,
    lesions: bool,
) -> pd.DataFrame:
    """A row for each image and kind: of several others, what the network was fitted to first."""
    found = [
        _equal(manifest, known, manifest["digest"], known["digest"], IDENTICAL),
        _equal(manifest, known, _archive_ids(manifest), _archive_ids(known), ARCHIVE),
        _near(manifest, known, pairs),
    ]
    if lesions:
        found.append(_equal(manifest, known, manifest["lesion"], known["lesion"], LESION))
        found.append(_equal(manifest, known, manifest["patient"], known["patient"], PATIENT))
    table = pd.concat(found, ignore_index=True)
    by = table["role"].map(ROLES.index), table["kind"].map(MATCH_KINDS.index)
    table = table.assign(role_rank=by[0], kind_rank=by[1])
    table = table.sort_values(["image_id", "kind_rank", "role_rank", "other"])
    return table.drop_duplicates(["image_id", "kind"])[list(LINK_COLUMNS)].reset_index(drop=True)


def _equal(
    manifest: pd.DataFrame, known: pd.DataFrame, mine: pd.Series, theirs: pd.Series, kind: str
) -> pd.DataFrame:
    """Images that share a value, where they have one."""
    left = pd.DataFrame({"image_id": manifest["image_id"], "value": mine})
    right = pd.DataFrame({"other": known["image_id"], "role": known["split"], "value": theirs})
    right = right[right["value"] != ""].assign(rank=right["role"].map(ROLES.index))
    right = right.sort_values(["rank", "other"]).drop_duplicates("value")
    joined = left.merge(right, on="value")
    return joined.assign(kind=kind, score=np.nan)[list(LINK_COLUMNS)]


def _near(
    manifest: pd.DataFrame, known: pd.DataFrame, pairs: Sequence[Sequence[Any]]
) -> pd.DataFrame:
    table = pd.DataFrame(
        [(a, b, score) for a, b, score, _ in pairs], columns=["mine", "theirs", "score"]
    ).astype({"mine": object, "theirs": object, "score": float})
    table = table[table["mine"] != table["theirs"]]  # identical files
    left = manifest[["image_id", "digest"]].rename(columns={"digest": "mine"})
    right = known[["image_id", "split", "digest"]].rename(
        columns={"image_id": "other", "split": "role", "digest": "theirs"}
    )
    return (
        table.merge(left, on="mine").merge(right, on="theirs").assign(kind=NEAR)[list(LINK_COLUMNS)]
    )


def _archive_ids(table: pd.DataFrame) -> pd.Series:
    """The ISIC archive's ids, each of one photograph, by the files' names; empty where none."""
    ids = [parse_archive_id(image_id) for image_id in table["image_id"]]
    return pd.Series(ids, index=table.index, dtype=object)
