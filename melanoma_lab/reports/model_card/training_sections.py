"""The model card's sections on the model and its training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from melanoma_lab.config.schema.data import Resize
from melanoma_lab.evaluation.evaluated_run import EvaluatedRun
from melanoma_lab.tracking.run_reader import RunIdentity

#: Fields of an option that do not affect the model.
_IRRELEVANT_FIELDS = frozenset({"name", "cache_features"})
#: How images of each option of ``resize`` are made square.
SQUARED: Final = {
    Resize.squash: "stretching, which changes their proportions",
    Resize.crop: "cropping to the middle of the longer side",
    Resize.pad: "padding the shorter side with black",
}


def build_model_rows(run: EvaluatedRun, identity: RunIdentity) -> list[list[str]]:
    """Describe the model and where it comes from."""
    config, tags = run.config, identity.tags
    size = _get(config, "dataset", "image_size")
    resize = _get(config, "dataset", "resize") or Resize.squash
    parameters = run.metrics.get("parameters")
    count = "" if parameters is None else f", {parameters:,.0f} parameters"
    network = _get(config, "architecture", "name") or "unknown"
    members = tags.get("members")
    mean_of = (
        f"the mean of {len(members.split(','))} networks (seeds {members}), " if members else ""
    )
    rows = [
        ["network", f"{mean_of}{network}{count}"],
        ["input", f"raw pixels, uint8, {size} x {size}, RGB; scaling is part of the model"],
        ["images made square by", SQUARED[Resize(resize)]],
        ["output", f"probabilities of {len(run.predictions.slugs)} classes"],
        ["run", f"{identity.run_id}, started {identity.day}, study {tags.get('study', 'unknown')}"],
        ["arm", f"{tags.get('arm', 'unknown')}, seed {tags.get('seed', '?')}"],
        ["outcome", tags.get("outcome", "unknown").replace("_", " ")],
        ["code", _describe_code(tags)],
        ["machine", tags.get("device", "")],
    ]
    return [row for row in rows if row[1]]


def build_training_rows(run: EvaluatedRun, tags: Mapping[str, str]) -> list[list[str]]:
    """Describe the settings of a training; leave out those that are not used."""
    config = run.config
    best_epoch = run.metrics.get("best_epoch")
    epochs = _get(config, "training", "epochs")
    duration = f"{epochs} epochs" + (
        f", weights of epoch {best_epoch:.0f} kept" if best_epoch else ""
    )
    rate = _get(config, "optimizer", "learning_rate")
    optimizer = _get(config, "optimizer", "name")
    rows = [
        ["initial weights", _describe_weights(config, tags)],
        ["fine-tuning", _describe_option(config, "finetuning")],
        ["loss", _get(config, "loss", "name")],
        ["optimizer", f"{optimizer}, learning rate {rate:g}" if rate else optimizer],
        ["schedule", _get(config, "schedule", "name")],
        ["regularisation", _describe_option(config, "regularisation")],
        ["augmentation", _describe_option(config, "augmentation")],
        ["balancing", _describe_option(config, "balancing")],
        ["averaged weights (EMA)", _get(config, "optimizer", "ema")],
        ["metadata", _list_metadata(config)],
        ["test-time augmentation", _drop_none(_get(config, "evaluation", "tta"))],
        ["trained for", duration],
        ["batch", _get(config, "training", "batch_size")],
        ["precision", tags.get("precision") or _get(config, "training", "precision")],
    ]
    return [[name, str(value)] for name, value in rows if value]


def _get(config: Mapping[str, Any], *keys: str) -> Any:
    """Return a value of the configuration; an empty text if it is missing."""
    node: Any = config
    for key in keys:
        node = node.get(key) if isinstance(node, dict) else None
    return "" if node is None else node


def _drop_none(value: Any) -> Any:
    """Return a value, or an empty text for ``none``."""
    return "" if value == "none" else value


def _describe_option(config: Mapping[str, Any], group: str) -> Any:
    """Describe the option of a group with its values; return an empty text for ``none``."""
    options = config.get(group)
    if not isinstance(options, dict) or options.get("name") in (None, "none"):
        return ""
    values = [
        f"{key} {value}"
        for key, value in options.items()
        if key not in _IRRELEVANT_FIELDS and not isinstance(value, dict) and value is not None
    ]
    return f"{options['name']} ({', '.join(values)})" if values else str(options["name"])


def _describe_weights(config: Mapping[str, Any], tags: Mapping[str, str]) -> str:
    weights = _get(config, "architecture", "weights")
    if not weights or weights == "none":
        return "random"
    sha = tags.get("weights_sha256", "")
    return str(weights) + (f" (SHA-256 {sha[:16]}...)" if sha else "")


def _list_metadata(config: Mapping[str, Any]) -> str:
    columns = _get(config, "metadata", "columns")
    return ", ".join(columns) if _drop_none(_get(config, "metadata", "name")) and columns else ""


def _describe_code(tags: Mapping[str, str]) -> str:
    commit, version = tags.get("git_commit", ""), tags.get("melanoma_lab", "")
    return f"melanoma_lab {version}" + (f", commit {commit}" if commit else "")
