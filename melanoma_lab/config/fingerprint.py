"""What makes two runs the same: their resolved configuration and their data."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Sequence
from enum import Enum
from typing import Any

from melanoma_lab.config.schema import Config
from melanoma_lab.config.schema.evaluation import EVALUATE_KEYS
from melanoma_lab.config.schema.tracking import mask_password
from melanoma_lab.core.checksums import hash_text

#: Which question, where, how recorded, on how many threads, in how many goes: not what is computed.
IGNORED_KEYS = (
    "task",
    "study",
    "reference",
    "metric",
    "cache",
    "output",
    "against",
    "arm",
    "members",
    "model",
    "images",
    "grad_cam",
    "formats",
    "tracking",
    "audit",
    "dataset.root",
    "dataset.outside_root",
    "training.threads",
    "training.resume",
    *(f"evaluation.{key}" for key in EVALUATE_KEYS),
)
#: Keys and groups that came later -> what they were before; there they do not count, so that runs
#: of then and now are known to be the same.
ADDED = {
    "training.stop_after": None,
    "optimizer.ema": None,
    "evaluation.test": True,
    "evaluation.sensitivity": 0.9,
    "evaluation": {"tta": "none"},
    "finetuning": {"name": "none"},
    "metadata": {"name": "none"},
    "dataset.resize": "squash",
    "dataset.columns.age": None,
    "dataset.columns.sex": None,
    "dataset.columns.site": None,
}


def config_to_dict(config: Config) -> dict[str, Any]:
    """The configuration of a run as plain containers: strings, numbers, lists, dictionaries.

    What searches for values (``tuner``) and what shows them (``demo``) is none of a run's.
    """
    plain = _to_dict(config)
    del plain["tuner"], plain["demo"]
    plain["tracking"]["uri"] = mask_password(config.tracking.uri)  # it is kept with the run
    return plain


def tuner_to_dict(config: Config) -> dict[str, Any]:
    """What ``config_to_dict`` leaves out: how values are searched for, as plain containers."""
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
    """A short hash that two runs share exactly where they compute the same.

    Args:
        config: the whole configuration; paths, tracking and threads do not count.
        dataset_digest: of the images and their labels.
        split_hash: of which image is in which split.
        splits: those that the run is measured on; None: all.
        weights: SHA-256 of the file of weights that training starts from, wherever it lies; None
            where there is none.
        patients: digest of what is known of them; None where it does not count.
    """
    plain = config_to_dict(config)
    for key in IGNORED_KEYS:
        section, _, name = key.rpartition(".")
        del (plain[section] if section else plain)[name]
    for key, value in ADDED.items():
        *sections, name = key.split(".")
        holder = functools.reduce(lambda outer, section: outer.get(section, {}), sections, plain)
        if name in holder and holder[name] == value:
            del holder[name]
    if weights is not None:
        plain["architecture"]["weights"] = weights
    measured = [] if splits is None else [list(splits)]
    known = [] if patients is None else [{"patients": patients}]
    text = json.dumps([plain, dataset_digest, split_hash, *measured, *known], sort_keys=True)
    return hash_text(text, 16)
