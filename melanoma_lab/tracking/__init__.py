"""Tracking: one MLflow run for each training, whatever becomes of it or of the tracking server."""

from __future__ import annotations

from melanoma_lab.tracking.connection import connect_for_reading
from melanoma_lab.tracking.origin import flatten, git_commit
from melanoma_lab.tracking.relocation import identity
from melanoma_lab.tracking.tracker import FinishedRun, Tracker, connect
from melanoma_lab.tracking.uris import absolute

__all__ = [
    "FinishedRun",
    "Tracker",
    "absolute",
    "connect",
    "connect_for_reading",
    "flatten",
    "git_commit",
    "identity",
]
