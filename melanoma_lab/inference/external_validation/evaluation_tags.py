"""Identity of an evaluation: its tags, parameters and name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from melanoma_lab.config.arm import format_run_name
from melanoma_lab.config.fingerprint import config_to_dict
from melanoma_lab.config.schema import Config
from melanoma_lab.config.schema.evaluation import EVALUATE_KEYS, OnOverlap
from melanoma_lab.config.schema.split import Predefined
from melanoma_lab.core.checksums import hash_file, hash_text
from melanoma_lab.core.version import __version__
from melanoma_lab.data.labels import slugify
from melanoma_lab.inference.external_validation.training_overlap import ImageRoles
from melanoma_lab.inference.known_images import TrainingRun
from melanoma_lab.inference.model_source import ModelSource
from melanoma_lab.input_pipeline.prepare import PreparedData
from melanoma_lab.tracking.arm_runs import EVALUATED_TAG
from melanoma_lab.tracking.provenance import git_commit

#: Tag of the run of an evaluation: the kind of evaluation.
EVALUATION_TAG = "evaluation"
#: Name of a tag in an evaluation by its name in the model's run; with the tags ``arm`` and ``seed``
#: the evaluation would count as a run of that arm.
MODEL_TAGS = {
    "arm": "evaluated_arm",
    "seed": "evaluated_seed",
    "study": "evaluated_study",
    "fingerprint": "evaluated_fingerprint",
    "dataset_digest": "evaluated_dataset_digest",
}


def build_evaluation_tags(
    config: Config,
    source: ModelSource,
    run: TrainingRun,
    data: PreparedData,
    roles: ImageRoles | None,
) -> dict[str, str]:
    """Return the tags by which an evaluation is searched and grouped; it has no arm.

    Args:
        config: the checked configuration.
        source: where the model comes from.
        run: the run that trained the model.
        data: the dataset.
        roles: the role of each image in the model's training; None if that is unknown.
    """
    kept = config.evaluation.overlap is OnOverlap.keep
    return {
        "study": config.study,
        EVALUATION_TAG: "external",
        EVALUATED_TAG: run.run_id or source.typed,
        **{new: run.tags[old] for old, new in MODEL_TAGS.items() if old in run.tags},
        "evaluated_dataset": source.card.dataset if source.card else "",
        "dataset": config.dataset.name,
        "dataset_digest": data.digest,
        "audit_digest": data.findings.digest,
        "fingerprint": _fingerprint(config, source, data),
        "protocol": decide_protocol(roles, data, kept=kept),
        "grouped_by": ", ".join(data.grouped_by),
        "overlap": describe_overlap(roles, kept=kept),
        "notes": " ".join(data.notes),
        "git_commit": git_commit(),
        "melanoma_lab": __version__,
    }


def decide_protocol(roles: ImageRoles | None, data: PreparedData, *, kept: bool) -> str:
    """Return the protocol of an evaluation.

    It is ``leaking`` if seen images are evaluated, ``unknown`` if it is unknown which images were
    seen, and else that of the dataset.
    """
    if roles is None:
        return "unknown"
    return "leaking" if kept and roles.seen.any() else data.protocol


def describe_overlap(roles: ImageRoles | None, *, kept: bool) -> str:
    """Describe in one line how many images were seen, and whether they are kept."""
    if roles is None:
        return "not looked for"
    return f"{roles.seen.sum()} of {len(roles.seen)} images {'kept' if kept else 'left out'}"


def build_evaluation_params(config: Config, matched: Mapping[str, str | None]) -> dict[str, Any]:
    """Return the part of the configuration that an evaluation depends on, as plain containers.

    Args:
        config: the checked configuration.
        matched: class of the model by class of the dataset, None if the class is left out.
    """
    plain = config_to_dict(config)
    return {
        "task": plain["task"],
        "study": plain["study"],
        "model": plain["model"],
        "dataset": plain["dataset"],
        "split": config.split.name if isinstance(config.split, Predefined) else "all",
        "evaluation": {key: plain["evaluation"][key] for key in EVALUATE_KEYS}
        | {"classes": {slugify(name): to for name, to in matched.items()}},
    }


def name_evaluation(tags: Mapping[str, str]) -> str:
    """Return the name of an evaluation in MLflow's list of runs."""
    model = f"model of {tags['evaluated_dataset']}" if tags["evaluated_dataset"] else "model"
    if "evaluated_arm" in tags:
        model = format_run_name(tags["evaluated_arm"], int(tags.get("evaluated_seed", 0)), 0)
    return f"on {tags['dataset']}: {model}"


def _fingerprint(config: Config, source: ModelSource, data: PreparedData) -> str:
    """Return a hash of the model, the images and the settings of the evaluation."""
    network = hash_file(source.network)
    settings = {
        key: config_to_dict(config)["evaluation"][key] for key in ("classes", "overlap", "lesions")
    }
    text = json.dumps(["evaluation", network, data.digest, config.split.name, settings])
    return hash_text(text, 16)
