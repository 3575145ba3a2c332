"""What a run is, before it begins: two runs of one fingerprint compute the same."""

from __future__ import annotations

from collections.abc import Sequence

from melanoma_lab.config.fingerprint import fingerprint
from melanoma_lab.config.schema import Config
from melanoma_lab.data.prepare import PreparedData
from melanoma_lab.model.pretrained.sources import find_weights


def fingerprint_of(config: Config, data: PreparedData, splits: Sequence[str] | None = None) -> str:
    """The fingerprint of a run; weights that it starts from and known patients count.

    Args:
        config: the whole configuration.
        data: the split dataset.
        splits: those that the run is measured on; None: all.

    Raises:
        UserError: the file of weights is not there, or not what was published.
        RunError: it could not be downloaded.
    """
    weights = find_weights(config.architecture)
    return fingerprint(
        config,
        dataset_digest=data.digest,
        split_hash=data.split_hash,
        splits=splits,
        weights=weights.sha256 if weights else None,
        patients=data.patients.digest if data.patients else None,
    )
