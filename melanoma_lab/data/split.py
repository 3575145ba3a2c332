"""Group the images that a split must never separate, and divide them into train, val and test.

Whole groups are allocated, class by class, in an order that depends only on the groups' names and
``split.seed``; the order of the files does not matter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melanoma_lab.config.overrides import format_override
from melanoma_lab.config.schema.data import (
    CrossVal,
    FoldSplit,
    GroupingRule,
    Holdout,
    KFold,
    OnLeakingTest,
    Predefined,
    Split,
    Undivided,
)
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.formatting import format_list

TRAIN, VAL, TEST = "train", "val", "test"
SPLITS = (TRAIN, VAL, TEST)

#: Value of ``dataset.groups`` -> columns of the manifest whose equal values join images. Identical
#: files, files with identical pixels and near-duplicates have the same ``photograph``.
GROUPING_COLUMNS = {
    GroupingRule.all: ("lesion", "patient", "photograph"),
    GroupingRule.lesion: ("lesion", "patient"),
    GroupingRule.duplicates: ("photograph",),
    GroupingRule.none: (),
}


def assign_photographs(digests: Sequence[str], pairs: pd.DataFrame) -> NDArray[np.object_]:
    """Give all copies of one photograph the same name: the smallest digest among them.

    Args:
        digests: n digests of the files' bytes; files with equal digests are copies.
        pairs: table with the columns first and second: digests of two copies of one photograph.
    """
    distinct = np.array(sorted(set(digests)), dtype=object)
    position = {digest: i for i, digest in enumerate(distinct)}
    known = [
        (position[a], position[b])
        for a, b in zip(pairs["first"], pairs["second"], strict=True)
        if a in position and b in position
    ]
    row, column = np.array(known, dtype=np.int64).reshape(-1, 2).T
    component = _find_components(row, column, len(distinct))
    # `distinct` is sorted, so the first digest of a component is its smallest.
    _, first = np.unique(component, return_index=True)
    name = dict(zip(distinct, distinct[first[component]], strict=True))
    return np.array([name[digest] for digest in digests], dtype=object)


def group_images(manifest: pd.DataFrame, groups: GroupingRule) -> NDArray[np.object_]:
    """Return the group of every image: images that share a lesion, patient or photograph.

    Groups are connected components: images that share a value in one of these columns are joined,
    transitively. Empty values join nothing. A group is named after the first of its image_ids in
    alphabetical order, so that its name does not depend on the order of the rows.
    """
    image_ids = manifest["image_id"].to_numpy()
    n = len(image_ids)
    images: list[NDArray[np.int64]] = []
    hubs: list[NDArray[np.int64]] = []
    first_hub = n
    for name in GROUPING_COLUMNS[groups]:
        link = manifest[name].to_numpy()
        known = np.flatnonzero(link != "")
        values, hub = np.unique(link[known].astype(str), return_inverse=True)
        images.append(known)
        hubs.append(first_hub + hub)
        first_hub += len(values)
    row = np.concatenate([np.empty(0, np.int64), *images])
    column = np.concatenate([np.empty(0, np.int64), *hubs])
    component = _find_components(row, column, first_hub)
    return (
        pd.Series(image_ids).groupby(component[:n]).transform("min").to_numpy(dtype=object)
        if n
        else np.empty(0, dtype=object)
    )


def _find_components(
    row: NDArray[np.int64], column: NDArray[np.int64], n_nodes: int
) -> NDArray[np.int32]:
    """Return the number of each node's connected component; int32, shape (n_nodes,)."""
    from scipy.sparse import coo_array  # imported here because they are slow to import
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(row)), (row, column)), shape=(n_nodes, n_nodes))
    component: NDArray[np.int32] = connected_components(graph, directed=False)[1]
    return component


class TooFewGroupsError(ValueError):
    """Some classes have fewer groups than there are parts.

    Attributes:
        groups: class with too few groups -> its number of groups.
        parts: number of parts, each of which needs a group of every class.
    """

    def __init__(self, groups: Mapping[str, int], parts: int) -> None:
        super().__init__(f"Expected at least {parts} groups of each class. Received {groups}.")
        self.groups, self.parts = dict(groups), parts


