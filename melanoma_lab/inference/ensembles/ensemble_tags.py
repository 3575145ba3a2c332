"""What an ensemble is, as its tags, parameters and figures tell: what its members agree on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pandas as pd

from melanoma_lab import tracking
from melanoma_lab.core.checksums import hash_text
from melanoma_lab.core.version import __version__
from melanoma_lab.inference.ensembles.members import EnsembleMember
from melanoma_lab.input_pipeline.prepare import compute_split_hash
from melanoma_lab.tracking.arm_runs import FOLDS_TAG, SEEDS_TAG

#: Tags that an ensemble has where all members have the same.
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
#: Protocols, from the one whose figures say least.
_WORST_FIRST = ("leaking", "", "unknown", "ungrouped", "grouped")
#: What members cost together.
COSTS = ("parameters", "trainable_parameters", "fit_seconds", "optimizer_steps")


def fingerprint_members(members: Sequence[EnsembleMember]) -> str:
    """A hash that two ensembles share exactly where their members computed the same."""
    computed = [member.tags.get("fingerprint", member.run_id) for member in members]
    text = json.dumps(["ensemble", sorted(computed)])
    return hash_text(text, 16)


def name_ensemble(members: Sequence[EnsembleMember]) -> str:
    """The arm that an ensemble of these runs belongs to."""
    return f"{members[0].key.arm},ensemble={len(members)}"


def build_ensemble_tags(members: Sequence[EnsembleMember], table: pd.DataFrame) -> dict[str, str]:
    """What an ensemble is searched, grouped and compared by.

    Args:
        members: its members.
        table: its predictions.
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
        "git_commit": tracking.git_commit(),
        "melanoma_lab": __version__,
    }


def build_ensemble_config(
    members: Sequence[EnsembleMember], configs: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """The configuration of an ensemble: what its members' have in common, and who they are.

    Args:
        members: its members.
        configs: the resolved configuration of each.
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
    """The keys of nested dictionaries that all have with the same value."""
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
    """What the members cost together, of ``COSTS`` what all have recorded."""
    return {
        name: float(sum(member.metrics[name] for member in members))
        for name in COSTS
        if all(name in member.metrics for member in members)
    }


def list_seeds(members: Sequence[EnsembleMember]) -> list[int]:
    """The members' seeds, in order."""
    return sorted({member.key.seed for member in members})


def list_folds(members: Sequence[EnsembleMember]) -> list[int]:
    """The members' folds, in order."""
    return sorted({member.key.fold for member in members})
