"""Identity of an ensemble: its tags, configuration and costs, computed from its members."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pandas as pd

from melanoma_lab.core.checksums import hash_text
from melanoma_lab.core.version import __version__
from melanoma_lab.inference.ensembles.members import EnsembleMember
from melanoma_lab.input_pipeline.prepare import compute_split_hash
from melanoma_lab.tracking.arm_runs import FOLDS_TAG, SEEDS_TAG
from melanoma_lab.tracking.provenance import git_commit

#: Tags that an ensemble inherits if they are equal for all members.
INHERITED = (
    "study",
    "experiment",
    "dataset",
    "dataset_digest",
    "grouped_by",
    "metadata_digest",
    "audit_digest",
    "source_tells_class",
    "notes",
    "threads",
    "precision",
    "device",
    "trivial",
    "weights_sha256",
)
#: Protocols, from the one whose metrics are least trustworthy.
_WORST_FIRST = ("leaking", "", "unknown", "ungrouped", "grouped")
#: Metrics of cost that are added up over members.
COSTS = ("parameters", "trainable_parameters", "fit_seconds", "optimizer_steps")


def fingerprint_members(members: Sequence[EnsembleMember]) -> str:
    """Return a hash that is equal for two ensembles if and only if their members' are equal."""
    fingerprints = [member.tags.get("fingerprint", member.run_id) for member in members]
    text = json.dumps(["ensemble", sorted(fingerprints)])
    return hash_text(text, 16)


def name_ensemble(members: Sequence[EnsembleMember]) -> str:
    """Return the arm that an ensemble of these runs belongs to."""
    return f"{members[0].key.arm},ensemble={len(members)}"


def build_ensemble_tags(members: Sequence[EnsembleMember], table: pd.DataFrame) -> dict[str, str]:
    """Return the tags by which an ensemble is searched, grouped and compared.

    Args:
        members: the ensemble's members.
        table: the table of the ensemble's predictions.
    """
    seeds, folds = list_seeds(members), list_folds(members)
    hashes = {member.tags.get("split_hash", "") for member in members}
    protocols = {member.tags.get("protocol", "") for member in members}
    inherited = {
        tag: members[0].tags[tag]
        for tag in INHERITED
        if len({member.tags.get(tag) for member in members}) == 1 and tag in members[0].tags
    }
    return {
        **inherited,
        "arm": name_ensemble(members),
        "reference": members[0].key.arm,
        "seed": str(seeds[0]),
        "fold": str(folds[0]),
        SEEDS_TAG: ",".join(map(str, seeds)),
        FOLDS_TAG: ",".join(map(str, folds)),
        "fingerprint": fingerprint_members(members),
        "split_hash": hashes.pop() if len(hashes) == 1 else compute_split_hash(table),
        "protocol": min(protocols, key=_WORST_FIRST.index),
        "git_commit": git_commit(),
        "melanoma_lab": __version__,
    }


def build_ensemble_config(
    members: Sequence[EnsembleMember], configs: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Return the configuration of an ensemble: the members' common values, and the members.

    Args:
        members: the ensemble's members.
        configs: the resolved configuration of each member.
    """
    return {
        **intersect_configs(configs),
        "ensemble": {
            "members": [member.run_id for member in members],
            "seeds": list_seeds(members),
            "folds": list_folds(members),
        },
    }


def intersect_configs(configs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the keys of nested dictionaries whose values are equal in all of them."""
    first, *others = configs
    shared: dict[str, Any] = {}
    for key, value in first.items():
        if not all(key in other for other in others):
            continue
        values = [other[key] for other in others]
        if isinstance(value, dict) and all(isinstance(other, dict) for other in values):
            shared[key] = intersect_configs([value, *values])
        elif all(other == value for other in values):
            shared[key] = value
    return shared


def sum_costs(members: Sequence[EnsembleMember]) -> dict[str, float]:
    """Return the members' total costs, for each of ``COSTS`` that all members have recorded."""
    return {
        name: float(sum(member.metrics[name] for member in members))
        for name in COSTS
        if all(name in member.metrics for member in members)
    }


def list_seeds(members: Sequence[EnsembleMember]) -> list[int]:
    """Return the members' seeds, sorted."""
    return sorted({member.key.seed for member in members})


def list_folds(members: Sequence[EnsembleMember]) -> list[int]:
    """Return the members' folds, sorted."""
    return sorted({member.key.fold for member in members})