def split_images(manifest: pd.DataFrame, split: Split) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Allocate every image of a manifest to train, val or test.

    Args:
        manifest: table with the columns image_id, label, group and published.

    Returns:
        The manifest with a column split (``train``, ``val``, ``test``), and notes on images that
        were left out, a sentence each.

    Raises:
        UserError: a class has too few groups, there is no published split, or the published one
            separates images of one group.
    """
    try:
        if isinstance(split, Holdout):
            fractions = (split.train, split.val, split.test)
            part = _allocate(manifest, fractions, f"{split.seed}")
            return manifest.assign(split=np.array(SPLITS, dtype=object)[part]), ()
        if isinstance(split, KFold):
            fold = _allocate(manifest, (1 / split.k,) * split.k, f"{split.seed}")
            return _cut_val(manifest, fold == split.fold, split.val, f"{split.seed}"), ()
        if isinstance(split, CrossVal):
            return _rotate_val(manifest, split), ()
        if isinstance(split, Predefined):
            return _predefined(manifest, split)
        if isinstance(split, Undivided):
            return _undivided(manifest, split), ()
    except TooFewGroupsError as error:
        raise UserError(_explain_too_few(error, split, list(manifest["label"]))) from error
    raise TypeError(f"Expected a known split. Received {type(split).__name__}.")


def _explain_too_few(error: TooFewGroupsError, split: Split, labels: Sequence[str]) -> str:
    """Describe the classes that are too small for a split, and suggest what to do."""
    fewest = min(error.groups.values())
    remedy = (
        f"Set split.k={fewest}"
        if isinstance(split, FoldSplit) and error.parts == split.k and 2 < fewest < split.k
        else "Add images of other lesions"
    )
    small = format_list([f"{name} ({n})" for name, n in error.groups.items()], 10)
    left = sorted(set(labels) - error.groups.keys())
    classes = format_override("dataset.classes", left)
    text = (
        f"split={split.name}: too few groups (of images that belong together; {error.parts} are "
        f"needed, one for each part of the split) in {len(error.groups)} of {len(set(labels))} "
        f"classes: {small}. {remedy}"
    )
    return f"{text}, or leave them out: {classes}" if len(left) > 1 else f"{text}."


def allocate_groups(
    groups: NDArray[np.object_],
    labels: NDArray[np.object_],
    fractions: Sequence[float],
    seed: str,
) -> NDArray[np.int64]:
    """Allocate whole groups to parts so that every class is divided in the same proportions.

    A class's groups are taken in a pseudo-random order; each goes to the part that lacks most
    images of the class (if several lack equally many, to the one that lacks most images of all
    classes). A group with images of several classes counts for its most frequent class.

    Args:
        groups: group of each image, str, shape (n,).
        labels: class of each image, str, shape (n,).
        fractions: share of each part; the sum is 1.
        seed: text that determines the order, together with the groups' names.

    Returns:
        int64, shape (n,); index of each image's part. Every part has images of every class. Within
        a class, a part's size differs from its share by less than the largest group's size, unless
        the class has hardly more groups than there are parts.

    Raises:
        TooFewGroupsError: classes have fewer groups than there are parts; it names all of them.
    """
    table = pd.DataFrame({"group": groups, "label": labels})
    size = table.groupby("group").size()
    rarity = table["label"].value_counts()
    # The most frequent label of each group; of equally frequent labels the one that is rarer in
    # the dataset, then the first by name.
    counts = table.groupby(["group", "label"]).size().rename("n").reset_index()
    counts["rarity"] = counts["label"].map(rarity)
    counts = counts.sort_values(
        ["group", "n", "rarity", "label"], ascending=[True, False, True, True]
    )
    label_of = counts.drop_duplicates("group").set_index("group")["label"]

    n_groups = {label: int((label_of == label).sum()) for label in sorted(set(labels))}
    too_few = {label: n for label, n in n_groups.items() if n < len(fractions)}
    if too_few:
        raise TooFewGroupsError(too_few, len(fractions))
    part_of: dict[str, int] = {}
    lacking_in_all = np.asarray(fractions) * len(table)
    for label in n_groups:
        names = sorted(label_of.index[label_of == label], key=lambda name: _sort_key(seed, name))
        sizes = [int(size[name]) for name in names]
        parts = _allocate_class(sizes, fractions, lacking_in_all)
        part_of.update(zip(names, parts, strict=True))
    return np.array([part_of[group] for group in groups], dtype=np.int64)


def _allocate_class(
    sizes: Sequence[int], fractions: Sequence[float], lacking_in_all: NDArray[np.float64]
) -> list[int]:
    """Allocate the groups of one class, of these sizes, to parts.

    ``lacking_in_all``, the number of images of all classes that each part still lacks, is updated.
    """
    n_parts = len(fractions)
    for reserve in (False, True):
        lacking = np.asarray(fractions) * sum(sizes)
        in_all = lacking_in_all.copy()
        parts: list[int] = []
        for i, group_size in enumerate(sizes):
            empty = [part for part in range(n_parts) if part not in parts]
            # Second try: reserve the last groups for parts that would stay empty.
            must = reserve and len(sizes) - i <= len(empty)
            candidates = empty if must else range(n_parts)
            part = max(
                candidates, key=lambda p: (round(float(lacking[p]), 9), float(in_all[p]), -p)
            )
            parts.append(part)
            lacking[part] -= group_size
            in_all[part] -= group_size
        if len(set(parts)) == n_parts:
            break
    lacking_in_all[:] = in_all
    return parts


def _sort_key(seed: str, group: str) -> bytes:
    """Return a pseudo-random sort key that depends only on the seed and the group's name."""
    return hashlib.blake2b(f"{seed}\0{group}".encode(), digest_size=16).digest()


