"""What a model card says of how a model was made."""

from __future__ import annotations

from typing import Any, Final

from melanoma_lab.config.schema.dataset import Resize
from melanoma_lab.reports.model_card.card_data import ModelCardData

#: What of an option says nothing of the model.
_INCIDENTAL = frozenset({"name", "cache_features"})
SQUARED: Final = {
    Resize.squash: "changing their proportions",
    Resize.crop: "keeping the middle of the longer side",
    Resize.pad: "laying black on both sides of the shorter one",
}


def build_model_rows(facts: ModelCardData) -> list[list[str]]:
    """What the model is and where it comes from."""
    tags, size = facts.tags, _of(facts, "dataset", "image_size")
    resize = _of(facts, "dataset", "resize") or Resize.squash
    parameters = facts.metrics.get("parameters")
    counted = "" if parameters is None else f", {parameters:,.0f} parameters"
    network = _of(facts, "architecture", "name") or "unknown"
    members = tags.get("members")
    together = (
        f"the mean of {len(members.split(','))} networks (seeds {members}), " if members else ""
    )
    rows = [
        ["network", f"{together}{network}{counted}"],
        ["takes", f"raw pixels, uint8, {size} x {size}, RGB; scaling is inside"],
        ["photographs become square by", SQUARED[Resize(resize)]],
        ["gives", f"probabilities of {len(facts.predictions.slugs)} classes"],
        ["run", f"{facts.run_id}, begun {facts.day}, study {tags.get('study', 'unknown')}"],
        ["arm", f"{tags.get('arm', 'unknown')}, seed {tags.get('seed', '?')}"],
        ["outcome", tags.get("outcome", "unknown").replace("_", " ")],
        ["code", _code(facts)],
        ["machine", tags.get("device", "")],
    ]
    return [row for row in rows if row[1]]


def build_training_rows(facts: ModelCardData) -> list[list[str]]:
    """The choices that a training is told by; those that add nothing are left out."""
    kept = facts.metrics.get("best_epoch")
    epochs = _of(facts, "training", "epochs")
    trained = f"{epochs} epochs" + (f", weights of epoch {kept:.0f} kept" if kept else "")
    rate = _of(facts, "optimizer", "learning_rate")
    optimizer = _of(facts, "optimizer", "name")
    rows = [
        ["starts from", _weights(facts)],
        ["what trains", _named(facts, "finetuning")],
        ["loss", _of(facts, "loss", "name")],
        ["optimizer", f"{optimizer}, learning rate {rate:g}" if rate else optimizer],
        ["schedule", _of(facts, "schedule", "name")],
        ["regularisation", _named(facts, "regularisation")],
        ["augmentation", _named(facts, "augmentation")],
        ["balancing", _named(facts, "balancing")],
        ["mean of weights", _of(facts, "optimizer", "ema")],
        ["metadata", _metadata(facts)],
        ["views of an image", _none(_of(facts, "evaluation", "tta"))],
        ["trained for", trained],
        ["batch", _of(facts, "training", "batch_size")],
        ["precision", facts.tags.get("precision") or _of(facts, "training", "precision")],
    ]
    return [[name, str(value)] for name, value in rows if value]


def _of(facts: ModelCardData, *keys: str) -> Any:
    """A value of the configuration; empty where it has none."""
    node: Any = facts.config
    for key in keys:
        node = node.get(key) if isinstance(node, dict) else None
    return "" if node is None else node


def _none(value: Any) -> Any:
    return "" if value == "none" else value


def _named(facts: ModelCardData, group: str) -> Any:
    """The option of a group with its values; empty where it is ``none``."""
    options = facts.config.get(group)
    if not isinstance(options, dict) or options.get("name") in (None, "none"):
        return ""
    told = [
        f"{key} {value}"
        for key, value in options.items()
        if key not in _INCIDENTAL and not isinstance(value, dict) and value is not None
    ]
    return f"{options['name']} ({', '.join(told)})" if told else str(options["name"])


def _weights(facts: ModelCardData) -> str:
    weights = _of(facts, "architecture", "weights")
    if not weights or weights == "none":
        return "fresh weights"
    sha = facts.tags.get("weights_sha256", "")
    return f"{weights} weights" + (f" (SHA-256 {sha[:16]}...)" if sha else "")


def _metadata(facts: ModelCardData) -> str:
    columns = _of(facts, "metadata", "columns")
    return ", ".join(columns) if _none(_of(facts, "metadata", "name")) and columns else ""


def _code(facts: ModelCardData) -> str:
    commit = facts.tags.get("git_commit", "")
    version = facts.tags.get("melanoma_lab", "")
    return f"melanoma_lab {version}" + (f", commit {commit}" if commit else "")
