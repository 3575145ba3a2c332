"""What makes two runs the same: their resolved configuration and their data."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from enum import Enum
from typing import Any

from melanoma_lab.config.schema import Config

#: Which question, where, how recorded, on how many threads, in how many goes: not what is computed.
INCIDENTAL = (
    "task",
    "study",
    "reference",
    "metric",
    "cache",
    "output",
    "against",
    "tracking",
    "audit",
    "dataset.root",
    "dataset.outside_root",
    "training.threads",
    "training.resume",
)


def resolved(config: Config) -> dict[str, Any]:
    """The whole configuration as plain containers: strings, numbers, lists, dictionaries."""
    plain = dataclasses.asdict(
        config,
        dict_factory=lambda items: {k: v.value if isinstance(v, Enum) else v for k, v in items},
    )
    return dict(plain)


def fingerprint(
    config: Config, *, dataset_digest: str, split_hash: str, weights: str | None = None
) -> str:
    """A short hash that two runs share exactly where they compute the same.

    Args:
        config: the whole configuration; paths, tracking and threads do not count.
        dataset_digest: of the images and their labels.
        split_hash: of which image is in which split.
        weights: SHA-256 of the file of weights that training starts from, wherever it lies; None
            where there is none.
    """
    plain = resolved(config)
    for key in INCIDENTAL:
        section, _, name = key.rpartition(".")
        del (plain[section] if section else plain)[name]
    if weights is not None:
        plain["architecture"]["weights"] = weights
    text = json.dumps([plain, dataset_digest, split_hash], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
