"""Groups: images that a split must never separate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from melanoma_lab.config.schema.data import GroupingRule

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

    Returns:
        str, shape (n,); the smallest digest of each connected component.
    """
    distinct = np.array(sorted(set(digests)), dtype=object)
    position = {digest: i for i, digest in enumerate(distinct)}
    known = [
        (position[a], position[b])
        for a, b in zip(pairs["first"], pairs["second"], strict=True)
        if a in position and b in position
    ]
    row, column = np.array(known, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(row)), (row, column)), shape=(len(distinct), len(distinct)))
    _, component = connected_components(graph, directed=False)
    # `distinct` is sorted, so the first digest of a component is its smallest.
    _, first = np.unique(component, return_index=True)
    name = dict(zip(distinct, distinct[first[component]], strict=True))
    return np.array([name[digest] for digest in digests], dtype=object)


def group_images(manifest: pd.DataFrame, groups: GroupingRule) -> NDArray[np.object_]:
    """Return the group of every image: images that share a lesion, patient or photograph.

    Groups are connected components: images that share a value in a column are joined, transitively.
    Empty values join nothing.

    Args:
        manifest: table with the columns image_id, lesion, patient and photograph.
        groups: the rule that says which of these columns join images.

    Returns:
        str, shape (n,); a group is named after the first of its image_ids in alphabetical order,
        so that its name does not depend on the order of the rows.
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
    graph = coo_array((np.ones(len(row)), (row, column)), shape=(first_hub, first_hub))
    _, component = connected_components(graph, directed=False)
    return (
        pd.Series(image_ids).groupby(component[:n]).transform("min").to_numpy(dtype=object)
        if n
        else np.empty(0, dtype=object)
    )
