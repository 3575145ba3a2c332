"""Tracking: one MLflow run for each training, even if the training or the server fails."""

from __future__ import annotations

from melanoma_lab.tracking.client import connect_for_reading
from melanoma_lab.tracking.provenance import flatten_params, git_commit
from melanoma_lab.tracking.relocation import identify_study
from melanoma_lab.tracking.tracker import FinishedRun, Tracker, connect

__all__ = [
    "FinishedRun",
    "Tracker",
    "connect",
    "connect_for_reading",
    "flatten_params",
    "git_commit",
    "identify_study",
]