def _allocate(manifest: pd.DataFrame, fractions: Sequence[float], seed: str) -> NDArray[np.int64]:
    return allocate_groups(
        manifest["group"].to_numpy(dtype=object),
        manifest["label"].to_numpy(dtype=object),
        fractions,
        seed,
    )


def _cut_val(
    manifest: pd.DataFrame, is_test: NDArray[np.bool_], fraction: float, seed: str
) -> pd.DataFrame:
    """Divide the images that are not test images into train and val."""
    splits = np.full(len(manifest), TEST, dtype=object)
    rest = manifest.loc[~is_test]
    val = _allocate(rest, (1 - fraction, fraction), f"{seed}/val") == 1
    splits[~is_test] = np.where(val, VAL, TRAIN)
    return manifest.assign(split=splits)


def _rotate_val(manifest: pd.DataFrame, split: CrossVal) -> pd.DataFrame:
    """Hold out the test split as ``Holdout`` does, and use one fold of the rest as val split."""
    default = Holdout()
    rest = 1 - split.test
    train = rest * default.train / (default.train + default.val)
    fractions = (train, rest - train, split.test)
    is_test = _allocate(manifest, fractions, f"{split.seed}") == SPLITS.index(TEST)
    splits = np.full(len(manifest), TEST, dtype=object)
    fold = _allocate(manifest.loc[~is_test], (1 / split.k,) * split.k, f"{split.seed}/val")
    splits[~is_test] = np.where(fold == split.fold, VAL, TRAIN)
    return manifest.assign(split=splits)


def _predefined(manifest: pd.DataFrame, split: Predefined) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Use the published parts; take val from Train if none was published."""
    published = manifest["published"]
    if not ((published == TRAIN).any() and (published == TEST).any()):
        raise UserError(
            "split=predefined: this dataset was published without a division into Train and "
            "Test; use split=holdout or split=kfold."
        )
    manifest = manifest.loc[published != ""].reset_index(drop=True)
    is_test = manifest["published"] == TEST
    in_both = set(manifest.loc[is_test, "group"]) & set(manifest.loc[~is_test, "group"])
    leaking = is_test & manifest["group"].isin(in_both)
    notes: tuple[str, ...] = ()
    if leaking.any():
        what = (
            f"{leaking.sum()} of {is_test.sum()} published test images belong together "
            "with training images (one lesion, or copies of one photograph)"
        )
        if split.leaking_test is OnLeakingTest.error:
            raise UserError(
                f"split=predefined: {what}. Choose: split=holdout or split=kfold (regroup), "
                "split.leaking_test=drop (leave those test images out), or dataset.groups=none "
                "(as published; the run's protocol is then 'leaking')."
            )
        manifest = manifest.loc[~leaking].reset_index(drop=True)
        notes = (f"{what}; they were left out.",)
    if (manifest["published"] == VAL).any():
        return manifest.assign(split=manifest["published"]), notes
    test = (manifest["published"] == TEST).to_numpy()
    return _cut_val(manifest, test, split.val, f"{split.seed}"), notes


def _undivided(manifest: pd.DataFrame, split: Undivided) -> pd.DataFrame:
    """Make all images, or all of the published Test, test images."""
    if split.published:
        manifest = manifest.loc[manifest["published"] == TEST].reset_index(drop=True)
        if manifest.empty:
            raise UserError(
                "split=predefined: this dataset was published without a test split; leave the "
                "option out."
            )
    return manifest.assign(split=TEST)
