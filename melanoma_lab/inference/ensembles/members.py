"""Choose the finished runs that form an ensemble, and compute its identity from theirs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from melanoma_lab.config.arm import find_arm, shorten_arm_names
from melanoma_lab.core.errors import UserError, get_first_line
from melanoma_lab.core.files import hash_text
from melanoma_lab.core.formatting import format_count, format_list
from melanoma_lab.core.version import __version__, git_commit
from melanoma_lab.evaluation.predictions import Predictions
from melanoma_lab.input_pipeline.prepare import compute_split_hash
from melanoma_lab.tracking.arm_runs import (
    FOLDS_TAG,
    SEEDS_TAG,
    RunKey,
    find_arm_runs,
    load_predictions,
    read_run_key,
)

#: Columns of the predictions table that must be equal for all members.
_EQUAL_COLUMNS = ["image_id", "group", "y_true"]
#: Tags that must be equal for all members, and what a difference means.
_EQUAL_TAGS = {
    "dataset_digest": "saw different images or labels",
    "metadata_digest": "got different metadata of the same patients",
}
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


@dataclass(frozen=True)
class EnsembleMember:
    """A finished run of an arm: its arm, seed and fold, and MLflow's run."""

    key: RunKey
    run: Any

    @property
    def run_id(self) -> str:
        """MLflow's id of the run."""
        return str(self.run.info.run_id)

    @property
    def tags(self) -> Mapping[str, str]:
        """The run's tags in MLflow."""
        tags: Mapping[str, str] = self.run.data.tags
        return tags

    @property
    def metrics(self) -> Mapping[str, float]:
        """The last value of each metric in MLflow, by name."""
        metrics: Mapping[str, float] = self.run.data.metrics
        return metrics

    def __str__(self) -> str:
        return f"{self.key} (run {self.run_id})"


def find_members(client: Any, study: str, arm: str | None) -> list[EnsembleMember]:
    """Return the newest finished run of each seed and fold of an arm, in that order.

    ``arm`` is the full name, or the short one that a comparison shows; None: the study's only arm.

    Raises:
        UserError: the study has no such arm, has several if ``arm`` is None, or has no finished run
            of it; or the arm is an ensemble.
    """
    tracked = find_arm_runs(client, study)
    arms = {read_run_key(run).arm for run in tracked}
    ensembles = {read_run_key(run).arm for run in tracked if SEEDS_TAG in run.data.tags}
    if not arms:
        raise UserError(
            f"study={study}: no arm has been trained in it; evaluations and searches are not "
            "members."
        )
    if arm is not None:
        name = find_arm(arm, arms, key="arm")
    elif len(arms - ensembles) == 1:
        (name,) = arms - ensembles
    else:
        names = sorted(shorten_arm_names(arms)[each] for each in arms - ensembles)
        raise UserError(
            f"arm is not set, and study={study} has several: add arm=... to the command. Valid: "
            f"{' '.join(names)}."
        )
    if name in ensembles:
        raise UserError(
            f"arm={arm}: it is an ensemble itself; name the arm of its members, and set "
            "members=... for another number of members."
        )
    found: dict[tuple[int, int], EnsembleMember] = {}
    for run in tracked:  # newest first
        key = read_run_key(run)
        if key.arm == name and run.info.status == "FINISHED":
            found.setdefault((key.seed, key.fold), EnsembleMember(key, run))
    if not found:
        raise UserError(f"arm={arm or name}: no run of it has finished yet.")
    return [found[pair] for pair in sorted(found)]


def divide_into_ensembles(
    members: Sequence[EnsembleMember], size: int | None
) -> list[list[EnsembleMember]]:
    """Divide runs, in order of seed and fold, into ensembles that have no seed in common.

    ``size`` is the number of seeds of each; None: one ensemble of all. An ensemble has all folds of
    its seeds. The lowest seeds come first; remaining seeds that do not fill an ensemble are left
    out.

    Raises:
        UserError: there are too few runs, or a seed lacks a fold that another has.
    """
    seeds, folds = list_seeds(members), list_folds(members)
    present = {(member.key.seed, member.key.fold) for member in members}
    for seed in seeds:
        lacking = [str(fold) for fold in folds if (seed, fold) not in present]
        if lacking:
            raise UserError(
                f"seed={seed} lacks split.fold={','.join(lacking)}, which other seeds of the arm "
                "have; train it first, so that all folds have equally many members."
            )
    size = size or len(seeds)
    if size > len(seeds):
        raise UserError(
            f"members={size}: the arm has finished runs of {format_count(len(seeds), 'seed')} only "
            f"({', '.join(map(str, seeds))}); train more, "
            "or ask for fewer."
        )
    if size * len(folds) < 2:
        raise UserError(
            "An ensemble takes 2 runs or more: "
            + (
                f"members={size} is a single one; set members=2 or more."
                if len(seeds) > 1
                else "the arm has one that has finished; train other seeds."
            )
        )
    starts = range(0, len(seeds) - size + 1, size)
    return [
        [member for member in members if member.key.seed in seeds[start : start + size]]
        for start in starts
    ]


def load_member_predictions(client: Any, members: Sequence[EnsembleMember]) -> list[Predictions]:
    """Load the predictions of every member of an ensemble, which must be of the same images.

    Raises:
        UserError: a table is missing, or the tables differ in images, groups, labels or classes.
    """
    for tag, what in _EQUAL_TAGS.items():
        digests = {member.tags.get(tag): member for member in reversed(members)}
        if len(digests) > 1:
            one, other = list(digests.values())[:2]
            raise UserError(
                f"{one} and {other} {what} ({tag}): they cannot form an ensemble. Train all "
                "members on the same dataset."
            )
    loaded: list[Predictions] = []
    for member in members:
        try:
            loaded.append(load_predictions(client, member.run))
        except (OSError, ValueError) as error:
            reason = get_first_line(error)
            raise UserError(f"{member} cannot be a member: {reason}") from error
        first, own = loaded[0], loaded[-1]
        if own.slugs != first.slugs:
            raise UserError(
                f"{members[0]} and {member} have different classes, or the same in another order: "
                f"{format_list(first.slugs, 10)}; {format_list(own.slugs, 10)}."
            )
        if not _list_images(own).equals(_list_images(first)):
            if member.key.fold != members[0].key.fold:
                raise UserError(
                    f"{members[0]} and {member} were not measured on the same images: they are "
                    "folds of split=kfold. Train members with other seeds on one fold, or on folds "
                    "of split=cross_val, which have one test split."
                )
            raise UserError(
                f"The predictions of {members[0]} and {member} are not of the same images, groups "
                "and labels, although their dataset is the same: one was edited, or some were left "
                "out."
            )
    return loaded


def _list_images(predictions: Predictions) -> pd.DataFrame:
    """Return the images with their groups and labels, in the order of their ids."""
    return predictions.table[_EQUAL_COLUMNS].sort_values("image_id", ignore_index=True)


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

    ``table`` is that of the ensemble's predictions.
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
    """Return the configuration of an ensemble: the members' common values, and the members."""
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
