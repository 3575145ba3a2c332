"""What a run is and is called, before it begins."""

from __future__ import annotations

from collections.abc import Sequence

from melanoma_lab import tracking
from melanoma_lab.config.arm import Arm
from melanoma_lab.config.arm_labels import format_run_name
from melanoma_lab.config.fingerprint import compute_fingerprint
from melanoma_lab.config.schema import Config
from melanoma_lab.config.schema.split import FoldSplit
from melanoma_lab.config.schema.trivial_classifiers import TrivialArchitecture
from melanoma_lab.core.version import __version__
from melanoma_lab.input_pipeline.prepare import PreparedData
from melanoma_lab.models.pretrained.weight_files import find_weights
from melanoma_lab.runs.run_options import WHOLE_RUN, RunOptions
from melanoma_lab.training.hardware import (
    detect_hardware,
    read_processor_name,
    require_device_count,
)


def fingerprint_run(config: Config, data: PreparedData, splits: Sequence[str] | None = None) -> str:
    """Runs of one fingerprint compute the same; weights to start from and known patients count.

    Args:
        config: the whole configuration.
        data: the split dataset.
        splits: those that the run is measured on; None: all.

    Raises:
        UserError: the file of weights is not there, or not what was published.
        RunError: it could not be downloaded.
    """
    weights = find_weights(config.architecture)
    return compute_fingerprint(
        config,
        dataset_digest=data.digest,
        split_hash=data.split_hash,
        splits=splits,
        weights=weights.sha256 if weights else None,
        patients=data.patients.digest if data.patients else None,
    )


def name_run(config: Config, arm: Arm, extent: RunOptions = WHOLE_RUN) -> str:
    """What a run is called in MLflow's list."""
    trial = f"trial {extent.tags['trial']} " if "trial" in extent.tags else ""
    return trial + format_run_name(arm.name, config.seed, _fold(config))


def build_run_tags(
    config: Config, arm: Arm, data: PreparedData, *, threads: int, extent: RunOptions = WHOLE_RUN
) -> dict[str, str]:
    """What a run is searched, grouped and compared by."""
    trivial = isinstance(config.architecture, TrivialArchitecture)
    weights = find_weights(config.architecture)
    return {
        "study": config.study,
        "experiment": arm.preset,
        "arm": arm.name,
        "reference": config.reference or "",
        "seed": str(config.seed),
        "fold": str(_fold(config)),
        "fingerprint": fingerprint_run(config, data, extent.splits),
        "split_hash": data.split_hash,
        "dataset": config.dataset.name,
        "dataset_digest": data.digest,
        "audit_digest": data.findings.digest,
        "protocol": data.protocol,
        "grouped_by": ", ".join(data.grouped_by),
        "source_tells_class": _figure(data.findings.sources.pairwise_accuracy),
        "notes": " ".join(data.notes),
        "git_commit": tracking.git_commit(),
        "melanoma_lab": __version__,
        "threads": str(threads),
        "precision": config.training.precision.value,
        "device": (
            read_processor_name()
            if trivial
            else detect_hardware().describe(require_device_count(config.training))
        ),
        **({"trivial": "true"} if trivial else {}),
        **({"weights_sha256": weights.sha256} if weights else {}),
        **({"metadata_digest": data.patients.digest} if data.patients else {}),
        **extent.tags,
    }


def _fold(config: Config) -> int:
    return config.split.fold if isinstance(config.split, FoldSplit) else 0


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
