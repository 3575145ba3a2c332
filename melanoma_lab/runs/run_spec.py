"""Description of a run before it begins: its name, tags, params and fingerprint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from melanoma_lab.config.arm import Arm, format_run_name
from melanoma_lab.config.fingerprint import compute_fingerprint, config_to_dict
from melanoma_lab.config.schema import Config
from melanoma_lab.config.schema.architecture import TrivialArchitecture
from melanoma_lab.config.schema.data import FoldSplit
from melanoma_lab.core.version import __version__, git_commit
from melanoma_lab.data.split import TRAIN, VAL
from melanoma_lab.input_pipeline.prepare import PreparedData
from melanoma_lab.models.weight_files import find_weights
from melanoma_lab.runs.run_lock import RunLock
from melanoma_lab.tracking.upload import flatten_params
from melanoma_lab.training.hardware import (
    detect_hardware,
    read_processor_name,
    require_device_count,
)


@dataclass(frozen=True)
class RunOptions:
    """Options of one run: the splits to evaluate and the files to save; all by default.

    Attributes:
        splits: the splits that the trained network is applied to, and so those of the predictions
            table and the metrics; None: all. The network never sees the images of another split.
        save_figures: record figures, the page of mistakes, the model and its card.
        continue_from: the lock of a run that trained the first epochs of this one, if there is one.
        keep_checkpoints: leave the last checkpoint on the disk, for another run to continue from.
        progress_prefix: prefix of the progress bar; None: every epoch and the results are printed.
    """

    splits: tuple[str, ...] | None = None
    save_figures: bool = True
    tags: Mapping[str, str] = field(default_factory=dict)
    continue_from: RunLock | None = None
    keep_checkpoints: bool = False
    progress_prefix: str | None = None

    @property
    def prints_lines(self) -> bool:
        """Whether steps and epochs are printed as lines, not as one progress bar."""
        return self.progress_prefix is None


@dataclass(frozen=True, eq=False)
class RunSpec:
    """Description of a run: its configuration, its data and its options.

    Attributes:
        config: the checked configuration, after ``resolve_auto``.
    """

    config: Config
    arm: Arm
    data: PreparedData
    threads: int
    options: RunOptions

    @property
    def is_trivial(self) -> bool:
        """Whether the run fits a trivial classifier, not a network."""
        return isinstance(self.config.architecture, TrivialArchitecture)

    @cached_property
    def fingerprint(self) -> str:
        """The run's fingerprint, as ``fingerprint_run`` returns it."""
        return fingerprint_run(self.config, self.data, self.options.splits)

    @cached_property
    def name(self) -> str:
        """The run's name in MLflow."""
        tags = self.options.tags
        trial = f"trial {tags['trial']} " if "trial" in tags else ""
        return trial + format_run_name(self.arm.name, self.config.seed, self._fold)

    def build_params(self) -> dict[str, str]:
        """Return the configuration as MLflow params: dotted keys, values as text."""
        return flatten_params(config_to_dict(self.config))

    def build_tags(self) -> dict[str, str]:
        """Return the tags by which runs are searched, grouped and compared."""
        config, data = self.config, self.data
        weights = find_weights(config.architecture)
        return {
            "study": config.study,
            "experiment": self.arm.preset,
            "arm": self.arm.name,
            "reference": config.reference or "",
            "seed": str(config.seed),
            "fold": str(self._fold),
            "fingerprint": self.fingerprint,
            "split_hash": data.split_hash,
            "dataset": config.dataset.name,
            "dataset_digest": data.digest,
            "audit_digest": data.findings.digest,
            "protocol": data.protocol,
            "grouped_by": ", ".join(data.grouped_by),
            "source_tells_class": _format_share(data.findings.sources.pairwise_accuracy),
            "notes": " ".join(data.notes),
            "git_commit": git_commit(),
            "melanoma_lab": __version__,
            "threads": str(self.threads),
            "precision": config.training.precision.value,
            "device": (
                read_processor_name()
                if self.is_trivial
                else detect_hardware().describe(require_device_count(config.training))
            ),
            **({"trivial": "true"} if self.is_trivial else {}),
            **({"weights_sha256": weights.sha256} if weights else {}),
            **({"metadata_digest": data.patients.digest} if data.patients else {}),
            **self.options.tags,
        }

    @property
    def _fold(self) -> int:
        return self.config.split.fold if isinstance(self.config.split, FoldSplit) else 0


def choose_options(config: Config) -> RunOptions:
    """Return the options of a run that is not a trial of a search.

    If ``evaluation.test`` is false, the test split is not evaluated.
    """
    return RunOptions() if config.evaluation.test else RunOptions(splits=(TRAIN, VAL))


def fingerprint_run(config: Config, data: PreparedData, splits: Sequence[str] | None = None) -> str:
    """Return the fingerprint of a run; runs with equal fingerprints have equal results.

    Args:
        splits: the splits that the run is evaluated on; None: all.

    Raises:
        UserError: the file of pretrained weights is missing, or is not the published one.
        RunError: the file of pretrained weights could not be downloaded.
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


def _format_share(share: float | None) -> str:
    return "" if share is None else f"{share:.4f}"
