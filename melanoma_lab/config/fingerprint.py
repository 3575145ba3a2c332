"""The fingerprint of a run: a hash of its resolved configuration and its data."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from enum import Enum
from typing import Any

from melanoma_lab.config.compatibility import TASKS_OF_KEY
from melanoma_lab.config.schema import Config
from melanoma_lab.config.schema.evaluation import EVALUATE_KEYS
from melanoma_lab.config.schema.tracking import mask_password
from melanoma_lab.core.files import hash_text

#: Keys that do not affect what is computed: study, paths, recording, threads, resuming.
IGNORED_KEYS = (
    "task",
    "study",
    "reference",
    "metric",
    "cache",
    "tracking",
    "dataset.root",
    "dataset.outside_root",
    "training.threads",
    "training.resume",
    *(f"evaluation.{key}" for key in EVALUATE_KEYS),
    *(key for key in TASKS_OF_KEY if key != "demo"),
)


def config_to_dict(config: Config) -> dict[str, Any]:
    """Convert a run's configuration to plain containers: strings, numbers, lists, dictionaries.

    ``tuner`` and ``demo`` are left out, because they do not affect training. A password in
    ``tracking.uri`` is masked.
    """
    plain = _to_dict(config)
    del plain["tuner"], plain["demo"]
    plain["tracking"]["uri"] = mask_password(config.tracking.uri)  # it is saved with the run
    return plain


def tuner_to_dict(config: Config) -> dict[str, Any]:
    """Convert the group ``tuner``, which ``config_to_dict`` leaves out, to plain containers."""
    return _to_dict(config.tuner)


def _to_dict(node: Any) -> dict[str, Any]:
    return dict(
        dataclasses.asdict(
            node,
            dict_factory=lambda items: {k: v.value if isinstance(v, Enum) else v for k, v in items},
        )
    )


def compute_fingerprint(
    config: Config,
    *,
    dataset_digest: str,
    split_hash: str,
    splits: Sequence[str] | None = None,
    weights: str | None = None,
    patients: str | None = None,
) -> str:
    """Compute a short hash that two runs share if and only if they compute the same.

    Args:
        config: the whole configuration; ``IGNORED_KEYS``, ``tuner`` and ``demo`` do not count.
        splits: splits that the run is evaluated on; None: all.
        weights: SHA-256 of the file of weights that training starts from, which replaces its
            path; None if there is no such file.
        patients: digest of the patient metadata; None if the run does not use them.

    Returns:
        16 hexadecimal digits.
    """
    plain = config_to_dict(config)
    for key in IGNORED_KEYS:
        section, _, name = key.rpartition(".")
        del (plain[section] if section else plain)[name]
    if weights is not None:
        plain["architecture"]["weights"] = weights
    measured = [] if splits is None else [list(splits)]
    known = [] if patients is None else [{"patients": patients}]
    text = json.dumps([plain, dataset_digest, split_hash, *measured, *known], sort_keys=True)
    return hash_text(text, 16)
