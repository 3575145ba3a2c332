"""Where a dataset lies; checked before anything slow is imported."""

from __future__ import annotations

from pathlib import Path

from melanoma_lab.config.required_keys import NO_ROOT
from melanoma_lab.config.schema.dataset import Dataset, SyntheticDataset
from melanoma_lab.core.errors import UserError, suggest_similar


def check_dataset_root(dataset: Dataset) -> None:
    """Refuse a root that is not set, not there, or no folder; the synthetic dataset needs none.

    Args:
        dataset: the dataset's configuration.

    Raises:
        UserError: with the choice that would be right.
    """
    if isinstance(dataset, SyntheticDataset):
        return
    if not dataset.root:
        raise UserError(NO_ROOT)
    root = Path(dataset.root).expanduser()
    if not root.exists():
        raise UserError(f"dataset.root={dataset.root}: no such folder.{_near_miss(root)}")
    if not root.is_dir():
        raise UserError(f"dataset.root={dataset.root}: a file; expected the folder of the images.")


def _near_miss(root: Path) -> str:
    """The folder beside it whose name is alike, as a sentence."""
    try:
        names = [path.name for path in root.absolute().parent.iterdir() if path.is_dir()]
    except OSError:
        return ""
    close = suggest_similar(root.name, names)
    return f" {close}" if close else ""
