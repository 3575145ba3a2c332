"""What a model card says of how a model was made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from melanoma_lab.config.schema.dataset import Resize
from melanoma_lab.evaluation.evaluated_run import EvaluatedRun
from melanoma_lab.reports.model_card.run_identity import RunIdentity

#: What of an option says nothing of the model.
_INCIDENTAL = frozenset({"name", "cache_features"})
SQUARED: Final = {
    Resize.squash: "changing their proportions",
    Resize.crop: "keeping the middle of the longer side",
    Resize.pad: "laying black on both sides of the shorter one",
}


def build_model_rows(run: EvaluatedRun, identity: RunIdentity) -> list[list[str]]:
    """Describe what the model is and where it comes from."""
    config, tags = run.config, identity.tags
    size = _of(config, "dataset", "image_size")
    resize = _of(config, "dataset", "resize") or Resize.squash
    parameters = run.metrics.get("parameters")
    counted = "" if parameters is None else f", {parameters:,.0f} parameters"
    network = _of(config, "architecture", "name") or "unknown"
    members = tags.get("members")
    together = (
        f"the mean of {len(members.split(','))} networks (seeds {members}), " if members else ""
    )
    rows = [
        ["network", f"{together}{network}{counted}"],
        ["takes", f"raw pixels, uint8, {size} x {size}, RGB; scaling is inside"],
        ["photographs become square by", SQUARED[Resize(resize)]],
        ["gives", f"probabilities of {len(run.predictions.slugs)} classes"],
        ["run", f"{identity.run_id}, begun {identity.day}, study {tags.get('study', 'unknown')}"],
        ["arm", f"{tags.get('arm', 'unknown')}, seed {tags.get('seed', '?')}"],
        ["outcome", tags.get("outcome", "unknown").replace("_", " ")],
        ["code", _code(tags)],
        ["machine", tags.get("device", "")],
    ]
    return [row for row in rows if row[1]]


def build_training_rows(run: EvaluatedRun, tags: Mapping[str, str]) -> list[list[str]]:
    """List the choices that a training is told by; those that add nothing are left out."""
    config = run.config
    kept = run.metrics.get("best_epoch")
    epochs = _of(config, "training", "epochs")
    trained = f"{epochs} epochs" + (f", weights of epoch {kept:.0f} kept" if kept else "")
    rate = _of(config, "optimizer", "learning_rate")
    optimizer = _of(config, "optimizer", "name")
    rows = [
        ["starts from", _weights(config, tags)],
        ["what trains", _named(config, "finetuning")],
        ["loss", _of(config, "loss", "name")],
        ["optimizer", f"{optimizer}, learning rate {rate:g}" if rate else optimizer],
        ["schedule", _of(config, "schedule", "name")],
        ["regularisation", _named(config, "regularisation")],
        ["augmentation", _named(config, "augmentation")],
        ["balancing", _named(config, "balancing")],
        ["mean of weights", _of(config, "optimizer", "ema")],
        ["metadata", _metadata(config)],
        ["views of an image", _none(_of(config, "evaluation", "tta"))],
        ["trained for", trained],
        ["batch", _of(config, "training", "batch_size")],
        ["precision", tags.get("precision") or _of(config, "training", "precision")],
    ]
    return [[name, str(value)] for name, value in rows if value]


def _of(config: Mapping[str, Any], *keys: str) -> Any:
    """A value of the configuration; empty where it has none."""
    node: Any = config
    for key in keys:
        node = node.get(key) if isinstance(node, dict) else None
    return "" if node is None else node


def _none(value: Any) -> Any:
    return "" if value == "none" else value


def _named(config: Mapping[str, Any], group: str) -> Any:
    """The option of a group with its values; empty where it is ``none``."""
    options = config.get(group)
    if not isinstance(options, dict) or options.get("name") in (None, "none"):
        return ""
    told = [
        f"{key} {value}"
        for key, value in options.items()
        if key not in _INCIDENTAL and not isinstance(value, dict) and value is not None
    ]
    return f"{options['name']} ({', '.join(told)})" if told else str(options["name"])


def _weights(config: Mapping[str, Any], tags: Mapping[str, str]) -> str:
    weights = _of(config, "architecture", "weights")
    if not weights or weights == "none":
        return "fresh weights"
    sha = tags.get("weights_sha256", "")
    return f"{weights} weights" + (f" (SHA-256 {sha[:16]}...)" if sha else "")


def _metadata(config: Mapping[str, Any]) -> str:
    columns = _of(config, "metadata", "columns")
    return ", ".join(columns) if _none(_of(config, "metadata", "name")) and columns else ""


def _code(tags: Mapping[str, str]) -> str:
    commit, version = tags.get("git_commit", ""), tags.get("melanoma_lab", "")
    return f"melanoma_lab {version}" + (f", commit {commit}" if commit else "")
