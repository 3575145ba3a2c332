"""Describe the findings of an audit that a training run does not resolve, in one line."""

from __future__ import annotations

from melanoma_lab.audit.findings import Findings
from melanoma_lab.config.schema.dataset import Dataset, Isic9Dataset, LabelSource, OnConflict
from melanoma_lab.core.shell_commands import format_lab_command


def describe_unresolved(findings: Findings, dataset: Dataset, protocol: str) -> str:
    """Describe the problems found by the audit that a run does not resolve.

    Args:
        findings: findings about the dataset as it was published.
        dataset: the run's configuration of the dataset.
        protocol: ``grouped``, ``ungrouped`` or ``leaking``.

    Returns:
        One line; empty if nothing is unresolved.
    """
    parts = []
    if protocol == "leaking":
        parts.append("images that belong together lie on both sides of the split")
    kept = {
        OnConflict.keep: [*findings.label_conflicts, *findings.near_label_conflicts],
        OnConflict.error: findings.near_label_conflicts,  # identical images are refused
    }
    conflicts = len(kept.get(dataset.conflicts, []))
    if conflicts:
        groups = "1 group" if conflicts == 1 else f"{conflicts} groups"
        choice = f"dataset.conflicts={dataset.conflicts}"
        parts.append(f"{groups} of copies under different labels ({choice})")
    trusts_folder = isinstance(dataset, Isic9Dataset) and dataset.labels is LabelSource.folder
    if findings.metadata_conflicts and trusts_folder:
        parts.append(
            f"{len(findings.metadata_conflicts)} labels against the metadata's diagnosis "
            "(dataset.labels=folder)"
        )
    if not parts:
        return ""
    where = f" dataset.root={dataset.root}" if dataset.root else ""
    see = format_lab_command("audit", f"dataset={dataset.name}{where}")
    return f"Unresolved: {'; '.join(parts)}. See: {see}"
